//! A host whose disk fails or is full.
//!
//! Full disks are real: a small file system. Failing ones are mounts of ours whose server is told to fail
//! requests; a tree has its writable layer there. The host's kernel between them is real, so a write
//! that cannot be written back is told once, at the next fsync, and dropped. Killing that server is a
//! power cut: what was not synced is gone.

mod disk;
mod random;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use pyro_rootfs::export::{
    Existing, ExportError, ExportLimits, Ext4Options, export_ext4, export_to_host,
};
use pyro_rootfs::tree::{FreezeError, Ino, RenameMode, XattrMode};
use rustix::io::Errno;

use self::disk::{Disk, name};
use super::stage::{MOTD, PATIENCE, Stage, pattern};

pub(crate) use random::whatever_fails_what_was_synced_is_there;

/// Writes until it fails, and expects the disk to be full.
fn fill(file: &File) {
    let error = (0..).find_map(|i| {
        let bytes = [7; 64 << 10];
        let written = file.write_all_at(&bytes, i * bytes.len() as u64);
        // Dirty pages are accepted; sending them is what fails.
        written.and_then(|()| file.sync_all()).err()
    });
    assert_eq!(error.unwrap().kind(), ErrorKind::StorageFull);
}

/// Writes what has room since a file was removed. The kernel may hold on to that one for a moment
/// longer, when it is just looking through all files.
fn write_when_there_is_room(path: &Path, content: &[u8]) {
    let start = Instant::now();
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    while let Err(error) = write() {
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(start.elapsed() < PATIENCE, "there is no room again");
    }
}

pub(crate) fn a_full_disk_says_so_and_recovers(stage: &mut Stage) {
    stage.remount_on_disk(6 << 20);
    for option in [&[][..], &["--write-through"]] {
        stage.remount_with(option);
        let content = pattern(1 << 20);
        fs::write(stage.path("tmp/before"), &content).unwrap();
        let path = stage.path("tmp/full");
        let file = File::create(&path).unwrap();
        fill(&file);
        drop(file);
        fs::remove_file(&path).unwrap();
        // Nobody has to sync for the room to be there again.
        write_when_there_is_room(&stage.path("tmp/after"), &content);
        // A copy-up that has no room leaves the file as it was.
        let filler = File::create(&path).unwrap();
        fill(&filler);
        let big = File::options().write(true).open(stage.path("big")).unwrap();
        let written = big
            .write_all_at(b"changed", 5)
            .and_then(|()| big.sync_all());
        assert_eq!(written.unwrap_err().kind(), ErrorKind::StorageFull);
        drop((filler, big));
        fs::remove_file(&path).unwrap();
        stage.remount();
        for name in ["tmp/before", "tmp/after"] {
            assert!(fs::read(stage.path(name)).unwrap() == content, "{name}");
            fs::remove_file(stage.path(name)).unwrap();
        }
        assert!(fs::read(stage.path("big")).unwrap() == pattern(3 << 20));
    }
}

pub(crate) fn a_full_disk_takes_metadata_or_says_so(stage: &mut Stage) {
    stage.remount_on_disk(2 << 20);
    fill(&File::create(stage.path("tmp/full")).unwrap());
    let mut made = Vec::new();
    let error = loop {
        let name = format!("{}-{}", made.len(), "n".repeat(200));
        match fs::create_dir(stage.path("tmp").join(&name)) {
            Ok(()) => made.push(name),
            Err(error) => break error,
        }
        assert!(made.len() < 100_000, "the disk is never full");
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    // Removing goes on, makes room, and what was made is there.
    fs::remove_file(stage.path("tmp/full")).unwrap();
    write_when_there_is_room(&stage.path("tmp/more"), &pattern(100_000));
    stage.remount();
    assert_eq!(
        fs::read_dir(stage.path("tmp")).unwrap().count(),
        made.len() + 1
    );
    for name in made {
        fs::remove_dir(stage.path("tmp").join(name)).unwrap();
    }
    assert_eq!(fs::read(stage.path("tmp/more")).unwrap(), pattern(100_000));
    assert_eq!(fs::read(stage.path("etc/motd")).unwrap(), MOTD);
}

pub(crate) fn a_lost_content_is_never_synced(stage: &mut Stage) {
    let mut disk = Disk::new(stage);
    let lost = disk.create("lost");
    let kept = disk.create("kept");
    // The kernel may write back when it pleases: nothing else is dirty when writes fail, and they fail before
    // there is something to write back.
    disk.tree.sync().unwrap();
    disk.stage.command("fail write EIO");
    disk.write(lost, 0, b"lost");
    assert_eq!(disk.tree.fsync(lost, false), Err(Errno::IO));
    disk.stage.command("heal");
    disk.write(kept, 0, b"kept");
    for _ in 0..2 {
        // The host says nothing of it any more.
        assert_eq!(disk.tree.fsync(lost, false), Err(Errno::IO));
        assert_eq!(disk.tree.sync(), Err(Errno::IO));
        let frozen = disk.freeze();
        assert!(
            matches!(frozen, Err(FreezeError::Sync(Errno::IO))),
            "{frozen:?}"
        );
        assert_eq!(disk.tree.fsync(kept, false), Ok(()));
    }
    disk.truncate(lost, 0);
    disk.write(lost, 0, b"anew");
    assert_eq!(disk.tree.fsync(lost, false), Ok(()));
    disk.cut_power();
    assert_eq!(disk.read("lost"), b"anew");
    assert_eq!(disk.read("kept"), b"kept");
    // Removing it is a way out as well.
    disk.stage.command("fail write ENOSPC");
    disk.write(lost, 0, b"gone");
    assert_eq!(disk.tree.sync(), Err(Errno::NOSPC));
    disk.stage.command("heal");
    assert_eq!(disk.tree.sync(), Err(Errno::NOSPC));
    disk.tree.unlink(Ino::ROOT, name("lost")).unwrap();
    assert_eq!(disk.tree.sync(), Ok(()));
}

/// More files than are kept open: the one that fails was closed, and nobody else may hear of it.
pub(crate) fn a_lost_content_that_was_closed_is_never_synced(stage: &mut Stage) {
    let mut disk = Disk::new(stage);
    let lost = disk.create("lost");
    disk.stage.command("fail write EIO");
    disk.write(lost, 0, b"lost");
    for i in 0..200 {
        let other = disk.create(&format!("other{i}"));
        disk.write(other, 0, b"other");
    }
    disk.write_back(lost);
    disk.stage.command("heal");
    // It is opened once more before somebody asks.
    assert_eq!(disk.read("lost").len(), 4);
    assert_eq!(disk.tree.fsync(lost, false), Err(Errno::IO));
    assert_eq!(disk.tree.fsync(lost, false), Err(Errno::IO));
    assert_eq!(disk.tree.sync(), Err(Errno::IO));
}

pub(crate) fn a_failed_sync_writes_the_journal_anew(stage: &mut Stage) {
    for fault in ["write EIO", "write ENOSPC", "fsync EIO", "fsyncdir EIO"] {
        let mut disk = Disk::new(stage);
        disk.mkdir("one");
        disk.stage.command(&format!("fail {fault}"));
        disk.tree.sync().unwrap_err();
        disk.mkdir("two");
        disk.tree.sync().unwrap_err();
        disk.stage.command("heal");
        assert_eq!(disk.tree.sync(), Ok(()), "{fault}");
        disk.mkdir("three");
        assert_eq!(disk.tree.sync(), Ok(()), "{fault}");
        disk.cut_power();
        assert_eq!(disk.names(), ["one", "three", "two"], "{fault}");
        disk.erase();
    }
}

pub(crate) fn a_failed_rename_leaves_a_journal_that_goes_on(stage: &mut Stage) {
    let mut disk = Disk::new(stage);
    disk.mkdir("one");
    disk.tree.sync().unwrap();
    disk.mkdir("two");
    // The journal has to be written anew, and cannot get its name.
    disk.stage.command("fail fsync EIO");
    assert_eq!(disk.tree.sync(), Err(Errno::IO));
    disk.stage.command("heal");
    disk.stage.command("fail rename EIO");
    assert_eq!(disk.tree.sync(), Err(Errno::IO));
    disk.mkdir("three");
    assert_eq!(disk.tree.sync(), Err(Errno::IO));
    disk.stage.command("heal");
    assert_eq!(disk.tree.sync(), Ok(()));
    disk.cut_power();
    assert_eq!(disk.names(), ["one", "three", "two"]);
}

pub(crate) fn changes_are_refused_while_the_journal_cannot_be_written(stage: &mut Stage) {
    stage.remount_with(&["--write-through"]);
    for (fault, errno) in [("EIO", Errno::IO), ("ENOSPC", Errno::NOSPC)] {
        let mut disk = Disk::new(stage);
        disk.mkdir("before");
        disk.tree.sync().unwrap();
        disk.stage.command(&format!("fail write {fault}"));
        let mut made = vec!["before".to_owned()];
        let error = loop {
            let dir = format!("{}", made.len());
            match disk.try_mkdir(&dir) {
                Ok(_) => made.push(dir),
                Err(error) => break error,
            }
            assert!(made.len() < 10_000, "it is never refused");
        };
        assert_eq!(error, errno);
        let (from, to) = (name("before"), name("renamed"));
        let renamed = disk
            .tree
            .rename(Ino::ROOT, from, Ino::ROOT, to, RenameMode::Replace);
        assert_eq!(renamed, Err(errno));
        assert_eq!(disk.tree.sync(), Err(errno));
        // Reading goes on, and so does removing.
        made.sort();
        assert_eq!(disk.names(), made);
        disk.tree.rmdir(Ino::ROOT, name("1")).unwrap();
        made.retain(|name| name != "1");
        disk.stage.command("heal");
        assert_eq!(disk.tree.sync(), Ok(()));
        disk.cut_power();
        assert_eq!(disk.names(), made);
        // And a cut before it is healed leaves what was synced.
        disk.stage.command(&format!("fail write {fault}"));
        disk.mkdir("never");
        assert_eq!(disk.tree.sync(), Err(errno));
        disk.cut_power();
        assert_eq!(disk.names(), made);
        disk.erase();
    }
}

/// A part of a record is on the disk and cannot be cut off; a shorter one takes its place.
pub(crate) fn a_record_cut_short_does_not_count(stage: &mut Stage) {
    stage.remount_with(&["--write-through"]);
    for healed in [false, true] {
        let mut disk = Disk::new(stage);
        disk.mkdir("synced");
        disk.tree.sync().unwrap();
        let (large, value) = (disk.try_mkdir("large").unwrap(), [b'v'; 60 << 10]);
        let attributes: Vec<_> = [b"user.a", b"user.b"].into();
        let many: Vec<_> = (0..20)
            .map(|i| disk.try_mkdir(&format!("d{i}")).unwrap())
            .collect();
        for &ino in many.iter().chain([&large]) {
            for name in &attributes {
                disk.tree
                    .set_xattr(ino, *name, &value, XattrMode::Any)
                    .unwrap();
            }
        }
        // More than the kernel sends at once, so a part of it arrives.
        disk.stage.command("fail write EIO 2");
        disk.stage.command("fail setattr EIO");
        assert_eq!(disk.tree.sync(), Err(Errno::IO));
        let len = disk.journal_len();
        assert!(len >= 1 << 20, "{len} bytes of it are there");
        let mut names = vec!["synced".to_owned()];
        if healed {
            for i in 0..20 {
                disk.tree.rmdir(Ino::ROOT, name(&format!("d{i}"))).unwrap();
            }
            disk.stage.command("heal");
            assert_eq!(disk.tree.sync(), Ok(()));
            names.insert(0, "large".to_owned());
        }
        disk.cut_power();
        disk.stage.command("heal");
        assert_eq!(disk.names(), names);
        if healed {
            let found = disk.tree.get_xattr(large, b"user.b").unwrap();
            assert!(found == value);
        }
        disk.mkdir("works");
        assert_eq!(disk.tree.sync(), Ok(()));
        disk.erase();
    }
}

pub(crate) fn a_freeze_that_cannot_sync_changes_nothing(stage: &mut Stage) {
    let mut disk = Disk::new(stage);
    disk.mkdir("one");
    for fault in ["write EIO", "fsync EIO", "create ENOSPC"] {
        disk.mkdir(fault);
        disk.stage.command(&format!("fail {fault}"));
        disk.freeze().unwrap_err();
        disk.stage.command("heal");
        assert_eq!(disk.tree.sync(), Ok(()), "{fault}");
    }
    disk.freeze().unwrap();
    disk.mkdir("above");
    assert_eq!(disk.tree.sync(), Ok(()));
    disk.cut_power();
    let all = ["above", "create ENOSPC", "fsync EIO", "one", "write EIO"];
    assert_eq!(disk.names(), all);
}

/// An export is to a disk as well. What does not reach it is no success, and nothing is left of it.
pub(crate) fn an_export_that_fails_leaves_nothing(stage: &mut Stage) {
    let outputs = ["tmp/file", "tmp/directory", "tmp/image"];
    let export = |stage: &Stage, output: &str| {
        let mut tree = stage.read_frozen(0);
        let at = |path: &[u8]| tree.resolve(path, b"/", true).unwrap().ino;
        let (existing, limits) = (Existing::Replace, ExportLimits::default());
        let (big, usr, path) = (at(b"big"), at(b"usr"), stage.path(output));
        match output {
            "tmp/file" => export_to_host(&mut tree, big, &path, existing, limits).map(drop),
            "tmp/directory" => export_to_host(&mut tree, usr, &path, existing, limits).map(drop),
            _ => export_ext4(&mut tree, &path, existing, Ext4Options::default()).map(drop),
        }
    };
    let names = |stage: &Stage| fs::read_dir(stage.path("tmp")).unwrap().count();
    for fault in ["write EIO", "write ENOSPC", "setattr ENOSPC", "rename2 EIO"] {
        for output in outputs {
            stage.command(&format!("fail {fault}"));
            let error = export(stage, output).unwrap_err();
            assert!(
                matches!(error, ExportError::Write { .. }),
                "{fault}: {error:?}"
            );
            stage.command("heal");
            assert_eq!(names(stage), 0, "{output} after {fault}");
        }
    }
    for output in outputs {
        export(stage, output).unwrap();
    }
    // What is there stays when it is to be replaced.
    for output in outputs {
        stage.command("fail write EIO");
        export(stage, output).unwrap_err();
        stage.command("heal");
    }
    stage.crash();
    assert_eq!(names(stage), outputs.len());
    assert!(fs::read(stage.path("tmp/file")).unwrap() == pattern(3 << 20));
    let module = "usr/lib/pkg3/sub/mod7.txt";
    let exported = module.replacen("usr", "tmp/directory", 1);
    assert_eq!(fs::read_to_string(stage.path(&exported)).unwrap(), module);
    let mut magic = [0; 2];
    let image = File::open(stage.path("tmp/image")).unwrap();
    image.read_exact_at(&mut magic, 1024 + 56).unwrap();
    assert_eq!(magic, [0x53, 0xef]);
}
