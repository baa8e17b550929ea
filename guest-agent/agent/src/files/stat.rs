//! What a path is.

use pyro_agent_protocol::{Entry, FileEvent, FileKind, GuestPath, Stat};
use rustix::fs::{FileType, fstat, readlinkat};

use super::FileError;
use super::resolve::{Base, Found, as_it_is, kind};

/// Looks.
pub(super) fn stat(request: &Stat) -> Result<FileEvent, FileError> {
    let base = Base::open(&request.beneath)?;
    let place = base.walk(&request.path, request.follow, &as_it_is)?;
    let Found::Real(fd) = place.found else {
        return Err(FileError::NotFound {
            path: request.path.clone(),
        });
    };
    let system = |errno| FileError::system(request.path.as_bytes(), "cannot be looked at", errno);
    let stat = fstat(&fd).map_err(system)?;
    let target = match kind(&stat) {
        FileType::Symlink => Some(readlinkat(&fd, c"", Vec::new()).map_err(system)?),
        _ => None,
    };
    let mut entry = entry(base.absolute(&place.path), &stat);
    entry.target = target.map(|target| GuestPath::from_bytes(target.into_bytes()));
    Ok(FileEvent::Stat { entry })
}

/// An entry for what `stat` tells of, without a link's target.
pub(super) fn entry(path: GuestPath, stat: &rustix::fs::Stat) -> Entry {
    let file_kind = match kind(stat) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let size = match file_kind {
        FileKind::File => u64::try_from(stat.st_size).unwrap_or(0),
        _ => 0,
    };
    Entry {
        path,
        kind: file_kind,
        size,
        mode: stat.st_mode & 0o7777,
        target: None,
    }
}
