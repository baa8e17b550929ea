//! A push, from the host's source to the changes that the guest's agent carries out.
//!
//! The source is first imported into a tree of its own that is thrown away afterwards, by the
//! same code as a seed. So the two take and refuse the same, and nothing reaches the guest before
//! all of the source was seen.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pyro_agent_protocol as protocol;
use pyro_agent_protocol::{Change, FrameKind, GuestPath};
use pyro_rootfs::export::ReadTree;
use pyro_rootfs::import::{IgnoredFiles, ImportError, ImportLimits, ImportSummary, import_path};
use pyro_rootfs::pack::{PackLimits, PackedWriter};
use pyro_rootfs::tree::{
    Attr, Content, Cookie, Durability, FileType, Ino, PackedFiles, StackFiles, Tree,
};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// What goes with one push.
pub(super) struct Push {
    tree: Tree,
    summary: ImportSummary,
    _scratch: Scratch,
}

/// A folder of the state directory that goes when it is dropped.
struct Scratch(std::path::PathBuf);

/// The folders' names begin with this.
const SCRATCH: &str = "push-";

/// Removes what a killed daemon left. Blocks.
pub(super) fn collect(state: &Path) {
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Scratch {
    fn new(state: &Path) -> io::Result<Self> {
        let number = u64::from_ne_bytes(crate::run_dir::random()?);
        let path = state.join(format!("{SCRATCH}{number:016x}"));
        crate::run_dir::private_folder(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Push {
    /// Looks at all of the source. Blocks.
    pub(super) fn prepare(state: &Path, source: &Path) -> Result<Self, ImportError> {
        let failed = |source: io::Error| ImportError::Store {
            member: String::new(),
            source,
        };
        let scratch = Scratch::new(state).map_err(failed)?;
        let mut tree = open(&scratch.0).map_err(failed)?;
        let summary = import_path(
            &mut tree,
            Ino::ROOT,
            source,
            IgnoredFiles::default(),
            ImportLimits::default(),
        )?;
        Ok(Self {
            tree,
            summary,
            _scratch: scratch,
        })
    }

    /// What there is to push.
    pub(super) fn summary(&self) -> &ImportSummary {
        &self.summary
    }

    /// Sends the changes that put it into `dest`, and the commit. Ends early when nobody takes
    /// them any more. Blocks.
    pub(super) fn send(
        mut self,
        dest: &str,
        frames: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), ImportError> {
        let failed = |path: &[u8]| {
            let member = String::from_utf8_lossy(path).into_owned();
            move |errno: Errno| ImportError::Store {
                member,
                source: errno.into(),
            }
        };
        let mut sender = Sender { frames };
        let top = dest.trim_end_matches('/').as_bytes().to_vec();
        if !matches!(dest, "" | ".") {
            sender.change(&Change::Mkdir {
                path: GuestPath::from_bytes(if top.is_empty() {
                    b"/".to_vec()
                } else {
                    top.clone()
                }),
                mode: protocol::Mode::Keep,
            });
        }
        let mut directories = vec![(Ino::ROOT, top)];
        while let Some((dir, path)) = directories.pop() {
            if frames.is_closed() {
                return Ok(());
            }
            for (name, ino) in names(&self.tree, dir).map_err(failed(&path))? {
                let path = match path.as_slice() {
                    b"" | b"." => name,
                    path => [path, b"/", &name].concat(),
                };
                let attr = self.tree.attr(ino).map_err(failed(&path))?;
                match attr.file_type {
                    FileType::Directory => {
                        sender.change(&Change::Mkdir {
                            path: GuestPath::from_bytes(path.clone()),
                            mode: protocol::Mode::Set(u32::from(attr.mode)),
                        });
                        directories.push((ino, path));
                    }
                    FileType::Symlink => {
                        let target = self.tree.readlink(ino).map_err(failed(&path))?;
                        sender.change(&Change::Symlink {
                            path: GuestPath::from_bytes(path),
                            target: GuestPath::from_bytes(target),
                            expect: protocol::Expect::Anything,
                        });
                    }
                    _ => sender
                        .file(&mut self.tree, &attr, &path)
                        .map_err(failed(&path))?,
                }
            }
        }
        sender.change(&Change::Commit { dry_run: false });
        Ok(())
    }
}

/// Names in a directory, in order.
fn names(tree: &Tree, dir: Ino) -> Result<BTreeSet<(Vec<u8>, Ino)>, Errno> {
    let mut names = BTreeSet::new();
    tree.read_dir(dir, Cookie::DOT_DOT, &mut |entry| {
        names.insert((entry.name.to_vec(), entry.ino));
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

struct Sender<'a> {
    frames: &'a mpsc::Sender<Vec<u8>>,
}

impl Sender<'_> {
    /// A receiver that is gone has its answer already.
    fn frame(&mut self, frame: Result<Vec<u8>, protocol::FrameError>) {
        if let Ok(frame) = frame {
            let _ = self.frames.blocking_send(frame);
        }
    }

    fn change(&mut self, change: &Change) {
        self.frame(protocol::encode_message(change));
    }

    fn file(&mut self, tree: &mut Tree, attr: &Attr, path: &[u8]) -> Result<(), Errno> {
        self.change(&Change::Write(protocol::Write {
            path: GuestPath::from_bytes(path.to_vec()),
            size: attr.size,
            mode: protocol::Mode::Set(u32::from(attr.mode)),
            expect: protocol::Expect::Anything,
            follow: false,
        }));
        let (file, start, length) = match ReadTree::content(tree, attr.ino)? {
            Content::Packed { file, offset, len } => (Some(file), offset, len),
            Content::File { file } => (Some(file), 0, attr.size),
            Content::Hole => (None, 0, 0),
        };
        let mut chunk = vec![0; protocol::MAX_FRAME];
        let mut at = 0;
        while at < attr.size && !self.frames.is_closed() {
            let left = usize::try_from(attr.size - at).unwrap_or(usize::MAX);
            let most = left.min(chunk.len());
            let stored = usize::try_from(length.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(most);
            let read = match file {
                Some(file) if stored > 0 => read_some(file, &mut chunk[..stored], start + at)?,
                _ => 0,
            };
            let n = if read == 0 {
                chunk[..most].fill(0);
                most
            } else {
                read
            };
            self.frame(protocol::encode(FrameKind::Stdin, &chunk[..n]));
            at += n as u64;
        }
        Ok(())
    }
}

fn read_some(file: &File, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    loop {
        match file.read_at(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            Ok(n) => return Ok(n),
        }
    }
}

/// A tree with nothing beneath it.
fn open(folder: &Path) -> io::Result<Tree> {
    let file = |name: &str| {
        File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(folder.join(name))
    };
    let (index, data) = (file("index")?, file("data")?);
    PackedWriter::new(&index, &data, PackLimits::default())
        .and_then(PackedWriter::finish)
        .map_err(io::Error::other)?;
    let top = folder.join("top");
    crate::run_dir::private_folder(&top)?;
    let mut stack = StackFiles::new(vec![PackedFiles { index, data }], File::open(top)?.into());
    stack.durability = Durability::Process;
    Tree::open(stack).map_err(io::Error::other)
}
