//! Deleting a directory with all that is in it.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat};

/// Deletes what is in `directory`, at most `deeper` directories deep, and never what is mounted in
/// it: only what is on `device`. No link is followed.
pub(crate) fn remove_tree(directory: BorrowedFd<'_>, device: u64, deeper: u32) {
    let Ok(entries) = Dir::read_from(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if stat.st_dev != device {
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let _ = unlinkat(directory, name, AtFlags::empty());
            continue;
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if deeper > 0
            && let Ok(child) = openat(directory, name, flags, Mode::empty())
        {
            use std::os::fd::AsFd as _;
            remove_tree(child.as_fd(), device, deeper - 1);
        }
        let _ = unlinkat(directory, name, AtFlags::REMOVEDIR);
    }
}
