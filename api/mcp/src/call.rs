//! One call, as its handler sees it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pyro_client::Client;
use tokio_util::task::TaskTracker;

use crate::{Error, Profile};

/// What a handler may use.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The daemon.
    pub(crate) client: Client,
    /// What the model was shown.
    pub(crate) profile: Profile,
    /// Where relative paths of the host start.
    pub(crate) folder: Arc<Path>,
    /// What is told as progress.
    pub(crate) status: Status,
    /// Work that is finished before the adapter ends.
    pub(crate) tasks: TaskTracker,
}

impl Call {
    /// A path of the host, which is absolute for the daemon.
    pub(crate) fn host_path(&self, field: &str, path: &str) -> Result<String, Error> {
        if path.is_empty() {
            // It would mean the whole folder.
            return Err(Error::new(
                "invalid_path",
                format!("`{field}` is empty"),
                "leave it out, or pass a path of the host; `.` is the server's own directory",
            ));
        }
        let path: PathBuf = self.folder.join(path);
        std::path::absolute(&path)
            .ok()
            .and_then(|path| path.into_os_string().into_string().ok())
            .ok_or_else(|| {
                Error::new(
                    "invalid_path",
                    format!("`{field}` is no path of the host"),
                    "pass an absolute path of a file or directory on the host",
                )
            })
    }
}

/// The last thing to be told about a call that goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status(Arc<Mutex<String>>);

impl Status {
    pub(crate) fn set(&self, text: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    pub(crate) fn get(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
