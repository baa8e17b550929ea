//! Mounting, and taking the mount away.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use super::fusermount;

/// The name of the file system in `/proc/mounts`.
pub(super) const FS_NAME: &str = "pyro-rootfs";

/// Why a tree is not mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// `/dev/fuse` cannot be opened.
    #[error("cannot open /dev/fuse; load the fuse module, or give this process the device")]
    Device(#[source] io::Error),
    /// mount(2) refused.
    #[error("cannot mount on {}; the directory has to exist and the mount to be allowed", .at.display())]
    Mount {
        /// The mount point.
        at: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// fusermount3 did not run or did not mount.
    #[error("fusermount3 cannot mount on {}; install the package fuse3, or mount as root", .at.display())]
    Helper {
        /// The mount point.
        at: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// A mounted file system whose requests nobody has begun to answer. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    pub(super) device: OwnedFd,
    at: PathBuf,
}

impl Mount {
    /// Mounts on directory `at`.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn new(at: &Path) -> Result<Self, MountError> {
        let device = if rustix::process::geteuid().is_root() {
            mount_directly(at)?
        } else {
            fusermount::mount(at).map_err(|source| MountError::Helper {
                at: at.to_owned(),
                source,
            })?
        };
        Ok(Self {
            device,
            at: at.to_owned(),
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn at(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It may be gone already, and there is nobody to tell.
        let _ = unmount(&self.at);
    }
}

/// Mounts with mount(2). The kernel checks permissions (`default_permissions`), and everybody may
/// look (`allow_other`), as in a guest (Linux, `Documentation/filesystems/fuse.rst`).
fn mount_directly(at: &Path) -> Result<OwnedFd, MountError> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| MountError::Device(errno.into()))?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let options = CString::new(options).expect("numbers and words have no NUL");
    rustix::mount::mount(FS_NAME, at, "fuse", MountFlags::empty(), options.as_c_str()).map_err(
        |errno| MountError::Mount {
            at: at.to_owned(),
            source: errno.into(),
        },
    )?;
    Ok(device)
}

/// Takes away what is mounted on `at`; from there at once, altogether when nobody uses it any
/// more.
///
/// # Errors
/// What the kernel, or fusermount3, said.
pub fn unmount(at: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(rustix::mount::unmount(at, UnmountFlags::DETACH)?);
    }
    let status = Command::new("fusermount3")
        .args(["-u", "-z", "-q", "--"])
        .arg(at)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("fusermount3 failed"))
    }
}
