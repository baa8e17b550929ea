//! The socket: made so that nobody else can ever reach it.
//!
//! Its directory belongs to us and is closed to everybody else; it is bound, made private and only
//! then listened on. One that is there already is taken away: whoever calls this holds the lock of
//! the state directory, so it is left from a daemon that was killed.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pyro_client::socket::Address;
use pyro_engine::{Code, Error, Result};
use rustix::fs::{Mode, chmod};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, listen, shutdown,
    socket_with,
};
use tokio::net::{UnixListener, UnixStream};

/// Connections that wait to be taken; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

/// A socket that is listened on.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Which file the socket is, by device and inode.
    file: (u64, u64),
}

impl Listener {
    /// Listens at `path`, whose directory must be ours alone ([`private_folder`]). The caller holds
    /// the lock that says that no other daemon does. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Code::StateUnwritable`]; also when something that is no socket is at `path`.
    pub fn bind(path: &Path) -> Result<Self> {
        let failed = |source: io::Error| {
            Error::new(
                Code::StateUnwritable,
                format!("cannot listen on {}", path.display()),
                "check that the directory is on a local file system that you can write to, or set \
                 PYRO_STATE_DIR to another one",
            )
            .caused_by(source)
        };
        Self::try_bind(path).map_err(failed)
    }

    fn try_bind(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(file) if std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()) => {
                std::fs::remove_file(path)?;
            }
            // bind(2) says it.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let address = Address::new(path)?;
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        bind(&socket, &SocketAddrUnix::new(address.path())?)?;
        chmod(address.path(), Mode::RUSR | Mode::WUSR)?;
        listen(&socket, BACKLOG)?;
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self {
            socket: UnixListener::from_std(socket.into())?,
            path: path.to_path_buf(),
            file: (file.dev(), file.ino()),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection. Waits a little when there are too many open files.
    pub(crate) async fn accept(&self) -> UnixStream {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => return stream,
                // The connection is gone, or no descriptor is left: the kernel keeps it waiting.
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Takes the socket's name away, so that nobody finds it any more. Whoever is connected, or
    /// waits to be taken, stays so.
    fn retire(&self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "cannot remove the socket");
        }
    }

    /// Ends it. Gives the connections that were made and not taken yet; every later one is refused
    /// by the kernel, so that none is made and never answered.
    pub(crate) fn close(self) -> Vec<UnixStream> {
        self.retire();
        // From here on connect(2) fails, also of those who found the name before.
        if let Err(error) = shutdown(&self.socket, Shutdown::Read) {
            tracing::warn!(%error, "cannot close the socket to new connections");
        }
        // Asked of the kernel itself: the runtime may not know of the last ones yet.
        let mut waiting = Vec::new();
        let Ok(socket) = self.socket.into_std() else {
            return waiting;
        };
        while let Ok((stream, _)) = socket.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = UnixStream::from_std(stream)
            {
                waiting.push(stream);
            }
        }
        waiting
    }
}

/// Makes a directory with all above it, and closes it to everybody else.
///
/// # Errors
/// [`Code::StateUnwritable`] when it cannot be made, is no directory, or belongs to another user.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    let failed = |message: String| {
        Error::new(
            Code::StateUnwritable,
            message,
            "set PYRO_STATE_DIR to a directory that is yours",
        )
    };
    let cannot = |source: io::Error| {
        failed(format!(
            "cannot prepare the state directory {}",
            path.display()
        ))
        .caused_by(source)
    };
    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
        .create(path)
        .map_err(cannot)?;
    let folder = std::fs::metadata(path).map_err(cannot)?;
    let us = rustix::process::geteuid().as_raw();
    if folder.uid() != us {
        return Err(failed(format!(
            "the state directory {} belongs to user {}",
            path.display(),
            folder.uid()
        )));
    }
    if folder.permissions().mode() & 0o777 != 0o700 {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).map_err(cannot)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o7777
    }

    #[tokio::test]
    async fn socket_and_directory_are_ours_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let state = folder.path().join("a/state");
        std::fs::create_dir_all(&state).expect("mkdir");
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o755)).expect("chmod");

        private_folder(&state).expect("made private");
        let listener = Listener::bind(&state.join("api.sock")).expect("bound");

        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(listener.path()), 0o600);
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_is_replaced() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());

        let listener = Listener::bind(&path).expect("bound again");

        assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
        drop(listener.accept().await);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("api.sock");
        std::fs::write(&path, "mine").expect("written");

        let error = Listener::bind(&path).expect_err("refused");

        assert_eq!(error.code(), Code::StateUnwritable);
        assert_eq!(std::fs::read(&path).expect("still there"), b"mine");
    }

    #[tokio::test]
    async fn only_our_own_name_is_taken_away() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("api.sock");
        let old = Listener::bind(&path).expect("bound");
        let new = Listener::bind(&path).expect("bound again");

        old.retire();
        assert!(path.exists());
        new.retire();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn whoever_waits_at_the_end_is_taken_and_nobody_after() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("api.sock");
        let listener = Listener::bind(&path).expect("bound");
        let found = folder.path().join("found");
        std::fs::hard_link(&path, &found).expect("another name");
        // Without a turn of the runtime in between, which so does not know of them.
        let connect = || std::os::unix::net::UnixStream::connect(&found);
        let clients: Vec<_> = (0..5).map(|_| connect().expect("connected")).collect();

        let waiting = listener.close();

        assert_eq!(waiting.len(), clients.len());
        let error = connect().expect_err("too late");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_long_path_is_no_obstacle() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("d".repeat(150)).join("api.sock");
        private_folder(path.parent().expect("has one")).expect("made");

        let listener = Listener::bind(&path).expect("bound");

        assert_eq!(mode(&path), 0o600);
        listener.retire();
        assert!(!path.exists());
    }
}
