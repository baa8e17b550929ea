//! The way to the daemon, which is started when it does not run.

use pyro_client::{Client, ClientError, Launcher};

use crate::output::Failure;

/// A client of the running daemon. Starts one, from this same program, when there is none.
pub(crate) async fn client() -> Result<Client, Failure> {
    Ok(launcher()?.ensure_daemon().await?)
}

/// A client of the daemon if one runs.
pub(crate) async fn running() -> Result<Option<Client>, Failure> {
    Ok(launcher()?.find().await?)
}

/// What finds the daemon, or starts it from this same program.
pub(crate) fn launcher() -> Result<Launcher, ClientError> {
    let program = std::env::current_exe().map_err(|source| ClientError::Spawn {
        program: "pyro".into(),
        source,
    })?;
    Ok(Launcher::from_environment(program))
}
