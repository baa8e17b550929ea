//! The way to the daemon.

use pyro_client::{Client, ClientError, Launcher};

/// Where calls go.
#[derive(Debug, Clone)]
pub enum Daemon {
    /// A daemon that is known to run.
    At(Client),
    /// The daemon of this user, which is started whenever it does not run: it ends when it is idle,
    /// and a chat may be silent for hours.
    OnDemand(Launcher),
}

impl Daemon {
    /// A client for one call.
    pub(crate) async fn client(&self) -> Result<Client, ClientError> {
        match self {
            Self::At(client) => Ok(client.clone()),
            Self::OnDemand(launcher) => launcher.ensure_daemon().await,
        }
    }
}
