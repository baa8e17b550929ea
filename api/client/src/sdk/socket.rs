//! The daemon's Unix socket: where it is, and how it is reached.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// The socket's name in the state directory.
pub const FILE_NAME: &str = "api.sock";
/// Most bytes of a path in `sockaddr_un`, with room for the NUL (unix(7)).
const MAX_PATH: usize = 107;

/// The socket of the daemon that this process' environment means: in `PYRO_STATE_DIR`, else in
/// `$XDG_STATE_HOME/pyro`, else in `~/.local/state/pyro`.
pub fn from_environment() -> PathBuf {
    from_variables(|name| std::env::var_os(name))
}

/// The socket for the given environment. Empty variables count as unset.
pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    path("PYRO_STATE_DIR")
        .unwrap_or_else(|| {
            // The XDG base directory specification: relative paths are to be ignored.
            path("XDG_STATE_HOME")
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| {
                    path("HOME")
                        .unwrap_or_else(|| PathBuf::from("/"))
                        .join(".local/state")
                })
                .join("pyro")
        })
        .join(FILE_NAME)
}

/// A path that fits a socket address, however long the real one is: a long one goes through an open
/// descriptor of its directory.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Address {
    /// The address of a socket that is, or is to be, at `path`. Opens its directory when the path is
    /// long.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= MAX_PATH {
            return Ok(Self {
                path: path.to_path_buf(),
                _folder: None,
            });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = rustix::fs::open(
            folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            path: Path::new("/proc/self/fd")
                .join(folder.as_raw_fd().to_string())
                .join(name),
            _folder: Some(folder),
        })
    }

    /// A path that names the socket as long as this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Connects to the socket at `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = Address::new(path)?;
    match UnixStream::connect(address.path()).await {
        // The queue of connections is full: only a blocking connect(2) waits for a place in it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let stream = tokio::task::spawn_blocking(move || {
                std::os::unix::net::UnixStream::connect(address.path())
            })
            .await
            .map_err(io::Error::other)??;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(variables: &[(&str, &str)]) -> PathBuf {
        from_variables(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_state_directory_is_chosen_as_the_daemon_chooses_it() {
        assert_eq!(
            socket(&[("PYRO_STATE_DIR", "/s"), ("HOME", "/h")]),
            Path::new("/s/api.sock")
        );
        assert_eq!(
            socket(&[("XDG_STATE_HOME", "/x"), ("PYRO_STATE_DIR", "")]),
            Path::new("/x/pyro/api.sock")
        );
        assert_eq!(
            socket(&[("XDG_STATE_HOME", "rel"), ("HOME", "/h")]),
            Path::new("/h/.local/state/pyro/api.sock")
        );
    }

    #[tokio::test]
    async fn a_socket_with_a_long_path_is_reached() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("mkdir");
        let path = deep.join(FILE_NAME);
        let address = Address::new(&path).expect("address");
        let listener = tokio::net::UnixListener::bind(address.path()).expect("bind");

        let (client, server) = tokio::join!(connect(&path), listener.accept());

        assert!(client.is_ok() && server.is_ok() && path.exists());
    }
}
