//! The client of the daemon.

mod body;
mod calls;
mod connection;
mod error;
mod launcher;
mod living;
pub mod socket;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use connection::Pool;

pub use error::ClientError;
pub use launcher::Launcher;
pub use living::ShellStream;
pub use stream::{EventStream, ExecStream, RunStream};

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// A client of the daemon. Cheap to clone; clones share their connections.
///
/// Every method must be called inside a tokio runtime with I/O and time enabled. A method's future
/// may be dropped: a read is given up, an [`exec`](Client::exec) or [`run`](Client::run) is cancelled,
/// and everything else is finished by the daemon.
///
/// `workspace` is always the id or, when no other has the same, the name of a workspace.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
}

impl Client {
    /// A client of the daemon on the socket at `path`. It connects when it is first used.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            pool: Arc::new(Pool::new(path.into())),
        }
    }

    /// A client of the daemon on the socket at `path`, connected.
    ///
    /// # Errors
    /// [`ClientError::Connect`] when nobody listens there; [`Launcher::ensure_daemon`] starts a
    /// daemon then.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), pyro_client::ClientError> {
    /// let socket = pyro_client::socket::from_environment();
    /// let client = pyro_client::Client::connect(socket).await?;
    /// for workspace in client.list().await?.workspaces {
    ///     println!("{} {:?}", workspace.workspace_id, workspace.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self> {
        let client = Self::new(path);
        client.pool.warm().await?;
        Ok(client)
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        self.pool.path()
    }
}
