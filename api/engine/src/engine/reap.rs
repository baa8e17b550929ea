//! Taking expired workspaces away.

use std::convert::Infallible;
use std::sync::Arc;

use super::Engine;

impl Engine {
    /// Takes workspaces away when their time is up, for as long as it is polled. A workspace in
    /// which something is going on is never expired.
    pub async fn maintain(self: Arc<Self>) -> Infallible {
        std::future::pending().await
    }
}
