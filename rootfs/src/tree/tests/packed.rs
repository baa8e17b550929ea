//! Several packed layers, the upper one put together by hand: it hides a name, makes one, and
//! changes the mode of a file whose content lies beneath.

use std::io::Write;
use std::os::unix::fs::FileExt;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::testing::{again, at, dir_fd, layer, list, name, read, sample, scratch, write};
use crate::tree::packed::format::{
    CONTENT_BENEATH, CONTENT_HERE, ENTRY_LEN, EntryRecord, HEADER_LEN, Header, INODE_LEN,
    InodeRecord, Section, WHITEOUT,
};
use crate::tree::{
    Attr, ChangeKind, Cookie, FileType, Ino, OpenError, PackedFiles, StackFiles, StackReader, Tree,
};

fn record(attr: &Attr) -> InodeRecord {
    let mut record = InodeRecord::new_zeroed();
    record.ino = attr.ino.0.into();
    record.mode = (attr.file_type.mode_bits() | u32::from(attr.mode)).into();
    record.nlink = attr.nlink.into();
    record.size = attr.size.into();
    record.blocks = attr.blocks.into();
    record
}

fn entry(ino: u64, start: u32, len: u16, file_type: FileType) -> EntryRecord {
    EntryRecord {
        ino: ino.into(),
        name_start: start.into(),
        name_len: len.into(),
        file_type: u8::try_from(file_type.dirent_type()).unwrap(),
        reserved: 0,
    }
}

/// The layer above `lower`.
fn upper(lower: &PackedFiles) -> PackedFiles {
    let mut header = [0; HEADER_LEN];
    lower.index.read_exact_at(&mut header, 0).unwrap();
    let below = Header::read_from_bytes(&header[..]).unwrap();
    let dir = scratch();
    let stack = StackFiles::new(vec![again(lower)], dir_fd(dir.path()));
    let tree = Tree::open(stack).unwrap();
    let new_ino = below.next_ino.get();
    let mut root = record(&tree.attr(Ino::ROOT).unwrap());
    root.parent = 1.into();
    root.count = 2.into();
    root.first_cookie = (Cookie::FIRST_NAMED + 4).into();
    let mut big = record(&tree.attr(at(&tree, "usr/lib/big")).unwrap());
    big.mode = (FileType::Regular.mode_bits() | 0o600).into();
    big.content = CONTENT_BENEATH.into();
    let mut new = record(&tree.attr(at(&tree, "usr/lib/small")).unwrap());
    new.ino = new_ino.into();
    new.content = CONTENT_HERE.into();
    new.count = 5.into();
    let inodes = [root, big, new];
    let entries = [
        entry(WHITEOUT, 0, 3, FileType::Symlink),
        entry(new_ino, 3, 3, FileType::Regular),
    ];
    let section = |offset: usize, len: usize| Section {
        offset: (offset as u64).into(),
        len: (len as u64).into(),
    };
    let (inodes_at, entries_at) = (HEADER_LEN, HEADER_LEN + 3 * INODE_LEN);
    let header = Header {
        layer_id: [7; 32],
        beneath: below.layer_id,
        first_ino: below.next_ino,
        next_ino: (new_ino + 1).into(),
        data_len: 5.into(),
        inodes: section(inodes_at, 3 * INODE_LEN),
        entries: section(entries_at, 2 * ENTRY_LEN),
        bytes: section(entries_at + 2 * ENTRY_LEN, 6),
        ..below
    };
    let mut files = crate::testing::layer_files();
    for part in [
        header.as_bytes(),
        inodes.as_bytes(),
        entries.as_bytes(),
        b"libnew",
    ] {
        files.index.write_all(part).unwrap();
    }
    files.data.write_all(b"above").unwrap();
    files
}

#[test]
fn an_upper_packed_layer_hides_adds_and_changes() {
    let lower = layer(sample);
    let upper = upper(&lower);
    let (one, two) = (scratch(), scratch());
    let packed = || vec![again(&lower), again(&upper)];
    let stack = StackFiles::new(packed(), dir_fd(one.path()));
    let mut tree = Tree::open(stack).unwrap();
    assert_eq!(list(&tree, Ino::ROOT), ["dev", "etc", "new", "usr"]);
    let (new, big) = (at(&tree, "new"), at(&tree, "usr/lib/big"));
    assert_eq!(read(&mut tree, new), b"above");
    assert_eq!(read(&mut tree, big), [b'b'; 10_000]);
    assert_eq!(tree.attr(big).unwrap().mode, 0o600);
    // And deltas go on top as on one.
    tree.symlink(crate::testing::new(Ino::ROOT, "lib"), b"usr/lib")
        .unwrap();
    tree.unlink(Ino::ROOT, name("new")).unwrap();
    tree.freeze(dir_fd(two.path())).unwrap();
    write(&mut tree, big, 9_999, b"!!");
    tree.sync().unwrap();
    assert_eq!(list(&tree, Ino::ROOT), ["dev", "etc", "lib", "usr"]);
    let deltas = [dir_fd(one.path()), dir_fd(two.path())];
    let reader = StackReader::open(packed(), &deltas).unwrap();
    let changes: Vec<_> = reader.changes(0).unwrap().map(Result::unwrap).collect();
    let kinds: Vec<_> = changes.iter().map(|it| (&*it.path, it.kind())).collect();
    let expected = [
        (&b"lib"[..], ChangeKind::Added),
        (b"new", ChangeKind::Removed),
        (b"usr/lib/big", ChangeKind::Modified),
    ];
    assert_eq!(kinds, expected);
    // An upper layer belongs on top of its own lower one.
    for layers in [vec![again(&upper)], vec![again(&upper), again(&lower)]] {
        let opened = StackReader::open(layers, &[]).map(|_| ());
        assert!(matches!(
            opened,
            Err(OpenError::DamagedLayer { layer: 0, .. })
        ));
    }
}
