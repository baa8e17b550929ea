//! An agent with a tree to change, and short words for changes.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use pyro_agent_protocol::{
    Apply, Change, ErrorCode, Expect, FileEvent, FrameKind, Mode, Request, Sha256, Write, encode,
    encode_message,
};
use sha2::Digest as _;

use crate::support::{Agent, FileAnswer, Stream, wait_until};

/// An agent, and a tree in the file system that it stages in.
pub(crate) struct Bench {
    pub(crate) agent: Agent,
    pub(crate) tree: PathBuf,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let agent = Agent::start_anywhere();
        let tree = agent.staging().with_file_name("tree");
        std::fs::create_dir_all(tree.join("dir")).unwrap();
        std::fs::write(tree.join("file"), "before").unwrap();
        std::fs::write(tree.join("dir/other"), "other").unwrap();
        symlink("file", tree.join("link")).unwrap();
        Self { agent, tree }
    }

    pub(crate) fn begin(&self) -> Stream {
        self.agent.request(&Request::Apply(Apply {
            beneath: self.tree.to_str().unwrap().into(),
        }))
    }

    pub(crate) fn apply(&self, changes: &[(Change, &[u8])]) -> FileAnswer {
        let mut stream = self.begin();
        for (change, content) in changes {
            send(&mut stream, change, content);
        }
        send(&mut stream, &Change::Commit { dry_run: false }, b"");
        FileAnswer::collect(&mut stream)
    }

    /// What a failing transaction says, which must change nothing.
    pub(crate) fn refused(&self, changes: &[(Change, &[u8])]) -> ErrorCode {
        let before = snapshot(&self.tree);
        let answer = self.apply(changes);
        assert_eq!(snapshot(&self.tree), before, "{answer:?}");
        wait_until("nothing is staged", || self.agent.staged() == 0);
        answer.code()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.tree.join(path)).unwrap()
    }
}

pub(crate) fn send(stream: &mut Stream, change: &Change, content: &[u8]) {
    let mut bytes = encode_message(change).unwrap();
    for piece in content.chunks(100_000) {
        bytes.extend(encode(FrameKind::Stdin, piece).unwrap());
    }
    // The agent may have refused already.
    let _ = std::io::Write::write_all(&mut stream.socket, &bytes);
}

/// All of a tree: kind, mode, inode and content of each path.
pub(crate) fn snapshot(tree: &Path) -> BTreeMap<PathBuf, (u32, u64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut directories = vec![tree.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                target.into_os_string().into_encoded_bytes()
            } else if metadata.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            all.insert(path, (metadata.mode(), metadata.ino(), content));
        }
    }
    all
}

pub(crate) fn write(path: &str, content: &str) -> Change {
    Change::Write(Write {
        path: path.into(),
        size: content.len() as u64,
        mode: Mode::Keep,
        expect: Expect::Anything,
        follow: false,
    })
}

pub(crate) fn digest(content: &str) -> Expect {
    Expect::Sha256(Sha256(sha2::Sha256::digest(content).into()))
}

pub(crate) fn delete(path: &str) -> Change {
    Change::Delete {
        path: path.into(),
        expect: Expect::Anything,
    }
}

pub(crate) fn mkdir(path: &str) -> Change {
    Change::Mkdir {
        path: path.into(),
        mode: Mode::Keep,
    }
}

pub(crate) fn link(path: &str, target: &str) -> Change {
    Change::Symlink {
        path: path.into(),
        target: target.into(),
        expect: Expect::Anything,
    }
}

pub(crate) fn rename(from: &str, to: &str) -> Change {
    Change::Rename {
        from: from.into(),
        to: to.into(),
        expect: Expect::Anything,
    }
}

pub(crate) fn applied(
    created: u64,
    modified: u64,
    deleted: u64,
    directories: u64,
    bytes: u64,
) -> FileEvent {
    FileEvent::Applied {
        created,
        modified,
        deleted,
        renamed: 0,
        directories,
        bytes,
    }
}
