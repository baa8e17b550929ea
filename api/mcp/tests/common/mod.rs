//! A server under test: JSON-RPC lines on one side, a daemon on the other.

#![allow(dead_code, unreachable_pub, reason = "every test file uses some of it")]

use std::sync::{Arc, Mutex};

use pyro_client::Client;
use pyro_mcp::{Daemon, Profile, Server, stdio};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// A host's side of a session.
pub struct Session {
    lines: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
    to: WriteHalf<DuplexStream>,
    last: u64,
    /// What the server said unasked.
    pub notifications: Vec<Value>,
    served: Option<JoinHandle<Result<(), String>>>,
}

impl Session {
    /// A session of this revision.
    pub async fn open(client: Client, profile: Profile, revision: &str) -> (Self, Value) {
        let server = Server::new(Daemon::At(client), profile, "/host");
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (from, to) = tokio::io::split(theirs);
        let served = tokio::spawn(stdio::serve_on(server, from, to));
        let mut session = Self::on(ours);
        session.served = Some(served);
        let answer = session.initialize(revision).await;
        (session, answer)
    }

    /// A host's side of a server that somebody else serves.
    pub fn on(ours: DuplexStream) -> Self {
        let (from, to) = tokio::io::split(ours);
        Self {
            lines: BufReader::new(from).lines(),
            to,
            last: 0,
            notifications: Vec::new(),
            served: None,
        }
    }

    pub async fn initialize(&mut self, revision: &str) -> Value {
        let about = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}});
        let answer = self.request("initialize", about).await;
        self.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await;
        answer
    }

    pub async fn send(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.to
            .write_all(line.as_bytes())
            .await
            .expect("the server reads");
    }

    pub async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let id = self.last;
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await;
        id
    }

    /// The answer to a request; other messages are kept.
    pub async fn answer(&mut self, id: u64) -> Value {
        loop {
            let line = self
                .lines
                .next_line()
                .await
                .expect("readable")
                .expect("an answer");
            let message: Value = serde_json::from_str(&line).expect("JSON");
            if message["id"] == id {
                return message;
            }
            self.notifications.push(message);
        }
    }

    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        self.answer(id).await
    }

    /// A call's result.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self
            .request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await;
        assert!(answer["error"].is_null(), "{tool} {arguments}: {answer}");
        answer["result"].clone()
    }

    /// The error of a call that fails.
    pub async fn fail(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments.clone()).await;
        assert_eq!(result["isError"], true, "{tool} {arguments}: {result}");
        let structured = &result["structuredContent"];
        let text = result["content"][0]["text"].as_str().expect("a text");
        assert_eq!(
            &serde_json::from_str::<Value>(text).expect("JSON"),
            structured
        );
        let error = structured["error"].clone();
        for part in ["code", "message", "remedy"] {
            assert!(
                error[part].as_str().is_some_and(|text| !text.is_empty()),
                "{error}"
            );
        }
        error
    }

    /// The structured content of a call that works, which fits its schema with nothing missing.
    pub async fn works(&mut self, profile: Profile, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert_ne!(result["isError"], true, "{tool}: {result}");
        let structured = result["structuredContent"].clone();
        let mut schema = Value::Object(
            pyro_mcp::tools::find(profile, tool)
                .expect("a tool")
                .output(profile),
        );
        let all: Vec<_> = schema["properties"]
            .as_object()
            .expect("some")
            .keys()
            .cloned()
            .collect();
        let all: Vec<_> = all.into_iter().filter(|name| name != "next").collect();
        schema["required"] = json!(all);
        if let Err(error) = jsonschema::validate(&schema, &structured) {
            panic!("{tool}: {error}: {structured}");
        }
        let text = result["content"][0]["text"].as_str().expect("a text");
        assert_eq!(
            serde_json::from_str::<Value>(text).expect("JSON"),
            structured
        );
        structured
    }

    /// Closes the host's side and waits for the server's end.
    pub async fn close(mut self) {
        self.to.shutdown().await.expect("closed");
        drop((self.to, self.lines));
        let served = self.served.expect("served here").await;
        served.expect("no panic").expect("ended in order");
    }
}

/// A request that a fake daemon got.
pub type Request = (String, Value);

/// A daemon that answers as it is told.
pub struct Fake {
    pub folder: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
    came: Arc<Notify>,
    answers: watch::Sender<bool>,
}

impl Fake {
    /// Answers each request with what `answer` gives for its line and body; `None` is never answered.
    pub fn new(answer: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("api.sock")).expect("a socket");
        let (requests, came) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let answer = Arc::new(answer);
        let (seen, told) = (Arc::clone(&requests), Arc::clone(&came));
        let (answers, may_answer) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen, told) =
                    (Arc::clone(&answer), Arc::clone(&seen), Arc::clone(&told));
                let mut may_answer = may_answer.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some((line, body)) = read(&mut stream).await {
                        let request = (line.clone(), body.clone());
                        seen.lock().expect("whole").push(request);
                        told.notify_one();
                        let given = answer(&line, &body);
                        if may_answer.wait_for(|may| *may).await.is_err() {
                            break;
                        }
                        match given {
                            None => std::future::pending::<()>().await,
                            Some(given) => write(&mut stream, &given).await,
                        }
                    }
                });
            }
        });
        Self {
            folder,
            requests,
            came,
            answers,
        }
    }

    /// Whether requests are answered now.
    pub fn answers(&self, may: bool) {
        self.answers.send_replace(may);
    }

    pub fn client(&self) -> Client {
        Client::new(self.folder.path().join("api.sock"))
    }

    /// Waits for a request whose line starts like this; fails when none comes for a minute.
    pub async fn expect(&self, start: &str) -> Request {
        let minute = std::time::Duration::from_secs(60);
        match tokio::time::timeout(minute, self.found(start)).await {
            Ok(found) => found,
            Err(_) => panic!("no {start} came: {:?}", self.requests),
        }
    }

    async fn found(&self, start: &str) -> Request {
        loop {
            let came = self.came.notified();
            let found = self
                .requests
                .lock()
                .expect("whole")
                .iter()
                .find(|(line, _)| line.starts_with(start))
                .cloned();
            if let Some(found) = found {
                return found;
            }
            came.await;
        }
    }

    pub fn count(&self, start: &str) -> usize {
        self.requests
            .lock()
            .expect("whole")
            .iter()
            .filter(|(line, _)| line.starts_with(start))
            .count()
    }
}

async fn read(stream: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if header.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some((line.trim().trim_end_matches(" HTTP/1.1").to_string(), body))
}

async fn write(stream: &mut BufReader<UnixStream>, given: &Value) {
    let status = if given.get("error").is_some_and(Value::is_object) && given.get("state").is_none()
    {
        "409 Conflict"
    } else {
        "200 OK"
    };
    let body = given.to_string();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

/// A command's record.
pub fn record(state: &str, stdout: &str) -> Value {
    let ended = state != "running";
    json!({
        "sequence": 3, "workspace_id": "ws-aaaaaaaaaaaa", "command": ["x"], "cwd": "/workspace", "state": state,
        "exit_code": ended.then_some(0), "signal": null, "stdout": stdout, "stderr": "",
        "stdout_bytes": stdout.len(), "stderr_bytes": 0, "stdout_truncated": false, "stderr_truncated": false,
        "started_at": "2026-01-01T00:00:00Z", "duration_ms": ended.then_some(1.0), "error": null,
    })
}
