//! What a seed may do to a tree, from a directory and from an archive.

mod archive;
mod directory;
mod git;

use super::*;
use crate::testing::{dir_fd, layer, sample, scratch};
use crate::tree::{Quota, StackFiles};

/// An empty tree with a directory `/workspace` to import into.
struct Stage {
    tree: Tree,
    dest: Ino,
    _dir: tempfile::TempDir,
}

fn stage_with(quota: Quota) -> Stage {
    let dir = scratch();
    let mut stack = StackFiles::new(vec![layer(sample)], dir_fd(dir.path()));
    stack.quota = quota;
    let mut tree = Tree::open(stack).unwrap();
    let dest = make_directories(&mut tree, b"/workspace").unwrap();
    Stage {
        tree,
        dest,
        _dir: dir,
    }
}

fn stage() -> Stage {
    stage_with(Quota::UNLIMITED)
}

/// Member and reason of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, ImportError>) -> (String, &'static str) {
    match result.unwrap_err() {
        ImportError::Member { member, reason } => (member, reason),
        other => panic!("refused otherwise: {other:?}"),
    }
}

#[test]
fn directories_are_made_once_and_nothing_is_followed_to_them() {
    let mut stage = stage();
    let first = make_directories(&mut stage.tree, b"a/./b//c").unwrap();
    assert_eq!(make_directories(&mut stage.tree, b"/a/b/c/"), Ok(first));
    assert_eq!(make_directories(&mut stage.tree, b""), Ok(Ino::ROOT));
    // `sample` has /lib -> usr/lib.
    assert_eq!(
        make_directories(&mut stage.tree, b"lib/x"),
        Err(Errno::NOTDIR)
    );
    assert_eq!(
        make_directories(&mut stage.tree, b"a/../b"),
        Err(Errno::INVAL)
    );
}
