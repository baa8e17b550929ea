//! What is left when the process ends at any moment: the layer's directory is copied as it is
//! on the disk then, and opened again.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::testing::{
    again, at, dir_fd, layer, list, name, new, open, read, sample, scratch, write,
};
use crate::tree::{Durability, Ino, OpenError, PackedFiles, RenameMode, SetAttr, StackFiles, Tree};

/// The layer's directory as a crash would leave it, the journal cut to `journal_len` bytes.
fn crashed(dir: &Path, journal_len: Option<u64>) -> tempfile::TempDir {
    let copy = scratch();
    fs::copy(dir.join("journal"), copy.path().join("journal")).unwrap();
    fs::create_dir(copy.path().join("content")).unwrap();
    for entry in fs::read_dir(dir.join("content")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(
            entry.path(),
            copy.path().join("content").join(entry.file_name()),
        )
        .unwrap();
    }
    if let Some(len) = journal_len {
        let journal = fs::OpenOptions::new()
            .write(true)
            .open(copy.path().join("journal"));
        journal.unwrap().set_len(len).unwrap();
    }
    copy
}

fn journal_len(dir: &Path) -> u64 {
    fs::metadata(dir.join("journal")).unwrap().len()
}

fn try_open(layer: &PackedFiles, dir: &Path) -> Result<Tree, OpenError> {
    Tree::open(StackFiles::new(vec![again(layer)], dir_fd(dir)))
}

fn contents(dir: &Path) -> usize {
    fs::read_dir(dir.join("content")).unwrap().count()
}

#[test]
fn a_journal_cut_anywhere_holds_all_that_was_synced() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let etc = at(&tree, "etc");
    let file = tree.create_file(new(etc, "synced")).unwrap().ino;
    write(&mut tree, file, 0, b"content");
    tree.fsync(file, false).unwrap();
    let synced = journal_len(dir.path());
    // Two records more, both not synced.
    tree.rename(
        Ino::ROOT,
        name("usr"),
        etc,
        name("moved"),
        RenameMode::Replace,
    )
    .unwrap();
    tree.unlink(etc, name("passwd")).unwrap();
    tree.flush().unwrap();
    let middle = journal_len(dir.path());
    tree.mkdir(new(etc, "last")).unwrap();
    tree.flush().unwrap();
    let end = journal_len(dir.path());
    assert!(synced < middle && middle < end);
    for len in synced..=end {
        let copy = crashed(dir.path(), Some(len));
        let mut tree = open(&layer, copy.path());
        let synced = at(&tree, "etc/synced");
        assert_eq!(read(&mut tree, synced), b"content", "cut at {len}");
        let expected = match len {
            len if len < middle => &["passwd", "passwd-", "synced"][..],
            len if len < end => &["moved", "passwd-", "synced"],
            _ => &["last", "moved", "passwd-", "synced"],
        };
        assert_eq!(
            list(&tree, etc),
            expected,
            "cut at {len}: all of a record or none of it"
        );
        // And it works on from there.
        tree.create_file(new(etc, "after")).unwrap();
        tree.sync().unwrap();
        drop(tree);
        assert!(list(&open(&layer, copy.path()), etc).contains(&"after".to_owned()));
    }
}

#[test]
fn a_torn_end_is_dropped_and_damage_before_it_is_refused() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let mut ends = Vec::new();
    for i in 0..4 {
        tree.create_file(new(Ino::ROOT, &format!("f{i}"))).unwrap();
        tree.sync().unwrap();
        ends.push(journal_len(dir.path()));
    }
    drop(tree);
    let bytes = fs::read(dir.path().join("journal")).unwrap();
    for at in ends[0]..ends[3] {
        let copy = crashed(dir.path(), None);
        let mut bytes = bytes.clone();
        bytes[usize::try_from(at).unwrap()] ^= 0x10;
        fs::write(copy.path().join("journal"), &bytes).unwrap();
        let opened = try_open(&layer, copy.path());
        // A record's mark speaks for those before it; the length leads from one to the next.
        let in_length = ends.iter().any(|end| (end + 4..end + 8).contains(&at));
        if at < ends[2] && !in_length {
            assert!(
                matches!(opened, Err(OpenError::DamagedJournal { .. })),
                "changed at {at}: {opened:?}"
            );
        } else if at >= ends[2] {
            let names = list(&opened.unwrap(), Ino::ROOT);
            assert!(names.contains(&"f2".to_owned()) && !names.contains(&"f3".to_owned()));
        }
    }
}

#[test]
fn what_a_guest_writes_never_passes_for_a_record() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "before")).unwrap().ino;
    tree.sync().unwrap();
    let sane = fs::read(dir.path().join("journal")).unwrap();
    // The guest keeps the whole journal so far in an attribute, and that record is cut.
    tree.set_xattr(file, b"user.j", &sane, crate::tree::XattrMode::Any)
        .unwrap();
    tree.flush().unwrap();
    for cut in 0..24 {
        let copy = crashed(dir.path(), Some(sane.len() as u64 + cut));
        let journal = copy.path().join("journal");
        let mut bytes = fs::read(&journal).unwrap();
        bytes.extend_from_slice(&sane[52..]);
        fs::write(&journal, bytes).unwrap();
        assert_eq!(
            list(&open(&layer, copy.path()), Ino::ROOT),
            ["before", "dev", "etc", "lib", "usr"]
        );
    }
}

#[test]
fn content_outlives_an_unlink_that_was_not_written_down() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    write(&mut tree, file, 0, b"precious");
    tree.sync().unwrap();
    tree.unlink(Ino::ROOT, name("f")).unwrap();
    let copy = crashed(dir.path(), None);
    let mut before = open(&layer, copy.path());
    assert_eq!(read(&mut before, file), b"precious");
    // Written but not synced: the disk may still have the old journal.
    tree.flush().unwrap();
    assert_eq!(contents(dir.path()), 1);
    tree.sync().unwrap();
    assert_eq!(contents(dir.path()), 0);
}

#[test]
fn files_that_were_unlinked_and_in_use_are_collected() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    tree.retain(file);
    write(&mut tree, file, 0, b"temporary");
    tree.unlink(Ino::ROOT, name("f")).unwrap();
    let ping = at(&tree, "usr/ping");
    tree.retain(ping);
    write(&mut tree, ping, 0, b"p");
    tree.unlink(at(&tree, "usr"), name("ping")).unwrap();
    tree.sync().unwrap();
    assert_eq!(contents(dir.path()), 2);
    let copy = crashed(dir.path(), None);
    let tree = open(&layer, copy.path());
    assert_eq!(tree.attr(file), Err(Errno::STALE));
    assert_eq!(tree.attr(ping), Err(Errno::STALE));
    assert_eq!(contents(copy.path()), 0);
    assert_eq!(
        tree.stat_fs().unwrap().blocks,
        tree.stat_fs().unwrap().blocks_free
    );
}

#[test]
fn content_files_without_a_record_are_collected() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    write(&mut tree, file, 0, b"never written down");
    let copy = crashed(dir.path(), None);
    assert_eq!(contents(copy.path()), 1);
    fs::write(copy.path().join("content/not-a-number"), b"").unwrap();
    let mut tree = open(&layer, copy.path());
    assert_eq!(contents(copy.path()), 0);
    // The number is given again; nothing of the old content is in the new file.
    let again = tree.create_file(new(Ino::ROOT, "g")).unwrap().ino;
    assert_eq!(again, file);
    let size = SetAttr {
        size: Some(10),
        ..SetAttr::default()
    };
    tree.set_attr(again, &size).unwrap();
    assert_eq!(read(&mut tree, again), [0; 10]);
}

#[test]
fn a_size_that_was_not_written_down_does_not_count() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    write(&mut tree, file, 0, b"1234");
    tree.sync().unwrap();
    write(&mut tree, file, 4, b"5678");
    let copy = crashed(dir.path(), None);
    let mut tree = open(&layer, copy.path());
    assert_eq!(read(&mut tree, file), b"1234");
    let size = SetAttr {
        size: Some(8),
        ..SetAttr::default()
    };
    tree.set_attr(file, &size).unwrap();
    assert_eq!(read(&mut tree, file), b"1234\0\0\0\0");
}

#[test]
fn a_journal_is_written_anew_when_it_is_mostly_history() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let keep = tree.create_file(new(Ino::ROOT, "keep")).unwrap().ino;
    write(&mut tree, keep, 0, b"kept");
    tree.unlink(Ino::ROOT, name("lib")).unwrap();
    for i in 0..25_000 {
        let of = format!("temporary-{i}");
        tree.create_file(new(Ino::ROOT, &of)).unwrap();
        tree.unlink(Ino::ROOT, name(&of)).unwrap();
    }
    tree.sync().unwrap();
    assert!(
        journal_len(dir.path()) < (1 << 20) + (200 << 10),
        "{} bytes",
        journal_len(dir.path())
    );
    let copy = crashed(dir.path(), None);
    let mut tree = open(&layer, copy.path());
    assert_eq!(list(&tree, Ino::ROOT), ["dev", "etc", "keep", "usr"]);
    assert_eq!(read(&mut tree, keep), b"kept");
    // One that was not finished does not count.
    drop(tree);
    fs::write(copy.path().join("journal.new"), b"half").unwrap();
    let tree = open(&layer, copy.path());
    assert_eq!(list(&tree, Ino::ROOT), ["dev", "etc", "keep", "usr"]);
    assert!(!copy.path().join("journal.new").exists());
}

#[test]
fn without_durability_nothing_is_lost_when_the_process_ends() {
    let (layer, dir) = (layer(sample), scratch());
    let mut stack = StackFiles::new(vec![again(&layer)], dir_fd(dir.path()));
    stack.durability = Durability::Process;
    let mut tree = Tree::open(stack).unwrap();
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    write(&mut tree, file, 0, b"content");
    tree.fsync(file, true).unwrap();
    let copy = crashed(dir.path(), None);
    assert_eq!(read(&mut open(&layer, copy.path()), file), b"content");
    tree.unlink(Ino::ROOT, name("f")).unwrap();
    tree.flush().unwrap();
    assert_eq!(contents(dir.path()), 0, "nothing has to wait for a disk");
}

#[test]
fn a_layer_is_open_once_and_only_over_its_own_stack() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    tree.create_file(new(Ino::ROOT, "f")).unwrap();
    assert!(matches!(
        try_open(&layer, dir.path()),
        Err(OpenError::InUse)
    ));
    drop(tree);
    let other = crate::testing::layer(|writer| {
        sample(writer);
        writer
            .add_directory(b"other", crate::testing::meta(0o755))
            .unwrap();
    });
    assert!(matches!(
        try_open(&other, dir.path()),
        Err(OpenError::OtherStack)
    ));
    assert!(try_open(&layer, dir.path()).is_ok());
}
