//! `pyro workspace file|patch|sync|disk …`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use pyro_client::types::WORKSPACE_ROOT;

use super::Json;
use super::workspace::{ListFiles, MaxBytes};

#[derive(Debug, Subcommand)]
pub(crate) enum File {
    /// List a directory
    #[command(after_help = "\
Examples:
  pyro workspace file list parser
  pyro workspace file list parser src --recursive")]
    List(ListFiles),
    /// Print a file
    #[command(after_help = "\
Examples:
  pyro workspace file read parser README.md
  pyro workspace file read parser build.log --offset 65536 --max-bytes 1048576
  pyro workspace file read parser logo.png --content-only > logo.png")]
    Read(ReadFile),
    /// Write a file: atomically, with its directories, keeping its mode
    #[command(after_help = "\
Examples:
  pyro workspace file write parser notes.txt --text 'hello'
  pyro workspace file write parser src/main.py --text-file ./main.py
  sort words | pyro workspace file write parser words --text-file -")]
    Write(WriteFile),
}

impl File {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::List(args) => args.json.json,
            Self::Read(args) => args.json.json,
            Self::Write(args) => args.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReadFile {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The file; relative paths start at /workspace
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) max: MaxBytes,
    /// Where to start, in bytes
    #[arg(
        long,
        value_name = "BYTES",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    pub(crate) offset: u64,
    /// Print exactly the file's bytes, and no word about them
    #[arg(long, conflicts_with = "json")]
    pub(crate) content_only: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("content").required(true).args(["text", "text_file"]))]
pub(crate) struct WriteFile {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The file; relative paths start at /workspace
    pub(crate) path: String,
    /// The new content, as it is
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// A file of this machine with the new content; - is standard input
    #[arg(long, value_name = "PATH")]
    pub(crate) text_file: Option<PathBuf>,
    /// Refuse when the present content has another SHA-256 (as `file read --json` gives it)
    #[arg(long, value_name = "HEX")]
    pub(crate) expect_sha256: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Patch {
    /// Apply a unified diff: all of it or nothing
    #[command(after_help = "\
Examples:
  pyro workspace patch apply parser --patch-file fix.patch
  git diff | pyro workspace patch apply parser --patch -
  pyro workspace patch apply parser --patch-file fix.patch --dry-run --json")]
    Apply(ApplyPatch),
}

impl Patch {
    pub(crate) fn json(&self) -> bool {
        let Self::Apply(args) = self;
        args.json.json
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("diff").required(true).args(["patch", "patch_file"]))]
pub(crate) struct ApplyPatch {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The unified diff itself; - is standard input
    #[arg(long, value_name = "DIFF", allow_hyphen_values = true)]
    pub(crate) patch: Option<String>,
    /// A file of this machine with the unified diff; - is standard input
    #[arg(long, value_name = "PATH")]
    pub(crate) patch_file: Option<PathBuf>,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sync {
    /// Lay a directory or an archive over a directory of the workspace: all of it or none
    #[command(after_help = "\
Examples:
  pyro workspace sync push parser ./src --dest src
  pyro workspace sync push parser fixtures.tar.gz --json")]
    Push(Push),
}

impl Sync {
    pub(crate) fn json(&self) -> bool {
        let Self::Push(args) = self;
        args.json.json
    }
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// A directory, .tar, .tar.gz or .tgz of this machine
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// The directory in the guest; relative paths start at /workspace
    #[arg(long, value_name = "DIR", default_value = WORKSPACE_ROOT)]
    pub(crate) dest: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Disk {
    /// Make a raw ext4 image of the whole disk
    #[command(after_help = "\
Examples:
  pyro workspace disk export parser --output ./parser.ext4

The workspace must be stopped.")]
    Export(ExportDisk),
    /// List a directory of the disk
    #[command(after_help = "\
Examples:
  pyro workspace disk list parser
  pyro workspace disk list parser /etc --recursive

The workspace must be stopped.")]
    List(ListFiles),
    /// Print a file of the disk
    #[command(after_help = "\
Examples:
  pyro workspace disk read parser /etc/hostname
  pyro workspace disk read parser /var/log/dpkg.log --max-bytes 1048576

The workspace must be stopped.")]
    Read(ReadDisk),
}

impl Disk {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Export(args) => args.json.json,
            Self::List(args) => args.json.json,
            Self::Read(args) => args.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExportDisk {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The image to make on this machine
    #[arg(long, value_name = "HOST_PATH")]
    pub(crate) output: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ReadDisk {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The file; relative paths start at /workspace
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) max: MaxBytes,
    #[command(flatten)]
    pub(crate) json: Json,
}
