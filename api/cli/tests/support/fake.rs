//! A daemon that says what a test tells it to.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::{Value, json};

use super::Host;

/// The first line of a request, and its body.
type Request = (String, Vec<u8>);

/// Listens where `pyro` looks for its daemon, and answers every exec with `events`.
pub struct Fake {
    pub host: Host,
    /// First lines and bodies, in their order.
    requests: Receiver<Request>,
}

impl Fake {
    /// Answers an exec with `events`, what detaches or cancels one with `record`, and every other
    /// request by the end of its path; `null` is no answer at all.
    pub fn new(events: Vec<Value>, answers: Vec<(&'static str, Value)>) -> Self {
        let host = Host::new();
        fs::create_dir_all(host.path("state")).unwrap();
        let listener = UnixListener::bind(host.socket()).unwrap();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (events, answers, sender) = (events.clone(), answers.clone(), sender.clone());
                thread::spawn(move || converse(stream.unwrap(), &events, &answers, &sender));
            }
        });
        Self { host, requests }
    }

    /// Starts a command whose output is kept.
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.host
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits for a request whose line contains this, and gives its body.
    pub fn expect(&self, part: &str) -> Value {
        serde_json::from_slice(&self.body(part)).unwrap_or(Value::Null)
    }

    /// Waits for the whole standard input of a run.
    pub fn input(&self) -> Vec<u8> {
        self.body("INPUT")
    }

    fn body(&self, part: &str) -> Vec<u8> {
        let (_, body) = self
            .requests
            .iter()
            .find(|(line, _)| line.contains(part))
            .unwrap();
        body
    }
}

/// Answers the requests of a connection until it ends.
fn converse(
    stream: UnixStream,
    events: &[Value],
    answers: &[(&str, Value)],
    requests: &Sender<Request>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim().to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            chunked |= header == "transfer-encoding: chunked";
            if header.is_empty() {
                break;
            }
        }
        if chunked {
            // A run's request; what follows is its standard input.
            length = chunk(&mut reader)?;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        requests.send((first.clone(), body)).ok()?;
        let path = first.split_whitespace().nth(1)?.split('?').next()?;
        let answer = answers.iter().find(|(end, _)| path.ends_with(end));
        if first.contains("/v1/health") {
            let health = json!({
                "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(),
                "started_at": "2026-01-01T00:00:00Z", "workspaces": 1, "running": 1,
            });
            respond(&mut writer, &health)?;
        } else if let Some((_, answer)) = answer {
            if !answer.is_null() {
                respond(&mut writer, answer)?;
            }
        } else {
            write!(
                writer,
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            .ok()?;
            for event in events {
                let line = format!("{event}\n");
                write!(writer, "{:x}\r\n{line}\r\n", line.len()).ok()?;
            }
            let last = events.last()?["event"].as_str()?;
            if ["ended", "failed"].contains(&last) {
                write!(writer, "0\r\n\r\n").ok()?;
            }
        }
        if chunked {
            let mut input = Vec::new();
            loop {
                let mut end = String::new();
                reader.read_line(&mut end).ok()?;
                let length = chunk(&mut reader)?;
                let start = input.len();
                input.resize(start + length, 0);
                reader.read_exact(&mut input[start..]).ok()?;
                if length == 0 {
                    break;
                }
            }
            requests.send(("INPUT".to_string(), input)).ok()?;
            return None;
        }
    }
}

/// How long the next chunk is.
fn chunk(reader: &mut impl BufRead) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    usize::from_str_radix(line.trim(), 16).ok()
}

fn respond(writer: &mut impl Write, document: &Value) -> Option<()> {
    let body = document.to_string();
    write!(
        writer,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()
}
