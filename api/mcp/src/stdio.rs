//! Serving a host that started us: one JSON message a line on standard input and output.

use rmcp::ServiceExt;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Server;

/// Serves until the host closes our standard input, and stops what then still goes on.
///
/// # Errors
/// When the host does not speak the protocol.
pub async fn serve(server: Server) -> Result<(), String> {
    let (stdin, stdout) = rmcp::transport::stdio();
    serve_on(server, stdin, stdout).await
}

/// The same on any stream.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on(
    server: Server,
    from: impl AsyncRead + Send + Unpin + 'static,
    to: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), String> {
    let transport = AsyncRwTransport::new_server(from, to);
    let running = match server.clone().serve(transport).await {
        Ok(running) => running,
        Err(error) => return Err(error.to_string()),
    };
    let ended = running.waiting().await;
    server.end().await;
    ended.map(|_| ()).map_err(|error| error.to_string())
}
