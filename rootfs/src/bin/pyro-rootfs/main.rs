//! `pyro-rootfs`: mounts a stack of layers on the host through `/dev/fuse`, and packs tar archives
//! into layers; measures layer operations. A tool for developers and tests; `pyro` itself does not need it.

mod bench;
mod commands;
mod mount;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use pyro_rootfs::fuse::Caching;
use pyro_rootfs::pack::{PackLimits, pack_tar};
use pyro_rootfs::tree::{Durability, PackedFiles, Quota, StackFiles};
use rustix::fs::{Mode, OFlags};

/// Mount and make layered roots.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mount a stack and serve it until it is unmounted or the process is told to end.
    ///
    /// Example: pyro-rootfs mount --layer base.index base.data --writable top /mnt
    Mount {
        /// An immutable layer's two files, the lowest layer first; may be given several times.
        #[arg(long, num_args = 2, value_names = ["INDEX", "DATA"], required = true)]
        layer: Vec<PathBuf>,
        /// Directory of a frozen layer, the lowest first; may be given several times.
        #[arg(long, value_name = "DIR")]
        frozen: Vec<PathBuf>,
        /// Directory of the writable layer; made when it does not exist.
        #[arg(long, value_name = "DIR")]
        writable: PathBuf,
        /// Bytes that the writable layer may hold.
        #[arg(long, value_name = "BYTES")]
        quota_bytes: Option<u64>,
        /// Inodes that the writable layer may hold.
        #[arg(long, value_name = "NUMBER")]
        quota_inodes: Option<u64>,
        /// Let fsync hand over to the host's kernel without waiting for its disk.
        #[arg(long)]
        no_disk_sync: bool,
        /// Let each write reach the server at once instead of through the kernel's cache.
        #[arg(long)]
        write_through: bool,
        /// Obey commands on standard input, each answered by a line: "freeze DIR" puts the empty
        /// layer DIR on top; "fail REQUEST ERRNO [SKIP]" lets requests of a kind (write, fsync, …) fail
        /// after SKIP more; "heal" ends that.
        #[arg(long, verbatim_doc_comment)]
        commands: bool,
        /// Where to mount.
        mountpoint: PathBuf,
    },
    /// Pack a tar archive (standard input when it is "-") into a layer.
    ///
    /// Example: pyro-rootfs pack root.tar base.index base.data
    Pack {
        /// The archive.
        tar: PathBuf,
        /// The index to write.
        index: PathBuf,
        /// The data file to write.
        data: PathBuf,
    },
    /// Measure freeze, drop, branch and change lists with much beneath.
    ///
    /// Example: pyro-rootfs bench /var/tmp/bench
    Bench {
        /// Files beneath.
        #[arg(long, default_value_t = 200_000)]
        files: u64,
        /// Bytes of content beneath, most of it holes.
        #[arg(long, default_value_t = 10 << 30)]
        bytes: u64,
        /// Where; must not exist, and is left there.
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Mount {
            layer,
            frozen,
            writable,
            quota_bytes,
            quota_inodes,
            no_disk_sync,
            write_through,
            commands,
            mountpoint,
        } => {
            let quota = Quota {
                bytes: quota_bytes.unwrap_or(Quota::UNLIMITED.bytes),
                inodes: quota_inodes.unwrap_or(Quota::UNLIMITED.inodes),
            };
            let durability = if no_disk_sync {
                Durability::Process
            } else {
                Durability::Host
            };
            let layers = open_layers(&layer)?;
            let frozen = frozen
                .iter()
                .map(|dir| open_dir(dir))
                .collect::<Result<_>>()?;
            let writable = open_writable(&writable)?;
            let stack = StackFiles {
                layers,
                frozen,
                writable,
                quota,
                durability,
            };
            let caching = if write_through {
                Caching::WriteThrough
            } else {
                Caching::WriteBack
            };
            mount::run(stack, caching, commands, &mountpoint)
        }
        Command::Pack { tar, index, data } => pack(&tar, &index, &data),
        Command::Bench { files, bytes, dir } => bench::run(&dir, files, bytes),
    }
}

fn open_layers(paths: &[PathBuf]) -> Result<Vec<PackedFiles>> {
    let open = |path: &PathBuf| {
        File::open(path).with_context(|| format!("cannot open {}", path.display()))
    };
    paths
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[index, data]| {
            Ok(PackedFiles {
                index: open(index)?,
                data: open(data)?,
            })
        })
        .collect()
}

fn open_writable(path: &Path) -> Result<OwnedFd> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", path.display()));
        }
        _ => {}
    }
    open_dir(path)
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}

fn pack(tar: &Path, index: &Path, data: &Path) -> Result<()> {
    let create = |path: &Path| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .with_context(|| format!("cannot make {}", path.display()))
    };
    let (index, data) = (create(index)?, create(data)?);
    let mut ignore_progress = |_| {};
    let summary = if tar == Path::new("-") {
        pack_tar(
            io::stdin().lock(),
            &index,
            &data,
            PackLimits::default(),
            &mut ignore_progress,
        )?
    } else {
        let tar = File::open(tar).with_context(|| format!("cannot open {}", tar.display()))?;
        pack_tar(
            tar,
            &index,
            &data,
            PackLimits::default(),
            &mut ignore_progress,
        )?
    };
    println!(
        "{} inodes, {} bytes of contents",
        summary.inodes, summary.bytes
    );
    Ok(())
}
