//! The guest's secrets: files on a file system in memory, replaced as a whole.
//!
//! Values are in no message, no error and no log; what holds them says only how many bytes there
//! are when it is printed. Programs of the guest that are root can read them, which is what they
//! are for, and can put anything in their place: nothing that they do leads the agent elsewhere.

use std::collections::BTreeSet;
use std::fmt::{Debug, Formatter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use pyro_agent_protocol::{Frame, FrameKind, SECRET_MAX, SECRETS_MAX, SecretName, Secrets};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, mkdir, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::{FileError, remove_tree};

/// The file system: room for all secrets twice, since the new ones are written before the old ones
/// go, and for the names of both.
const OPTIONS: &std::ffi::CStr = c"size=9m,nr_inodes=200,mode=0711";
/// How deep directories are deleted that a program has made among the secrets.
const DEEPEST: u32 = 16;

/// Where secrets are.
#[derive(Debug)]
pub(crate) struct SecretsArea {
    path: String,
    /// Whether a file system of its own is to be there.
    mounts: bool,
    /// The file system that has been mounted.
    device: Mutex<Option<u64>>,
}

/// New secrets, as they come in.
pub(crate) struct Delivery {
    names: Vec<(SecretName, usize)>,
    /// All values, one after the other.
    values: Vec<u8>,
    size: usize,
}

impl Debug for Delivery {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { values, size, .. } = self;
        write!(formatter, "Delivery({} of {size} bytes)", values.len())
    }
}

impl Delivery {
    pub(crate) fn new(request: Secrets) -> Result<Self, FileError> {
        if request.secrets.len() > SECRETS_MAX {
            let what = "there are more secrets than are allowed";
            return Err(FileError::TooMuch { what });
        }
        let mut names = Vec::new();
        let mut seen = BTreeSet::new();
        let mut total = 0;
        for secret in request.secrets {
            if secret.size > SECRET_MAX {
                let what = "a secret is longer than is allowed";
                return Err(FileError::TooMuch { what });
            }
            if !seen.insert(secret.name.clone()) {
                let what = "a secret's name comes twice";
                return Err(FileError::OutOfTurn { what });
            }
            let size = usize::try_from(secret.size).unwrap_or(usize::MAX);
            total += size;
            names.push((secret.name, size));
        }
        Ok(Self {
            names,
            values: Vec::new(),
            size: total,
        })
    }

    /// Takes a frame of the host. Gives the reason when it makes no sense here.
    pub(crate) fn take(&mut self, frame: &Frame) -> Result<(), String> {
        if frame.kind != FrameKind::Stdin {
            return Err("only the values make sense here".to_owned());
        }
        if frame.payload.len() > self.size - self.values.len() {
            return Err("there are more bytes than were announced".to_owned());
        }
        self.values.extend_from_slice(&frame.payload);
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.values.len() == self.size
    }
}

impl SecretsArea {
    /// Secrets in the directory `path`, on a file system that is mounted there when it is first
    /// needed, or in the directory as it is.
    pub(crate) fn new(path: &str, mounts: bool) -> Self {
        Self {
            path: path.to_owned(),
            mounts,
            device: Mutex::new(None),
        }
    }

    /// Makes these the secrets, and no others. May block.
    pub(crate) fn replace(&self, delivery: &Delivery) -> Result<(), FileError> {
        let directory = self.open()?;
        let mut values = &delivery.values[..];
        for (number, (_, size)) in delivery.names.iter().enumerate() {
            let (value, rest) = values.split_at((*size).min(values.len()));
            values = rest;
            if let Err(errno) = write(directory.as_fd(), &staged(number), value) {
                for number in 0..=number {
                    let _ = unlinkat(&directory, staged(number), AtFlags::empty());
                }
                return Err(self.failed("cannot write a secret", errno));
            }
        }
        for (number, (name, _)) in delivery.names.iter().enumerate() {
            let (from, to) = (staged(number), name.as_str());
            let mut renamed = renameat(&directory, &from, &directory, to);
            // Only a directory, of a program's making, is in the way of a file.
            if renamed.is_err() {
                remove(directory.as_fd(), to);
                renamed = renameat(&directory, &from, &directory, to);
            }
            renamed.map_err(|errno| self.failed("cannot put a secret in its place", errno))?;
        }
        let kept: BTreeSet<&[u8]> = delivery
            .names
            .iter()
            .map(|(name, _)| name.as_str().as_bytes())
            .collect();
        let entries = Dir::read_from(&directory)
            .map_err(|errno| self.failed("cannot look for old secrets", errno))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name != c"." && name != c".." && !kept.contains(name.to_bytes()) {
                remove(directory.as_fd(), name);
            }
        }
        Ok(())
    }

    /// The directory, with its file system mounted.
    fn open(&self) -> Result<OwnedFd, FileError> {
        let failed = |errno| self.failed("cannot use the directory of secrets", errno);
        match mkdir(&self.path, Mode::from_raw_mode(0o711)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = || openat(CWD, &*self.path, flags, Mode::empty());
        let directory = open().map_err(failed)?;
        if !self.mounts {
            fchmod(&directory, Mode::from_raw_mode(0o711)).map_err(failed)?;
            return Ok(directory);
        }
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        let found = fstat(&directory).map_err(failed)?.st_dev;
        if *device == Some(found) {
            return Ok(directory);
        }
        // Not the path, behind which there may be something else by now.
        let target = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("pyro-secrets", &*target, "tmpfs", flags, OPTIONS)
            .map_err(|errno| self.failed("cannot mount the file system of secrets", errno))?;
        let mounted = open().map_err(failed)?;
        let now = fstat(&mounted).map_err(failed)?.st_dev;
        if now == found {
            return Err(failed(Errno::STALE));
        }
        *device = Some(now);
        Ok(mounted)
    }

    fn failed(&self, what: &'static str, errno: Errno) -> FileError {
        FileError::system(self.path.as_bytes(), what, errno)
    }
}

/// Where a secret is written before it gets its name. No secret can be called so.
fn staged(number: usize) -> String {
    format!(".new-{number}")
}

fn write(directory: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<(), Errno> {
    remove(directory, name);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_raw_mode(0o400))?;
    let mut rest = value;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(length) => rest = &rest[length..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes whatever has this name.
fn remove(directory: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) {
    let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return;
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let _ = unlinkat(directory, name, AtFlags::empty());
        return;
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if let Ok(child) = openat(directory, name, flags, Mode::empty()) {
        remove_tree(child.as_fd(), stat.st_dev, DEEPEST);
    }
    let _ = unlinkat(directory, name, AtFlags::REMOVEDIR);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use pyro_agent_protocol::Secret;

    use super::*;

    fn delivery(secrets: &[(&str, &[u8])]) -> Delivery {
        let announced = secrets
            .iter()
            .map(|(name, value)| Secret {
                name: name.parse().unwrap(),
                size: value.len() as u64,
            })
            .collect();
        let mut delivery = Delivery::new(Secrets { secrets: announced }).unwrap();
        for (_, value) in secrets {
            let payload = value.to_vec();
            let kind = FrameKind::Stdin;
            delivery.take(&Frame { kind, payload }).unwrap();
        }
        assert!(delivery.is_complete());
        delivery
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn secrets_are_replaced_as_a_whole_whatever_is_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets");
        let area = SecretsArea::new(path.to_str().unwrap(), false);
        area.replace(&delivery(&[("A", b"one"), ("B", b""), ("C", b"three")]))
            .unwrap();
        assert_eq!(names(&path), ["A", "B", "C"]);
        assert_eq!(std::fs::read(path.join("A")).unwrap(), b"one");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o711);
        assert_eq!(path.join("C").metadata().unwrap().mode() & 0o7777, 0o400);

        // What a hostile program may have put there meanwhile.
        let outside = directory.path().join("outside");
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        std::fs::write(outside.join("deep/kept"), "x").unwrap();
        std::fs::remove_file(path.join("A")).unwrap();
        std::fs::create_dir_all(path.join("A/deep")).unwrap();
        std::os::unix::fs::symlink(&outside, path.join("A/deep/link")).unwrap();
        std::os::unix::fs::symlink(outside.join("deep/kept"), path.join("D")).unwrap();
        std::os::unix::fs::symlink(outside.join("deep/kept"), path.join(".new-0")).unwrap();
        std::fs::create_dir_all(path.join(".new-1/x")).unwrap();
        std::fs::create_dir_all(path.join("more/x")).unwrap();
        area.replace(&delivery(&[("A", b"uno"), ("D", b"new")]))
            .unwrap();
        assert_eq!(names(&path), ["A", "D"]);
        assert_eq!(std::fs::read(path.join("A")).unwrap(), b"uno");
        assert!(path.join("D").symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(outside.join("deep/kept")).unwrap(), b"x");

        area.replace(&delivery(&[])).unwrap();
        assert_eq!(names(&path), [""; 0]);
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = directory.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let path = directory.path().join("secrets");
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let area = SecretsArea::new(path.to_str().unwrap(), false);
        area.replace(&delivery(&[("A", b"one")])).unwrap_err();
        assert_eq!(names(&elsewhere), [""; 0]);
    }

    #[test]
    fn more_than_is_allowed_or_was_announced_is_refused() {
        let secret = |name: String, size| Secret {
            name: name.parse().unwrap(),
            size,
        };
        let many = (0..=SECRETS_MAX).map(|number| secret(format!("S{number}"), 1));
        let secrets = many.collect();
        let error = Delivery::new(Secrets { secrets }).unwrap_err();
        assert!(matches!(error, FileError::TooMuch { .. }));
        for size in [SECRET_MAX + 1, u64::MAX] {
            let secrets = vec![secret("S".into(), size)];
            let error = Delivery::new(Secrets { secrets }).unwrap_err();
            assert!(matches!(error, FileError::TooMuch { .. }));
        }
        let secrets = vec![secret("S".into(), 1), secret("S".into(), 1)];
        let error = Delivery::new(Secrets { secrets }).unwrap_err();
        assert!(matches!(error, FileError::OutOfTurn { .. }));
        let secrets = vec![secret("S".into(), 2)];
        let mut delivery = Delivery::new(Secrets { secrets }).unwrap();
        let frame = |kind, payload: &[u8]| Frame {
            kind,
            payload: payload.to_vec(),
        };
        delivery
            .take(&frame(FrameKind::Stdin, b"tell"))
            .unwrap_err();
        delivery.take(&frame(FrameKind::Stdout, b"a")).unwrap_err();
        delivery.take(&frame(FrameKind::Stdin, b"ab")).unwrap();
        assert!(delivery.is_complete());
        assert!(
            !format!("{delivery:?}").contains("ab"),
            "it tells: {delivery:?}"
        );
    }

    #[test]
    #[allow(unsafe_code)] // Mounts of its own for the test's thread.
    fn a_failure_keeps_the_old_secrets() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: needs root, to mount");
        }
        let own_mounts = std::thread::spawn(|| {
            use rustix::mount::{MountPropagationFlags, mount_change};
            use rustix::thread::{UnshareFlags, unshare_unsafe};
            // SAFETY: mounts alone become this thread's own; no memory and no descriptor does.
            if unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.is_err() {
                return eprintln!("skipped: no mount namespace to be had");
            }
            let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", flags).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("secrets");
            let area = SecretsArea::new(path.to_str().unwrap(), true);
            area.replace(&delivery(&[("A", b"one")])).unwrap();
            // Of this thread: /proc/self is the process, whose first thread has other mounts.
            let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
            let line = mounts
                .lines()
                .find(|line| line.contains("secrets"))
                .unwrap();
            assert!(line.contains(" tmpfs rw,nosuid,nodev,noexec,"), "{line}");
            assert!(line.contains("mode=711"), "{line}");
            let mode = path.join("A").metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o400);

            let filler = vec![7; 8 << 20];
            std::fs::write(path.join("filler"), &filler).unwrap();
            let value = vec![8; 64 << 10];
            let many: Vec<_> = (0..30).map(|number| format!("S{number}")).collect();
            let many: Vec<(&str, &[u8])> = many.iter().map(|name| (&**name, &value[..])).collect();
            let error = area.replace(&delivery(&many)).unwrap_err();
            assert!(matches!(error, FileError::NoSpace { .. }), "{error}");
            assert_eq!(names(&path), ["A", "filler"]);
            assert_eq!(std::fs::read(path.join("A")).unwrap(), b"one");

            // The most that is allowed, over the most that is allowed.
            std::fs::remove_file(path.join("filler")).unwrap();
            let most: Vec<_> = (0..SECRETS_MAX).map(|n| format!("M{n}")).collect();
            let most: Vec<(&str, &[u8])> = most.iter().map(|name| (&**name, &value[..])).collect();
            area.replace(&delivery(&most)).unwrap();
            area.replace(&delivery(&most)).unwrap();
            assert_eq!(names(&path).len(), SECRETS_MAX);

            // Somebody unmounts it.
            rustix::mount::unmount(&*path, rustix::mount::UnmountFlags::DETACH).unwrap();
            area.replace(&delivery(&[("B", b"two")])).unwrap();
            assert_eq!(names(&path), ["B"]);
            rustix::mount::unmount(&*path, rustix::mount::UnmountFlags::DETACH).unwrap();
            assert_eq!(names(&path), [""; 0], "nothing was written beneath it");
        });
        own_mounts.join().unwrap();
    }
}
