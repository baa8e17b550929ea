//! The host's side of one exec: a command's streams carried over one connection to the agent.
//!
//! Output is written to the caller as it comes and before more is read, so a slow reader slows
//! the guest's program down instead of filling our memory. Input is read only as fast as the guest
//! takes it. The agent is not trusted: whatever it sends that the protocol does not allow ends the
//! exec with an error.

use std::io;
use std::time::Duration;

use pyro_agent_protocol as protocol;
use pyro_agent_protocol::{Decoder, ErrorCode, Event, ExitStatus, Frame, FrameError, FrameKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes read from a stream at once.
const CHUNK: usize = 64 * 1024;

/// The caller's ends of the command's streams.
#[derive(Debug)]
pub struct Streams<I, O, E> {
    /// Becomes the command's standard input; none is `/dev/null`.
    pub stdin: Option<I>,
    /// Gets the command's standard output.
    pub stdout: O,
    /// Gets the command's standard error.
    pub stderr: E,
}

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command ran.
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// How long it ran, on the guest's clock.
        duration: Duration,
    },
    /// The agent could not start the command.
    Refused {
        /// Why.
        code: ErrorCode,
        /// One sentence, the agent's.
        message: String,
    },
}

/// Why an exec has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The connection to the agent broke.
    #[error("the connection to the guest's agent ended in the middle of a command")]
    Lost(#[source] io::Error),
    /// The agent sent what the protocol does not allow.
    #[error("the guest's agent broke its protocol")]
    Protocol(#[source] FrameError),
    /// The agent sent a message where it has no place.
    #[error("the guest's agent sent {0} at the wrong time")]
    OutOfTurn(&'static str),
    /// The request is too long to be sent.
    #[error("the command is too long")]
    TooLong(#[source] FrameError),
    /// The caller's standard output or standard error cannot be written.
    #[error("the command's output cannot be written")]
    Output(#[source] io::Error),
}

/// Runs a command over a fresh connection to the agent. Dropping the future closes the connection,
/// and the agent then kills the command with all it started.
pub async fn exec<S, I, O, E>(
    stream: S,
    command: protocol::Exec,
    mut streams: Streams<I, O, E>,
) -> Result<Outcome, ExecError>
where
    S: AsyncRead + AsyncWrite,
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let command = protocol::Exec {
        stdin: streams.stdin.is_some(),
        ..command
    };
    let request =
        protocol::encode_message(&protocol::Request::Exec(command)).map_err(ExecError::TooLong)?;
    to_guest
        .write_all(&request)
        .await
        .map_err(ExecError::Lost)?;
    let stdin = streams.stdin.take();
    let input = async {
        if let Some(stdin) = stdin {
            // The guest not taking more is not our caller's problem: the exit status tells.
            let _ = send_input(stdin, &mut to_guest).await;
        }
        std::future::pending().await
    };
    let output = receive(&mut from_guest, &mut streams.stdout, &mut streams.stderr);
    tokio::select! {
        outcome = output => outcome,
        never = input => never,
    }
}

async fn send_input(
    mut stdin: impl AsyncRead + Unpin,
    guest: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ExecError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        // An error of the caller's input is its end, as it is for a shell's pipe.
        let n = stdin.read(&mut chunk).await.unwrap_or(0);
        let frame = protocol::encode(FrameKind::Stdin, &chunk[..n]).map_err(ExecError::TooLong)?;
        guest.write_all(&frame).await.map_err(ExecError::Lost)?;
        if n == 0 {
            return Ok(());
        }
    }
}

async fn receive(
    guest: &mut (impl AsyncRead + Unpin),
    stdout: &mut (impl AsyncWrite + Unpin),
    stderr: &mut (impl AsyncWrite + Unpin),
) -> Result<Outcome, ExecError> {
    let mut decoder = Decoder::new();
    let mut chunk = vec![0; CHUNK];
    let mut started = false;
    loop {
        let n = guest.read(&mut chunk).await.map_err(ExecError::Lost)?;
        if n == 0 {
            return Err(ExecError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut rest = &chunk[..n];
        while let Some(frame) = decoder.decode(&mut rest).map_err(ExecError::Protocol)? {
            match frame.kind {
                FrameKind::Stdout if started => stdout.write_all(&frame.payload).await,
                FrameKind::Stderr if started => stderr.write_all(&frame.payload).await,
                FrameKind::Message => match on_event(&frame, &mut started)? {
                    Some(outcome) => {
                        stdout.flush().await.map_err(ExecError::Output)?;
                        stderr.flush().await.map_err(ExecError::Output)?;
                        return Ok(outcome);
                    }
                    None => Ok(()),
                },
                FrameKind::Stdout | FrameKind::Stderr => {
                    return Err(ExecError::OutOfTurn("output before the start"));
                }
                FrameKind::Stdin | FrameKind::Signal => {
                    return Err(ExecError::OutOfTurn("a frame that only the host sends"));
                }
            }
            .map_err(ExecError::Output)?;
        }
    }
}

fn on_event(frame: &Frame, started: &mut bool) -> Result<Option<Outcome>, ExecError> {
    match frame.message::<Event>().map_err(ExecError::Protocol)? {
        Event::Started { .. } if !*started => {
            *started = true;
            Ok(None)
        }
        Event::Started { .. } => Err(ExecError::OutOfTurn("a second start")),
        Event::Exited {
            status,
            duration_ns,
        } if *started => Ok(Some(Outcome::Ended {
            status,
            duration: Duration::from_nanos(duration_ns),
        })),
        Event::Exited { .. } => Err(ExecError::OutOfTurn("an end before the start")),
        Event::Failed { code, message } => Ok(Some(Outcome::Refused {
            code,
            message: printable(&message),
        })),
        Event::Done => Err(ExecError::OutOfTurn("the end of another operation")),
    }
}

/// A sentence from the guest, made safe for a terminal: bounded, on one line, no control bytes.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .take(500)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    fn command() -> protocol::Exec {
        protocol::Exec {
            argv: vec!["true".into()],
            env: Default::default(),
            cwd: None,
            user: None,
            timeout_ms: None,
            stdin: false,
        }
    }

    fn event(event: &Event) -> Vec<u8> {
        protocol::encode_message(event).expect("encodes")
    }

    fn started() -> Vec<u8> {
        event(&Event::Started { pid: 9 })
    }

    fn exited(code: u8) -> Vec<u8> {
        event(&Event::Exited {
            status: ExitStatus::Code { code },
            duration_ns: 5,
        })
    }

    async fn next(guest: &mut DuplexStream, decoder: &mut Decoder) -> Frame {
        loop {
            let mut byte = [0];
            guest.read_exact(&mut byte).await.expect("more");
            if let Some(frame) = decoder.decode(&mut &byte[..]).expect("a frame") {
                return frame;
            }
        }
    }

    /// Runs an exec against an agent that says `script` and closes.
    async fn against(script: Vec<u8>) -> (Result<Outcome, ExecError>, Vec<u8>, Vec<u8>) {
        let (host, mut guest) = duplex(1 << 20);
        let agent = tokio::spawn(async move {
            next(&mut guest, &mut Decoder::new()).await;
            guest.write_all(&script).await.expect("written");
        });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let streams = Streams {
            stdin: None::<tokio::io::Empty>,
            stdout: &mut out,
            stderr: &mut err,
        };
        let outcome = exec(host, command(), streams).await;
        agent.await.expect("no panic");
        (outcome, out, err)
    }

    #[tokio::test]
    async fn output_arrives_in_its_own_stream_and_the_code_at_the_end() {
        let script = [
            started(),
            protocol::encode(FrameKind::Stdout, b"a\0\xff").expect("encodes"),
            protocol::encode(FrameKind::Stderr, b"b").expect("encodes"),
            protocol::encode(FrameKind::Stdout, b"c").expect("encodes"),
            exited(7),
        ]
        .concat();

        let (outcome, out, err) = against(script).await;

        assert_eq!(
            (out.as_slice(), err.as_slice()),
            (&b"a\0\xffc"[..], &b"b"[..])
        );
        let status = ExitStatus::Code { code: 7 };
        let duration = Duration::from_nanos(5);
        assert_eq!(outcome.expect("ended"), Outcome::Ended { status, duration });
    }

    #[tokio::test]
    async fn a_refusal_is_an_outcome_and_cannot_write_to_the_terminal() {
        let message = "no\x1b[31m such thing".to_string();
        let script = event(&Event::Failed {
            code: ErrorCode::CommandNotFound,
            message,
        });

        let (outcome, _, _) = against(script).await;

        match outcome.expect("refused") {
            Outcome::Refused {
                code: ErrorCode::CommandNotFound,
                message,
            } => {
                assert!(!message.contains('\x1b'));
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_the_protocol_forbids_is_an_error() {
        let out = protocol::encode(FrameKind::Stdout, b"x").expect("encodes");
        let input = protocol::encode(FrameKind::Stdin, b"x").expect("encodes");
        let scripts = [
            out,
            exited(0),
            [started(), started()].concat(),
            [started(), input].concat(),
            [started(), event(&Event::Done)].concat(),
        ];
        for script in scripts {
            let (outcome, _, _) = against(script).await;
            assert!(
                matches!(outcome, Err(ExecError::OutOfTurn(_))),
                "{outcome:?}"
            );
        }
        let huge = [0xff; 5].to_vec();
        assert!(matches!(against(huge).await.0, Err(ExecError::Protocol(_))));
    }

    #[tokio::test]
    async fn an_agent_that_goes_away_is_an_error() {
        assert!(matches!(
            against(started()).await.0,
            Err(ExecError::Lost(_))
        ));
    }

    #[tokio::test]
    async fn input_is_sent_whole_with_its_end_and_no_one_waits_for_it() {
        let (host, mut guest) = duplex(1000);
        let input: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let expected = input.clone();
        let agent = tokio::spawn(async move {
            let mut decoder = Decoder::new();
            let request = next(&mut guest, &mut decoder).await;
            match request.message().expect("a request") {
                protocol::Request::Exec(exec) => assert!(exec.stdin),
                other => panic!("{other:?}"),
            }
            let mut got = Vec::new();
            loop {
                let frame = next(&mut guest, &mut decoder).await;
                assert_eq!(frame.kind, FrameKind::Stdin);
                if frame.payload.is_empty() {
                    break;
                }
                got.extend(frame.payload);
            }
            assert_eq!(got, expected);
            guest
                .write_all(&[started(), exited(0)].concat())
                .await
                .expect("written");
        });
        let streams = Streams {
            stdin: Some(&input[..]),
            stdout: tokio::io::sink(),
            stderr: tokio::io::sink(),
        };

        exec(host, command(), streams).await.expect("ended");

        agent.await.expect("no panic");
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_input_that_never_comes() {
        let (host, mut guest) = duplex(1 << 16);
        let (_silent, stdin) = duplex(1);
        let agent = tokio::spawn(async move {
            next(&mut guest, &mut Decoder::new()).await;
            guest
                .write_all(&[started(), exited(3)].concat())
                .await
                .expect("written");
            guest
        });
        let streams = Streams {
            stdin: Some(stdin),
            stdout: tokio::io::sink(),
            stderr: tokio::io::sink(),
        };

        let outcome = exec(host, command(), streams).await.expect("ended");

        assert!(matches!(
            outcome,
            Outcome::Ended {
                status: ExitStatus::Code { code: 3 },
                ..
            }
        ));
        drop(agent.await.expect("no panic"));
    }
}
