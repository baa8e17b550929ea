//! Streaming through a real socket, with a source of events in a test's hand instead of a guest.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyro_client::operations::WorkspaceExec;
use pyro_client::types::{ApiError, ExecEvent, ExecRecord, ExecRequest, ExecState};
use pyro_client::{Client, ClientError};
use pyro_engine::paths::Paths;
use pyro_engine::{Engine, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::context::{Context, Limits};
use crate::idle::Busy;
use crate::listener::Listener;
use crate::refusal::Refusal;
use crate::routes;
use crate::serve::serve_router;
use crate::stream::Source;

/// A command of which the test says what it does.
struct Command(mpsc::Receiver<ExecEvent>);

impl Source<WorkspaceExec> for Command {
    async fn next(&mut self) -> Option<ExecEvent> {
        self.0.recv().await
    }

    fn result(event: ExecEvent) -> Option<Result<ExecRecord, Refusal>> {
        pyro_engine::ExecStream::result(event)
    }
}

struct Server {
    folder: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    context: Arc<Context>,
    guest: mpsc::Sender<ExecEvent>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let state = OsString::from(folder.path());
        let paths = Paths::from_variables(|_| Some(state.clone()), None);
        let engine = Engine::open(paths, Options::default())
            .await
            .expect("an engine");
        let listener = Listener::bind(&folder.path().join("api.sock")).expect("a socket");
        let context = Context::new(engine, limits, Busy::new());
        let (guest, events) = mpsc::channel(1);
        let events = Arc::new(Mutex::new(Some(events)));
        let api = Api::default().stream::<WorkspaceExec, _, _, _>(move |_, _, _| {
            let events = events.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { Ok(Command(events.expect("one command"))) }
        });
        let router = routes::with(api, Arc::clone(&context));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&context);
        let task = tokio::spawn(async move {
            let stopped = async {
                stopped.await.ok();
            };
            serve_router(serving, router, listener, stopped).await;
        });
        Self {
            folder,
            stop,
            task,
            context,
            guest,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.folder.path().join("api.sock"))
    }
}

fn out(data: &str) -> ExecEvent {
    use base64::Engine as _;
    ExecEvent::Stdout {
        data: base64::prelude::BASE64_STANDARD.encode(data),
    }
}

fn ended() -> ExecEvent {
    ExecEvent::Ended {
        record: Box::new(ExecRecord {
            sequence: 7,
            workspace_id: "ws-aaaaaaaaaaaa".into(),
            command: vec!["true".into()],
            cwd: "/workspace".into(),
            state: ExecState::Exited,
            exit_code: Some(3),
            signal: None,
            stdout: "hello".into(),
            stderr: String::new(),
            stdout_bytes: 5,
            stderr_bytes: 0,
            stdout_truncated: false,
            stderr_truncated: false,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration_ms: Some(1.5),
            error: None,
        }),
    }
}

fn failed() -> ExecEvent {
    ExecEvent::Failed {
        error: ApiError {
            code: "guest_crashed".into(),
            message: "m".into(),
            remedy: "r".into(),
            detail: None,
        },
    }
}

fn request() -> ExecRequest {
    ExecRequest::new(["true"])
}

#[tokio::test]
async fn events_arrive_while_the_command_runs() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let mut stream = client.exec_stream("w", &request()).await.expect("started");

    // Each is seen before the next one exists.
    for event in [ExecEvent::Started { sequence: 7 }, out("hello"), ended()] {
        server.guest.send(event.clone()).await.expect("taken");
        assert_eq!(stream.next().await.expect("arrived"), Some(event));
    }
    assert_eq!(stream.next().await.expect("ended"), None);
}

#[tokio::test]
async fn output_is_copied_and_the_record_given() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let stream = client.exec_stream("w", &request()).await.expect("started");
    let guest = server.guest.clone();
    tokio::spawn(async move {
        for event in [
            ExecEvent::Started { sequence: 7 },
            out("hel"),
            out("lo"),
            ended(),
        ] {
            guest.send(event).await.expect("taken");
        }
    });
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());

    let record = stream
        .copy_to(&mut stdout, &mut stderr)
        .await
        .expect("ended");

    assert_eq!((stdout.as_slice(), stderr.len()), (&b"hello"[..], 0));
    assert_eq!((record.sequence, record.exit_code), (7, Some(3)));
}

#[tokio::test]
async fn without_events_the_answer_is_the_record() {
    let server = Server::start(Limits::default()).await;
    let guest = server.guest.clone();
    tokio::spawn(async move {
        for event in [ExecEvent::Started { sequence: 7 }, out("hello"), ended()] {
            guest.send(event).await.expect("taken");
        }
    });

    let record = server.client().exec("w", &request()).await.expect("ended");

    assert_eq!((record.sequence, record.stdout.as_str()), (7, "hello"));
}

#[tokio::test]
async fn a_failure_after_the_start_is_an_error_either_way() {
    let server = Server::start(Limits::default()).await;
    server.guest.send(failed()).await.expect("taken");
    let error = server
        .client()
        .exec("w", &request())
        .await
        .expect_err("failed");
    assert_eq!(error.code(), "guest_crashed");

    let server = Server::start(Limits::default()).await;
    server.guest.send(failed()).await.expect("taken");
    let stream = server
        .client()
        .exec_stream("w", &request())
        .await
        .expect("started");
    let error = stream.copy_to(tokio::io::sink(), tokio::io::sink()).await;
    assert_eq!(error.expect_err("failed").code(), "guest_crashed");
}

#[tokio::test]
async fn events_that_just_end_are_no_success() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let mut stream = client.exec_stream("w", &request()).await.expect("started");
    let Server {
        guest,
        folder: _folder,
        task: _task,
        stop: _stop,
        ..
    } = server;
    drop(guest);

    let Some(ExecEvent::Failed { error }) = stream.next().await.expect("an event") else {
        panic!("no failure");
    };
    assert_eq!(error.code, "command_lost");
}

#[tokio::test]
async fn a_dropped_stream_cancels_the_command() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let mut stream = client.exec_stream("w", &request()).await.expect("started");
    server.guest.send(out("x")).await.expect("taken");
    stream.next().await.expect("arrived");

    drop(stream);

    // A silent command, too: nothing is written that could fail.
    server.guest.closed().await;
}

#[tokio::test]
async fn a_dropped_call_cancels_the_command() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let call = tokio::spawn(async move { client.exec("w", &request()).await });
    // Taken: the command runs.
    server.guest.send(out("x")).await.expect("taken");
    server.guest.send(out("x")).await.expect("taken");

    call.abort();

    server.guest.closed().await;
}

#[tokio::test]
async fn a_reader_that_pauses_holds_the_guest_and_not_memory() {
    // However impatient the server is with other answers.
    let stall = Duration::from_millis(50);
    let server = Server::start(Limits {
        stall,
        ..Limits::default()
    })
    .await;
    let mut stream = tokio::net::UnixStream::connect(server.folder.path().join("api.sock"))
        .await
        .expect("connected");
    let request = "POST /v1/workspaces/w/exec HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\
                   Content-Length: 18\r\n\r\n{\"command\":[\"yes\"]}";
    let request = request.replace("18", "19");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let chunk = out(&"y".repeat(48 << 10));
    let mut sent = 0;
    // Until nothing is taken for much longer than the server's patience.
    while tokio::time::timeout(10 * stall, server.guest.send(chunk.clone()))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 64, "it takes all that the guest writes");
    }

    // Reading goes on where it stopped, and nothing is lost.
    let guest = server.guest.clone();
    tokio::spawn(async move { guest.send(ended()).await });
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while !answer.ends_with(b"\r\n0\r\n\r\n") {
        let read = stream.read(&mut buffer).await.expect("read");
        assert_ne!(read, 0, "cut off after {} bytes", answer.len());
        answer.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(text.matches(r#""event":"stdout""#).count(), sent);
    assert!(text.contains(r#""event":"ended""#));
}

#[tokio::test]
async fn a_stream_is_told_when_the_daemon_ends() {
    let drain = Duration::from_millis(50);
    let server = Server::start(Limits {
        drain,
        ..Limits::default()
    })
    .await;
    let client = server.client();
    let mut stream = client.exec_stream("w", &request()).await.expect("started");
    server.guest.send(out("x")).await.expect("taken");
    stream.next().await.expect("arrived");

    server.stop.send(()).expect("it runs");

    let Some(ExecEvent::Failed { error }) = stream.next().await.expect("an event") else {
        panic!("no failure");
    };
    assert_eq!(error.code, "daemon_stopping");
    server.task.await.expect("ended in order");
    server.guest.closed().await;
}

#[tokio::test]
async fn a_stream_that_ends_in_time_is_not_cut_by_the_end_of_the_daemon() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let mut stream = client.exec_stream("w", &request()).await.expect("started");
    server.stop.send(()).expect("it runs");
    // Nobody new is let in, so it is ending.
    let error = loop {
        match client.health().await {
            Err(error @ ClientError::Connect { .. }) => break error,
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(error.code(), "daemon_unreachable");

    server.guest.send(ended()).await.expect("taken");

    assert!(matches!(
        stream.next().await.expect("arrived"),
        Some(ExecEvent::Ended { .. })
    ));
    server.task.await.expect("ended in order");
}

#[tokio::test]
async fn a_running_command_is_in_the_metrics_and_keeps_the_daemon() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let stream = client.exec_stream("w", &request()).await.expect("started");
    let text = client.metrics().await.expect("answered");
    assert!(text.contains("pyro_execs_total 1") && text.contains("pyro_execs_running 1"));
    let idle = server.context.engine.idle();
    let day = Duration::ZERO;
    let ended = crate::idle::idle_for(&server.context.busy, idle, day);
    tokio::pin!(ended);
    assert!(futures_util::FutureExt::now_or_never(&mut ended).is_none());

    drop(stream);

    ended.await;
}
