//! The guest's file systems: the shared root, and what the kernel provides around it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmod, mkdir, open, openat};
use rustix::fs::{statat, symlink};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use super::BootError;
use crate::files::remove_tree;

/// The tag of the virtio-fs device that holds the root.
const TAG: &str = "root";
/// Where the root is mounted before it becomes `/`.
const NEW_ROOT: &str = "/newroot";

/// The root that the kernel unpacked its initramfs into.
#[derive(Debug)]
pub(super) struct Initramfs {
    root: OwnedFd,
    device: u64,
}

/// Mounts the shared root and makes it this process's root, as switch_root(8) does: the initramfs
/// cannot be pivoted away from, so the new root is moved over it.
pub(super) fn enter_root() -> Result<Initramfs, BootError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = open("/", flags, Mode::empty()).map_err(BootError::SwitchRoot)?;
    let device = statat(&root, "", AtFlags::EMPTY_PATH)
        .map_err(BootError::SwitchRoot)?
        .st_dev;

    make_directory(NEW_ROOT);
    mount(TAG, NEW_ROOT, "virtiofs", MountFlags::empty(), None).map_err(BootError::Root)?;
    let switch = || {
        chdir(NEW_ROOT)?;
        mount_move(".", "/")?;
        chroot(".")?;
        chdir("/")
    };
    switch().map_err(BootError::SwitchRoot)?;
    // So that a log line and what follows have their devices at once.
    one(&MOUNTS[0]);
    Ok(Initramfs { root, device })
}

/// One of the kernel's file systems and where it belongs.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static std::ffi::CStr,
}

const NOTHING_RUNS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// In this order: later ones lie in earlier ones.
const MOUNTS: [Mount; 7] = [
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        flags: MountFlags::NOSUID,
        options: c"mode=0755",
    },
    Mount {
        kind: "proc",
        target: "/proc",
        flags: NOTHING_RUNS,
        options: c"",
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
        flags: NOTHING_RUNS,
        options: c"",
    },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"mode=0620,gid=5,ptmxmode=0666",
    },
    Mount {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: NO_DEVICES,
        options: c"mode=1777",
    },
    Mount {
        kind: "tmpfs",
        target: "/run",
        flags: NO_DEVICES,
        options: c"mode=0755",
    },
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: NOTHING_RUNS,
        options: c"",
    },
];

/// Mounts everything that programs expect. What fails is reported: most programs can do without.
pub(super) fn mount_the_rest() {
    for mount in &MOUNTS[1..] {
        one(mount);
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        let _ = symlink(target, link);
    }
    // `/var/lock` of Debian leads here.
    make_directory("/run/lock");
    let _ = chmod("/run/lock", Mode::from_raw_mode(0o1777));
}

fn one(what: &Mount) {
    let Mount {
        kind,
        target,
        flags,
        options,
    } = what;
    let mounted = match mount(*kind, *target, *kind, *flags, *options) {
        Err(Errno::NOENT) => {
            make_directory(target);
            mount(*kind, *target, *kind, *flags, *options)
        }
        // A kernel may mount devtmpfs by itself.
        Err(Errno::BUSY) => Ok(()),
        other => other,
    };
    if let Err(errno) = mounted {
        crate::log::warning(format_args!("cannot mount {kind} on {target}: {errno}"));
    }
}

fn make_directory(path: &str) {
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => crate::log::warning(format_args!("cannot make {path}: {errno}")),
    }
}

/// Gives the initramfs' memory back: deletes all of its files.
pub(super) fn free(initramfs: Initramfs) {
    remove_tree(initramfs.root.as_fd(), initramfs.device, 16);
}

/// Writes a small file of `/proc` or `/sys`.
pub(super) fn write_setting(path: &str, value: &str) -> Result<(), Errno> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freeing_deletes_all_files_of_the_device_and_follows_no_link() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(inside.path().join("modules/deep")).unwrap();
        std::fs::write(inside.path().join("modules/deep/a.ko"), "x").unwrap();
        std::fs::write(inside.path().join("init"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("link")).unwrap();

        let root: OwnedFd = std::fs::File::open(inside.path()).unwrap().into();
        let device = rustix::fs::fstat(&root).unwrap().st_dev;
        free(Initramfs { root, device });

        assert_eq!(std::fs::read_dir(inside.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn files_of_another_device_are_left_alone() {
        let inside = tempfile::tempdir().unwrap();
        std::fs::write(inside.path().join("file"), "x").unwrap();
        let root: OwnedFd = std::fs::File::open(inside.path()).unwrap().into();
        let device = rustix::fs::fstat(&root).unwrap().st_dev;
        free(Initramfs {
            root,
            device: device.wrapping_add(1),
        });
        assert!(inside.path().join("file").exists());
    }
}
