//! Contents: what is written is what is read, by whichever way.
#![allow(unsafe_code)] // Mapping files writably is what is tested.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, copy_file_range, fallocate};
use rustix::io::Errno;

use super::stage::{MOTD, Stage, drop_caches, pattern};

fn open(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

/// Maps all of `file`, shared and writable.
fn map(file: &File) -> MmapMut {
    // SAFETY: nobody else has these files, and nobody truncates them while they are mapped.
    unsafe { MmapMut::map_mut(file) }.unwrap()
}

pub(crate) fn unlinked_files_stay_until_closed(stage: &mut Stage) {
    for name in ["etc/motd", "tmp/fresh"] {
        let path = stage.path(name);
        if name == "tmp/fresh" {
            fs::write(&path, MOTD).unwrap();
        }
        let file = open(&path);
        fs::remove_file(&path).unwrap();
        drop_caches(&stage.root());
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        let mut content = vec![0; MOTD.len()];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(content, MOTD);
        file.write_all_at(b"still here", 100_000).unwrap();
        file.sync_all().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_010);
        // The name is free.
        fs::write(&path, "another").unwrap();
        file.read_exact_at(&mut content[..10], 100_000).unwrap();
        assert_eq!(&content[..10], b"still here");
        file.set_len(0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"another");
    }
}

pub(crate) fn mapped_writes_arrive(stage: &mut Stage) {
    let path = stage.path("big");
    let file = open(&path);
    let mut expected = pattern(3 << 20);
    let mut mapped = map(&file);
    assert_eq!(&mapped[..], &expected[..]);
    for at in [0, 4095, 1 << 20, (3 << 20) - 1] {
        mapped[at] ^= 0xff;
        expected[at] ^= 0xff;
    }
    assert_eq!(
        fs::read(&path).unwrap(),
        expected,
        "read(2) and the mapping differ"
    );
    mapped.flush().unwrap();
    file.write_all_at(b"written", 5000).unwrap();
    expected[5000..5007].copy_from_slice(b"written");
    assert_eq!(&mapped[..], &expected[..]);
}

pub(crate) fn mapped_writes_survive_the_cache(stage: &mut Stage) {
    let path = stage.path("tmp/mapped");
    let file = open(&path);
    file.set_len(1 << 20).unwrap();
    {
        let mut mapped = map(&file);
        mapped[123_456..123_466].copy_from_slice(b"0123456789");
    }
    drop(file);
    drop_caches(&stage.root());
    stage.remount();
    let content = fs::read(stage.path("tmp/mapped")).unwrap();
    assert_eq!(content.len(), 1 << 20);
    assert_eq!(&content[123_456..123_466], b"0123456789");
    assert!(content[..123_456].iter().all(|b| *b == 0));
}

pub(crate) fn sparse_files_stay_sparse(stage: &mut Stage) {
    let path = stage.path("tmp/sparse");
    let file = open(&path);
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"island", 1 << 39).unwrap();
    file.sync_all().unwrap();
    drop(file);
    drop_caches(&stage.root());
    let meta = path.metadata().unwrap();
    assert_eq!(meta.len(), 1 << 40);
    assert!(meta.blocks() < 100, "{} blocks", meta.blocks());
    let mut bytes = [1; 10];
    let file = open(&path);
    file.read_exact_at(&mut bytes, (1 << 39) - 2).unwrap();
    assert_eq!(&bytes, b"\0\0island\0\0");
}

/// A program that writes and then looks for data finds what it wrote, although the kernel has
/// not sent it yet.
pub(crate) fn data_not_yet_written_back_is_data(stage: &mut Stage) {
    let mut file = open(&stage.path("tmp/dirty"));
    file.write_all_at(b"far", 1 << 20).unwrap();
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(data <= 1 << 20, "data is said to begin at {data} only");
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(1 << 20)).unwrap();
    assert!(hole >= (1 << 20) + 3, "a hole is said to begin at {hole}");
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), (1 << 20) + 3);
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(1 << 21)),
        Err(Errno::NXIO)
    );
}

pub(crate) fn holes_are_punched(stage: &mut Stage) {
    let path = stage.path("big");
    let file = open(&path);
    let mut expected = pattern(3 << 20);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 4096, 1 << 20).unwrap();
    expected[4096..4096 + (1 << 20)].fill(0);
    assert_eq!(fs::read(&path).unwrap(), expected);
    fallocate(&file, FallocateFlags::ZERO_RANGE, 10, 100).unwrap();
    expected[10..110].fill(0);
    fallocate(&file, FallocateFlags::empty(), 3 << 20, 4096).unwrap();
    expected.resize((3 << 20) + 4096, 0);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 4 << 20, 4096).unwrap();
    drop_caches(&stage.root());
    assert_eq!(fs::read(&path).unwrap(), expected);
    let error = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096).unwrap_err();
    assert_eq!(error, Errno::OPNOTSUPP);
}

pub(crate) fn truncation_cuts_and_pads(stage: &mut Stage) {
    let path = stage.path("big");
    let file = open(&path);
    let mut expected = pattern(3 << 20);
    for len in [1_000_001, 5000, 5000, 4097, 70_000, 0, 3] {
        file.set_len(len).unwrap();
        expected.resize(len as usize, 0);
        assert_eq!(fs::read(&path).unwrap(), expected, "{len}");
        drop_caches(&stage.root());
        assert_eq!(fs::read(&path).unwrap(), expected, "{len}, read anew");
    }
}

pub(crate) fn opening_truncates_and_appends(stage: &mut Stage) {
    let path = stage.path("etc/motd");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"more\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), [MOTD, b"more\n"].concat());
    drop(file);
    drop(
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap(),
    );
    assert_eq!(path.metadata().unwrap().len(), 0);
    drop_caches(&stage.root());
    assert_eq!(fs::read(&path).unwrap(), b"");
    let error = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let mut created = File::create(stage.path("etc/new")).unwrap();
    created.write_all(b"x").unwrap();
    drop(created);
    File::create(stage.path("etc/new")).unwrap();
    assert_eq!(stage.path("etc/new").metadata().unwrap().len(), 0);
}

pub(crate) fn ranges_are_copied(stage: &mut Stage) {
    let from = open(&stage.path("tmp/from"));
    let to = open(&stage.path("tmp/to"));
    let content = pattern(1 << 20);
    // Both files are dirty in the kernel's cache.
    from.write_all_at(&content, 4 << 20).unwrap();
    to.write_all_at(b"before", 0).unwrap();
    let (mut off_in, mut off_out) = (4 << 20, 6);
    let mut left = content.len();
    while left > 0 {
        let n = copy_file_range(&from, Some(&mut off_in), &to, Some(&mut off_out), left).unwrap();
        assert!(n > 0, "nothing copied with {left} bytes left");
        left -= n;
    }
    let expected = [b"before", &content[..]].concat();
    assert_eq!(fs::read(stage.path("tmp/to")).unwrap(), expected);
    drop_caches(&stage.root());
    assert_eq!(fs::read(stage.path("tmp/to")).unwrap(), expected);
    // A hole before the first byte that the server has heard of.
    let sparse = open(&stage.path("tmp/holes"));
    sparse.write_all_at(b"x", 1 << 20).unwrap();
    let n = copy_file_range(&sparse, Some(&mut 0), &to, Some(&mut 0), 100).unwrap();
    assert_eq!(n, 100);
}

pub(crate) fn the_layer_below_is_never_written(stage: &mut Stage) {
    let layer = || {
        let file = |name| fs::read(stage.outside().join(name)).unwrap();
        (file("index"), file("data"))
    };
    let before = layer();
    fs::write(stage.path("big"), "new").unwrap();
    fs::remove_dir_all(stage.path("usr")).unwrap();
    fs::rename(stage.path("etc"), stage.path("tmp/etc")).unwrap();
    drop_caches(&stage.root());
    assert!(layer() == before);
}

pub(crate) fn a_full_layer_says_so(stage: &mut Stage) {
    stage.remount_with(&["--quota-bytes", "4000000"]);
    let path = stage.path("tmp/full");
    let mut file = open(&path);
    let error = loop {
        // Dirty pages are accepted; sending them is what fails.
        let result = file.write_all(&[7; 100_000]).and_then(|()| file.sync_all());
        if let Err(error) = result {
            break error;
        }
        assert!(
            file.metadata().unwrap().len() < 20_000_000,
            "the quota does not hold"
        );
    };
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    drop(file);
    // Removing makes room again, and what was there is unharmed.
    fs::remove_file(&path).unwrap();
    fs::write(stage.path("tmp/small"), "fits").unwrap();
    // The failure is reported once more, to whoever syncs the whole file system first.
    let _ = rustix::fs::syncfs(File::open(stage.root()).unwrap());
    drop_caches(&stage.root());
    assert_eq!(fs::read(stage.path("tmp/small")).unwrap(), b"fits");
    assert_eq!(fs::read(stage.path("etc/motd")).unwrap(), MOTD);
}
