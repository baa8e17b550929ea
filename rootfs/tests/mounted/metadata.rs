//! Owners, modes, times, extended attributes, special files.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    CWD, FileType, Mode, XattrFlags, getxattr, listxattr, makedev, mknodat, removexattr, setxattr,
    statvfs,
};
use rustix::io::Errno;

use super::stage::{Stage, drop_caches, run};

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a shell as user 1000 of group 1000.
fn as_user(stage: &Stage, script: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .current_dir(stage.root())
        .uid(1000)
        .gid(1000);
    command
}

/// The stage's directory on the host is root's alone; let others reach the mount.
fn admit_others(stage: &Stage) {
    chmod(stage.outside(), 0o755);
}

pub(crate) fn modes_and_umask(stage: &mut Stage) {
    let script = "umask 027 && cd tmp && touch file && mkdir dir && mkfifo fifo && ln -s x link";
    run(Command::new("sh")
        .args(["-c", script])
        .current_dir(stage.root()));
    drop_caches(&stage.root());
    let path = |name: &str| stage.path("tmp").join(name);
    assert_eq!(mode(&path("file")), 0o640);
    assert_eq!(mode(&path("dir")), 0o750);
    assert_eq!(mode(&path("fifo")), 0o640);
    assert_eq!(mode(&path("link")), 0o777);
    chmod(&path("file"), 0o7123);
    drop_caches(&stage.root());
    assert_eq!(mode(&path("file")), 0o7123);
}

pub(crate) fn owners_change_without_copying(stage: &mut Stage) {
    let path = stage.path("big");
    chown(&path, Some(1234), Some(4321)).unwrap();
    drop_caches(&stage.root());
    let meta = path.metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
    let contents = stage.outside().join("top/content");
    let copied = fs::read_dir(contents).map_or(0, Iterator::count);
    assert_eq!(copied, 0, "chown has copied content");
}

pub(crate) fn set_id_bits_fall(stage: &mut Stage) {
    admit_others(stage);
    let path = stage.path("tmp/tool");
    fs::write(&path, "tool").unwrap();
    chmod(&path, 0o6777);
    chown(&path, Some(1), Some(1)).unwrap();
    assert_eq!(mode(&path), 0o777, "chown leaves the bits");
    for script in [
        "echo more >> tmp/tool",
        ": > tmp/tool",
        "truncate -s 1 tmp/tool",
    ] {
        chmod(&path, 0o6777);
        run(&mut as_user(stage, script));
        assert_eq!(mode(&path), 0o777, "{script}");
        drop_caches(&stage.root());
        assert_eq!(mode(&path), 0o777, "{script}");
    }
    // Root keeps them when it writes.
    chmod(&path, 0o6777);
    fs::write(&path, "root").unwrap();
    drop_caches(&stage.root());
    assert_eq!(mode(&path), 0o6777);
    // File capabilities go with any write.
    setxattr(
        &path,
        "security.capability",
        &CAPABILITY,
        XattrFlags::empty(),
    )
    .unwrap();
    fs::write(&path, "again").unwrap();
    let error = getxattr(&path, "security.capability", &mut [0; 64]).unwrap_err();
    assert_eq!(error, Errno::NODATA);
}

/// `cap_net_raw=ep` (`struct vfs_cap_data`, Linux `include/uapi/linux/capability.h`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) fn directories_hand_their_group_down(stage: &mut Stage) {
    let dir = stage.path("tmp/team");
    fs::create_dir(&dir).unwrap();
    chown(&dir, None, Some(77)).unwrap();
    chmod(&dir, 0o2775);
    fs::write(dir.join("file"), "").unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    drop_caches(&stage.root());
    assert_eq!(dir.join("file").metadata().unwrap().gid(), 77);
    assert_eq!(dir.join("sub").metadata().unwrap().gid(), 77);
    assert_eq!(mode(&dir.join("sub")) & 0o2000, 0o2000);
    assert_eq!(mode(&dir.join("file")) & 0o2000, 0);
}

/// What git does: a new file of mode 0444, opened for writing.
pub(crate) fn others_may_create_read_only_files(stage: &mut Stage) {
    admit_others(stage);
    let script = "cd tmp && umask 0333 && for i in 1 2 3; do echo $i > f$i || exit 1; done";
    run(&mut as_user(stage, script));
    for i in 1..=3 {
        let path = stage.path(&format!("tmp/f{i}"));
        assert_eq!(fs::read(&path).unwrap(), format!("{i}\n").as_bytes());
        assert_eq!(mode(&path), 0o444);
        assert_eq!(path.metadata().unwrap().uid(), 1000);
    }
    assert!(
        !as_user(stage, "exec 2>/dev/null; echo x > etc/motd")
            .status()
            .unwrap()
            .success()
    );
    assert!(
        !as_user(stage, "rm -f etc/motd 2>/dev/null")
            .status()
            .unwrap()
            .success()
    );
    fs::write(stage.path("tmp/roots"), "").unwrap();
    let removed = as_user(stage, "rm -f tmp/roots 2>/dev/null")
        .status()
        .unwrap()
        .success();
    assert!(!removed, "the sticky bit does not hold");
}

pub(crate) fn times_are_kept(stage: &mut Stage) {
    let motd = stage.path("etc/motd");
    let meta = motd.metadata().unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 5));
    let file = stage.path("tmp/file");
    fs::write(&file, "content").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(123_456_789, 987_654_321);
    for path in [&motd, &file, &stage.path("tmp")] {
        let times = fs::FileTimes::new().set_modified(old).set_accessed(old);
        File::open(path).unwrap().set_times(times).unwrap();
    }
    drop_caches(&stage.root());
    stage.remount();
    for name in ["etc/motd", "tmp/file", "tmp"] {
        let meta = stage.path(name).metadata().unwrap();
        assert_eq!(
            (meta.mtime(), meta.mtime_nsec()),
            (123_456_789, 987_654_321),
            "{name}"
        );
        assert_eq!(meta.atime(), 123_456_789, "{name}");
    }
}

pub(crate) fn a_write_moves_the_times(stage: &mut Stage) {
    let start = SystemTime::now() - Duration::from_secs(2);
    let path = stage.path("etc/motd");
    fs::write(&path, "new").unwrap();
    let seen = path.metadata().unwrap();
    assert!(seen.modified().unwrap() > start);
    drop_caches(&stage.root());
    let again = path.metadata().unwrap();
    assert_eq!(again.modified().unwrap(), seen.modified().unwrap());
    assert_eq!(
        (again.ctime(), again.ctime_nsec()),
        (seen.ctime(), seen.ctime_nsec())
    );
    let dir = stage.path("etc");
    assert!(dir.metadata().unwrap().modified().unwrap() < start);
    fs::write(stage.path("etc/new"), "").unwrap();
    assert!(dir.metadata().unwrap().modified().unwrap() > start);
}

/// Making a file is stamped by the server, writing it by the kernel: the two clocks agree.
pub(crate) fn a_file_written_later_is_not_older(stage: &mut Stage) {
    let (made, written) = (stage.path("tmp/made"), stage.path("tmp/written"));
    let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
    fs::write(&written, "").unwrap();
    for round in 0..100 {
        let _ = fs::remove_file(&made);
        File::create(&made).unwrap();
        fs::write(&written, "x").unwrap();
        assert!(modified(&written) >= modified(&made), "round {round}");
    }
}

pub(crate) fn attributes_are_kept(stage: &mut Stage) {
    let path = stage.path("etc/motd");
    let long = vec![b'v'; 60_000];
    setxattr(&path, "user.long", &long, XattrFlags::CREATE).unwrap();
    setxattr(&path, "trusted.t", b"\0binary\xff", XattrFlags::empty()).unwrap();
    setxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
    setxattr(stage.path("etc"), "user.dir", b"d", XattrFlags::empty()).unwrap();
    let error = setxattr(&path, "user.long", b"x", XattrFlags::CREATE).unwrap_err();
    assert_eq!(error, Errno::EXIST);
    stage.remount();
    let path = stage.path("etc/motd");
    let mut value = vec![0; 65_536];
    assert_eq!(
        getxattr(&path, "user.long", &mut value).unwrap(),
        long.len()
    );
    assert_eq!(&value[..long.len()], &long[..]);
    assert_eq!(getxattr(&path, "trusted.t", &mut value).unwrap(), 8);
    assert_eq!(&value[..8], b"\0binary\xff");
    assert_eq!(getxattr(&path, "user.empty", &mut value).unwrap(), 0);
    let n = listxattr(&path, &mut value).unwrap();
    let mut names: Vec<&[u8]> = value[..n]
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .collect();
    names.sort();
    assert_eq!(names, [&b"trusted.t"[..], b"user.empty", b"user.long"]);
    removexattr(&path, "user.long").unwrap();
    assert_eq!(
        getxattr(&path, "user.long", &mut value).unwrap_err(),
        Errno::NODATA
    );
}

pub(crate) fn device_nodes_fifos_and_sockets(stage: &mut Stage) {
    let mut sink = fs::OpenOptions::new()
        .write(true)
        .open(stage.path("null"))
        .unwrap();
    sink.write_all(b"gone").unwrap();
    let zero = stage.path("tmp/zero");
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, &zero, FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    let wide = stage.path("tmp/wide");
    mknodat(
        CWD,
        &wide,
        FileType::BlockDevice,
        mode,
        makedev(0xabc, 0x12345),
    )
    .unwrap();
    let fifo = stage.path("tmp/fifo");
    mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    drop_caches(&stage.root());
    let mut bytes = [1; 16];
    File::open(&zero).unwrap().read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0; 16]);
    assert_eq!(wide.metadata().unwrap().rdev(), makedev(0xabc, 0x12345));
    assert!(wide.metadata().unwrap().file_type().is_block_device());
    let writer = thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, "through the pipe").unwrap()
    });
    assert_eq!(fs::read(&fifo).unwrap(), b"through the pipe");
    writer.join().unwrap();
    let socket = stage.path("tmp/socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    let mut heard = String::new();
    listener
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut heard)
        .unwrap();
    assert_eq!(heard, "hello");
    assert!(socket.metadata().unwrap().file_type().is_socket());
}

pub(crate) fn acls_are_refused(stage: &mut Stage) {
    // Owner, group and others (`ACL_USER_OBJ` and so on, Linux `uapi/linux/posix_acl.h`).
    let entry = |tag: u8| [tag, 0, 6, 0, 255, 255, 255, 255];
    let acl = [&[2, 0, 0, 0][..], &entry(1), &entry(4), &entry(0x20)].concat();
    let path = stage.path("etc/motd");
    let error = setxattr(&path, "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap_err();
    assert_eq!(error, Errno::OPNOTSUPP);
}

pub(crate) fn space_is_told(stage: &mut Stage) {
    let stat = statvfs(stage.root()).unwrap();
    assert_eq!(stat.f_namemax, 255);
    assert!(stat.f_blocks > 0 && stat.f_bavail > 0 && stat.f_ffree > 0);
}

pub(crate) fn link_counts_of_directories(stage: &mut Stage) {
    let links = |name: &str| stage.path(name).metadata().unwrap().nlink();
    assert_eq!(links("usr/lib"), 7);
    fs::create_dir(stage.path("usr/lib/new")).unwrap();
    assert_eq!(links("usr/lib"), 8);
    fs::rename(stage.path("usr/lib/new"), stage.path("tmp/new")).unwrap();
    assert_eq!((links("usr/lib"), links("tmp")), (7, 3));
    drop_caches(&stage.root());
    assert_eq!((links("usr/lib"), links("tmp")), (7, 3));
    let error = fs::hard_link(stage.path("tmp/new"), stage.path("tmp/other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}
