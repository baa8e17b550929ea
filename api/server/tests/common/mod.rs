//! A real server on a temporary socket over a real engine on a temporary state directory.

#![allow(dead_code, unreachable_pub, reason = "every test file uses some of it")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyro_client::Client;
use pyro_engine::paths::Paths;
use pyro_engine::{Engine, Options};
use pyro_server::{Limits, Listener, serve};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Paths of which nothing exists but the state directory.
pub fn paths(state: &Path) -> Paths {
    let state = state.to_path_buf();
    Paths::from_variables(
        move |name| {
            let path = match name {
                "PYRO_STATE_DIR" => state.clone(),
                "PYRO_IMAGE_DIR" => state.join("images"),
                _ => return None,
            };
            Some(OsString::from(path))
        },
        None,
    )
}

pub struct Server {
    pub folder: tempfile::TempDir,
    pub engine: Arc<Engine>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        Self::on(tempfile::tempdir().expect("temporary folder"), limits).await
    }

    pub async fn on(folder: tempfile::TempDir, limits: Limits) -> Self {
        let engine = Engine::open(paths(folder.path()), Options::default())
            .await
            .expect("an engine");
        let listener = Listener::bind(&folder.path().join("api.sock")).expect("a socket");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(Arc::clone(&engine), listener, limits, async {
            stopped.await.ok();
        }));
        Self {
            folder,
            engine,
            stop: Some(stop),
            task,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.expect("connected")
    }

    /// Ends the server and gives its folder.
    pub async fn stop(mut self) -> tempfile::TempDir {
        self.stop.take().map(|stop| stop.send(()));
        self.task.await.expect("ended in order");
        self.folder
    }

    /// Sends a request as it is and gives the whole answer.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect().await;
        // The server may answer, and close, before all of it is sent.
        let _ = stream.write_all(request.as_ref()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Answer::parse(&answer)
    }

    /// Sends a request with a body.
    pub async fn send(&self, method: &str, target: &str, body: &str) -> Answer {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        self.raw(format!(
            "{method} {target} HTTP/1.1\r\nHost: pyro\r\nConnection: close\r\n{length}\r\n{body}"
        ))
        .await
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .expect("a status");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
            .collect();
        Self {
            status,
            headers,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of an error, after checking that it is one with all its parts.
    pub fn code(&self) -> String {
        assert!(self.status >= 400, "no error: {self:?}");
        let body: pyro_client::types::ErrorBody =
            serde_json::from_value(self.json()).expect("an error");
        assert!(!body.error.message.is_empty() && !body.error.remedy.is_empty());
        body.error.code
    }
}
