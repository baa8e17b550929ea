//! Damaged files: errors, never a panic, a loop or memory without bound.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use crate::testing::{again, at, dir_fd, layer, name, new, open, sample, scratch, write};
use crate::tree::{
    Content, Cookie, Ino, OpenError, PackedFiles, RenameMode, SetAttr, StackFiles, Tree, XattrMode,
};

fn bytes_of(file: &fs::File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn with_index(layer: &PackedFiles, index: &[u8]) -> PackedFiles {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(index, 0).unwrap();
    PackedFiles {
        index: file,
        data: layer.data.try_clone().unwrap(),
    }
}

fn try_open(layer: PackedFiles, dir: &tempfile::TempDir) -> Result<Tree, OpenError> {
    Tree::open(StackFiles::new(vec![layer], dir_fd(dir.path())))
}

/// Does a little of everything with everything that can be reached.
fn use_all(tree: &mut Tree) {
    let mut reached = vec![Ino::ROOT];
    for ino in 1..30 {
        let ino = Ino(ino);
        let mut entries = 0;
        let _ = tree.read_dir(ino, Cookie::START, &mut |entry| {
            reached.push(entry.ino);
            entries += 1;
            if entries < 1000 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        assert!(entries < 1000, "a listing that does not end");
        let _ = tree.list_xattr(ino);
        let _ = tree.get_xattr(ino, b"security.capability");
        let _ = tree.readlink(ino);
        let _ = tree.parent_of(ino);
        for of in ["etc", "usr", "lib", "passwd", "big", "none"] {
            let _ = tree.lookup(ino, name(of));
        }
        if let Ok(Content::Packed { file, offset, len }) = tree.content(ino) {
            assert!(offset + len <= file.metadata().unwrap().len());
        }
    }
    reached.truncate(40);
    for (i, &ino) in reached.iter().enumerate() {
        let _ = tree.set_attr(
            ino,
            &SetAttr {
                uid: Some(1),
                ..SetAttr::default()
            },
        );
        let _ = tree.set_xattr(ino, b"user.x", b"y", XattrMode::Any);
        let _ = tree.create_file(new(ino, &format!("made{i}")));
        if tree.attr(ino).is_ok_and(|attr| attr.size < 1 << 20) {
            let _ = tree.content_mut(ino).map(|_| ());
        }
        let other = reached[(i * 7 + 3) % reached.len()];
        for (from, to) in [("lib", "moved"), ("usr", "lib"), ("etc", "etc2")] {
            let _ = tree.rename(ino, name(from), other, name(to), RenameMode::Replace);
            let _ = tree.rename(ino, name(from), other, name(to), RenameMode::Exchange);
        }
        let _ = tree.unlink(ino, name("passwd"));
        let _ = tree.rmdir(ino, name("dev"));
    }
    let _ = tree.sync();
}

#[test]
fn an_index_cut_anywhere_does_not_open() {
    let layer = layer(sample);
    let index = bytes_of(&layer.index);
    let dir = scratch();
    for len in 0..index.len() {
        let opened = try_open(with_index(&layer, &index[..len]), &dir);
        assert!(
            matches!(
                opened,
                Err(OpenError::DamagedLayer { .. } | OpenError::Io { .. })
            ),
            "cut at {len}: {opened:?}"
        );
    }
    let data = tempfile::tempfile().unwrap();
    let cut = PackedFiles {
        index: again(&layer).index,
        data,
    };
    let opened = try_open(cut, &dir);
    let reason = "its data is cut short";
    assert!(matches!(opened, Err(OpenError::DamagedLayer { reason: r, .. }) if r == reason));
}

#[test]
fn other_versions_are_told_apart_from_damage() {
    let layer = layer(sample);
    let mut index = bytes_of(&layer.index);
    index[8] = 2;
    let dir = scratch();
    let opened = try_open(with_index(&layer, &index), &dir);
    assert!(matches!(
        opened,
        Err(OpenError::LayerVersion {
            found: 2,
            expected: 1,
            ..
        })
    ));
    let none = Tree::open(StackFiles::new(Vec::new(), dir_fd(dir.path())));
    assert!(matches!(none, Err(OpenError::NoLayers)));
}

#[test]
fn directories_that_hold_themselves_do_not_hang_anything() {
    // The entry of "usr" in the root is made to mean the root.
    let layer = layer(sample);
    let tree_dir = scratch();
    let usr = at(&open(&layer, tree_dir.path()), "usr");
    let mut index = bytes_of(&layer.index);
    for at in 0..index.len() - 8 {
        let number = u64::from_le_bytes(index[at..at + 8].try_into().unwrap());
        if number != usr.0 {
            continue;
        }
        let before = index[at];
        index[at] = 1;
        let dir = scratch();
        if let Ok(mut tree) = try_open(with_index(&layer, &index), &dir) {
            use_all(&mut tree);
        }
        index[at] = before;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_changed_index_gives_errors_and_no_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let layer = layer(sample);
        let mut index = bytes_of(&layer.index);
        for (at, byte) in changes {
            let at = at.index(index.len());
            index[at] = byte;
        }
        let dir = scratch();
        if let Ok(mut tree) = try_open(with_index(&layer, &index), &dir) {
            use_all(&mut tree);
        }
    }

    #[test]
    fn a_changed_journal_gives_errors_and_no_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let layer = layer(sample);
        let dir = scratch();
        let mut tree = open(&layer, dir.path());
        let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
        write(&mut tree, file, 0, b"content");
        tree.sync().unwrap();
        tree.rename(Ino::ROOT, name("usr"), Ino::ROOT, name("u"), RenameMode::Replace).unwrap();
        drop(tree);
        let path = dir.path().join("journal");
        let mut journal = fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = at.index(journal.len());
            journal[at] = byte;
        }
        journal.truncate(journal.len() - cut.index(40));
        fs::write(&path, journal).unwrap();
        if let Ok(mut tree) = try_open(again(&layer), &dir) {
            use_all(&mut tree);
        }
    }
}
