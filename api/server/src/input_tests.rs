//! Standard input through a real socket, with a test in the place of the guest.

use std::ffi::OsString;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};

use pyro_client::operations::Run;
use pyro_client::types::{RunEvent, RunRequest, RunResult};
use pyro_client::{Client, RunStream};
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Engine, Error, Options};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use crate::api::Api;
use crate::context::{Context, Limits};
use crate::idle::Busy;
use crate::listener::Listener;
use crate::refusal::Refusal;
use crate::routes;
use crate::serve::serve_router;
use crate::stream::Source;

/// A run of which the test says what it does.
struct Command(mpsc::Receiver<RunEvent>);

impl Source<Run> for Command {
    async fn next(&mut self) -> Option<RunEvent> {
        self.0.recv().await
    }

    fn result(event: RunEvent) -> Option<Result<RunResult, Refusal>> {
        pyro_engine::RunStream::result(event)
    }
}

/// What a run's handler gives the test: events to send, and the input to read.
type Guest = (mpsc::Sender<RunEvent>, Option<DuplexStream>);

struct Server {
    folder: tempfile::TempDir,
    guests: mpsc::Receiver<Guest>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start(refuse: bool) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let state = OsString::from(folder.path());
        let paths = Paths::from_variables(|_| Some(state.clone()), None);
        let engine = Engine::open(paths, Options::default())
            .await
            .expect("an engine");
        let listener = Listener::bind(&folder.path().join("api.sock")).expect("a socket");
        let context = Context::new(engine, Limits::default(), Busy::new());
        let (sender, guests) = mpsc::channel(1);
        let api = Api::default().stream_with_input::<Run, _, _, _>(move |_, _, request, stdin| {
            let sender = sender.clone();
            async move {
                assert_eq!(request, self::request());
                if refuse {
                    return Err(Error::new(Code::Store("environment_cold"), "m", "r"));
                }
                let (events, source) = mpsc::channel(1);
                sender.send((events, stdin)).await.expect("a test");
                Ok(Command(source))
            }
        });
        let router = routes::with(api, Arc::clone(&context));
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let stopped = async {
                stopped.await.ok();
            };
            serve_router(context, router, listener, stopped).await;
        });
        Self {
            folder,
            guests,
            _stop: stop,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.folder.path().join("api.sock"))
    }

    /// A run that has begun, with the guest's side of it.
    async fn run(
        &mut self,
        stdin: impl AsyncRead + Send + 'static,
    ) -> (RunStream, mpsc::Sender<RunEvent>, DuplexStream) {
        let client = self.client();
        let stream = client
            .run_stream_with_input(&request(), stdin)
            .await
            .expect("started");
        let (events, stdin) = self.guests.recv().await.expect("a run");
        (stream, events, stdin.expect("an input"))
    }
}

fn request() -> RunRequest {
    RunRequest::new("debian:12", ["cat", "two\nlines"])
}

fn failed() -> RunEvent {
    RunEvent::Failed {
        error: Error::new(Code::GuestCrashed, "m", "r").to_api(),
    }
}

#[tokio::test]
async fn input_arrives_whole_with_its_end_while_events_come_back() {
    let mut server = Server::start(false).await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let (mut stream, events, mut stdin) = server.run(io::Cursor::new(bytes.clone())).await;

    let mut first = vec![0; 1000];
    stdin.read_exact(&mut first).await.expect("input");
    let event = RunEvent::Stdout {
        data: "eA==".into(),
    };
    events.send(event.clone()).await.expect("taken");
    assert_eq!(stream.next().await.expect("arrived"), Some(event));
    stdin.read_to_end(&mut first).await.expect("its end");

    assert!(first == bytes);
    events.send(failed()).await.expect("taken");
    assert_eq!(stream.next().await.expect("arrived"), Some(failed()));
}

#[tokio::test]
async fn without_input_there_is_none() {
    let mut server = Server::start(false).await;
    let _stream = server.client().run_stream(&request()).await.expect("begun");
    let (_, stdin) = server.guests.recv().await.expect("a run");
    assert!(stdin.is_none());
}

/// Counts what is read of it; never ends.
#[derive(Clone, Default)]
struct Endless(Arc<Mutex<u64>>);

impl Endless {
    fn taken(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = [b'y'; 4096];
        let length = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..length]);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += length as u64;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_run_that_is_refused_has_read_nothing() {
    let server = Server::start(true).await;
    let input = Endless::default();

    let error = server
        .client()
        .run_stream_with_input(&request(), input.clone())
        .await
        .expect_err("refused");

    assert_eq!((error.code(), input.taken()), ("environment_cold", 0));
}

#[tokio::test]
async fn a_run_that_ends_before_its_input_tells_its_end() {
    let mut server = Server::start(false).await;
    let (mut stream, events, stdin) = server.run(Endless::default()).await;
    drop(stdin);

    events.send(failed()).await.expect("taken");

    assert_eq!(stream.next().await.expect("arrived"), Some(failed()));
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_while_nobody_takes_its_input() {
    let mut server = Server::start(false).await;
    let input = Endless::default();
    let (stream, events, mut stdin) = server.run(input.clone()).await;
    // It flows, and then the guest takes no more: what is read comes to an end.
    let mut first = [0; 1000];
    stdin.read_exact(&mut first).await.expect("input");
    let mut taken = 0;
    while taken != input.taken() {
        taken = input.taken();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(taken < 4 << 20, "{taken} bytes are held for a guest");

    drop(stream);

    events.closed().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_the_run() {
    let mut server = Server::start(false).await;
    let path = server.folder.path().join("api.sock");
    let mut socket = tokio::net::UnixStream::connect(path)
        .await
        .expect("a socket");
    let mut line = serde_json::to_vec(&request()).expect("JSON");
    line.push(b'\n');
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\nContent-Type: \
         application/vnd.pyro.input\r\nContent-Length: {}\r\n\r\n",
        line.len() + 10
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.write_all(&line).await.expect("sent");
    socket.write_all(b"half").await.expect("sent");
    let (events, stdin) = server.guests.recv().await.expect("a run");
    let mut half = [0; 4];
    let mut stdin = stdin.expect("an input");
    stdin.read_exact(&mut half).await.expect("input");

    socket.shutdown().await.expect("closed");

    events.closed().await;
}
