//! What is still there after the server went away.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use super::stage::{MOTD, Stage, run};

/// Everything about everything: what `find` and `sha256sum` see.
fn picture(root: &Path) -> String {
    let format = "%i %y %m %U:%G %n %s %T@ %P %l\\n";
    let mut find = Command::new("find");
    let seen = run(find.arg(".").args(["-printf", format]).current_dir(root));
    let mut sums = Command::new("find");
    sums.args([".", "-type", "f", "-exec", "sha256sum", "{}", "+"])
        .current_dir(root);
    let mut lines: Vec<String> = seen
        .lines()
        .chain(run(&mut sums).lines())
        .map(Into::into)
        .collect();
    lines.sort();
    lines.join("\n")
}

pub(crate) fn everything_is_there_after_a_remount(stage: &mut Stage) {
    let path = |name: &str| stage.path(name);
    fs::rename(path("usr/lib/pkg2"), path("tmp/pkg2")).unwrap();
    fs::write(path("tmp/pkg2/sub/mod3.txt"), "changed").unwrap();
    fs::remove_dir_all(path("usr/lib/pkg3")).unwrap();
    fs::hard_link(path("etc/motd"), path("tmp/motd")).unwrap();
    symlink("../etc/motd", path("tmp/link")).unwrap();
    chown(path("big"), Some(5), Some(6)).unwrap();
    fs::create_dir_all(path("new/a/b/c")).unwrap();
    for i in 0..200 {
        fs::write(path(&format!("new/a/file{i}")), vec![i as u8; i * 37]).unwrap();
    }
    fs::remove_file(path("link")).unwrap();
    let before = picture(&stage.root());
    for _ in 0..2 {
        stage.remount();
        assert_eq!(picture(&stage.root()), before);
    }
}

/// The steps of every careful program: write beside, fsync, rename, fsync the directory.
pub(crate) fn what_was_synced_survives_a_killed_server(stage: &mut Stage) {
    let dir = stage.path("etc");
    for round in 0..20 {
        let beside = dir.join("motd.new");
        let mut file = File::create(&beside).unwrap();
        write!(file, "round {round}").unwrap();
        file.sync_all().unwrap();
        fs::rename(&beside, dir.join("motd")).unwrap();
        File::open(&dir).unwrap().sync_all().unwrap();
    }
    // In place, as a database does it.
    let file = File::options().write(true).open(stage.path("big")).unwrap();
    file.write_all_at(b"page", 8192).unwrap();
    file.sync_data().unwrap();
    drop(file);
    fs::write(stage.path("tmp/unsynced"), "perhaps").unwrap();
    stage.crash();
    assert_eq!(fs::read(stage.path("etc/motd")).unwrap(), b"round 19");
    assert!(!stage.path("etc/motd.new").exists());
    let big = fs::read(stage.path("big")).unwrap();
    assert_eq!((big.len(), &big[8192..8196]), (3 << 20, &b"page"[..]));
    // What was not synced is there or not, and usable in either case.
    fs::write(stage.path("tmp/unsynced"), "again").unwrap();
    assert_eq!(fs::read(stage.path("tmp/unsynced")).unwrap(), b"again");
}

pub(crate) fn unlinked_files_are_gone_after_a_remount(stage: &mut Stage) {
    let path = stage.path("tmp/gone");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[7; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    fs::remove_file(&path).unwrap();
    drop(file);
    let used = |stage: &Stage| {
        run(Command::new("du")
            .args(["-s", "--block-size=1"])
            .arg(stage.outside().join("top")))
        .split_whitespace()
        .next()
        .and_then(|size| size.parse::<u64>().ok())
        .unwrap()
    };
    stage.remount();
    assert!(
        used(stage) < 1 << 19,
        "{} bytes are left behind",
        used(stage)
    );
    // Killed while a file is open and unlinked.
    let path = stage.path("tmp/orphan");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[7; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    fs::remove_file(&path).unwrap();
    File::open(stage.path("tmp")).unwrap().sync_all().unwrap();
    stage.crash();
    drop(file);
    assert!(!stage.path("tmp/orphan").exists());
    assert!(
        used(stage) < 1 << 19,
        "{} bytes are left behind",
        used(stage)
    );
    assert_eq!(fs::read(stage.path("etc/motd")).unwrap(), MOTD);
}

pub(crate) fn frozen_layers_stay_as_they_were(stage: &mut Stage) {
    let first = picture(&stage.root());
    fs::write(stage.path("tmp/second"), "second").unwrap();
    fs::rename(stage.path("usr/lib/pkg2"), stage.path("tmp/pkg2")).unwrap();
    fs::remove_dir_all(stage.path("usr/lib/pkg3")).unwrap();
    let second = picture(&stage.root());
    assert_ne!(second, first);
    stage.freeze();
    assert_eq!(picture(&stage.root()), second);
    fs::write(stage.path("tmp/pkg2/sub/mod3.txt"), "changed").unwrap();
    fs::hard_link(stage.path("tmp/second"), stage.path("tmp/third")).unwrap();
    fs::write(stage.path("tmp/third"), "through another name").unwrap();
    fs::create_dir(stage.path("usr/lib/pkg3")).unwrap();
    chown(stage.path("big"), Some(5), Some(6)).unwrap();
    fs::remove_file(stage.path("etc/motd")).unwrap();
    let third = picture(&stage.root());
    stage.freeze();
    assert_eq!(picture(&stage.root()), third);
    fs::remove_dir_all(stage.path("usr")).unwrap();
    stage.remount();
    stage.reset(2);
    assert_eq!(picture(&stage.root()), third);
    stage.reset(1);
    assert_eq!(picture(&stage.root()), second);
    stage.reset(0);
    assert_eq!(picture(&stage.root()), first);
}
