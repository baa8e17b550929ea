//! Operations of a guest's agent, each on a connection of its own.
//!
//! The agent is not trusted: what it sends is bounded, and what the protocol does not allow ends
//! the operation with an error.

use std::io;

use pyro_agent_protocol::{
    Decoder, ErrorCode, Event, FileEvent, Frame, FrameError, Request, encode_message,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::machine::guest::Guest;

/// Bytes read from a stream at once.
const CHUNK: usize = 64 * 1024;

/// Why an operation of the agent has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The connection could not be made, or broke.
    #[error("the connection to the guest's agent ended in the middle of an operation")]
    Lost(#[source] io::Error),
    /// The agent sent what the protocol does not allow.
    #[error("the guest's agent broke its protocol")]
    Protocol(#[source] FrameError),
    /// The agent sent a message where it has no place.
    #[error("the guest's agent sent {0} at the wrong time")]
    OutOfTurn(&'static str),
    /// The request is too long to be sent.
    #[error("the request is too long")]
    TooLong(#[source] FrameError),
    /// The agent refused.
    #[error("the guest refused: {message}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// One sentence, the agent's.
        message: String,
    },
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: UnixStream,
    decoder: Decoder,
    received: Vec<u8>,
    taken: usize,
}

impl Conversation {
    /// The stream, with what was received of it after the last frame.
    pub(crate) fn into_stream(self) -> (UnixStream, Vec<u8>) {
        let rest = self.received[self.taken..].to_vec();
        (self.stream, rest)
    }

    /// Connects and sends the request.
    pub(crate) async fn begin(guest: &Guest, request: &Request) -> Result<Self, AgentError> {
        let stream = guest.connect().await.map_err(AgentError::Lost)?;
        Self::begin_on(stream, request).await
    }

    /// Sends the request on a new connection.
    pub(crate) async fn begin_on(
        mut stream: UnixStream,
        request: &Request,
    ) -> Result<Self, AgentError> {
        let bytes = encode_message(request).map_err(AgentError::TooLong)?;
        stream.write_all(&bytes).await.map_err(AgentError::Lost)?;
        Ok(Self {
            stream,
            decoder: Decoder::new(),
            received: Vec::new(),
            taken: 0,
        })
    }

    /// The next frame. Cancel safe.
    pub(crate) async fn frame(&mut self) -> Result<Frame, AgentError> {
        loop {
            let mut rest = &self.received[self.taken..];
            let frame = self
                .decoder
                .decode(&mut rest)
                .map_err(AgentError::Protocol)?;
            self.taken = self.received.len() - rest.len();
            if let Some(frame) = frame {
                return Ok(frame);
            }
            self.received.clear();
            self.taken = 0;
            self.received.reserve(CHUNK);
            let n = self
                .stream
                .read_buf(&mut self.received)
                .await
                .map_err(AgentError::Lost)?;
            if n == 0 {
                return Err(AgentError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// An operation that is answered with [`Event::Done`].
pub(crate) async fn simple(guest: &Guest, request: &Request) -> Result<(), AgentError> {
    let mut conversation = Conversation::begin(guest, request).await?;
    let frame = conversation.frame().await?;
    match frame.message::<Event>().map_err(AgentError::Protocol)? {
        Event::Done => Ok(()),
        Event::Failed { code, message } => Err(refused(code, &message)),
        Event::Started { .. } | Event::Exited { .. } => {
            Err(AgentError::OutOfTurn("the answer to another request"))
        }
    }
}

pub(crate) fn refused(code: ErrorCode, message: &str) -> AgentError {
    AgentError::Refused {
        code,
        message: crate::exec::printable(message),
    }
}

/// Asks the guest to end all processes, write everything out, and power off.
pub(crate) async fn power_off(guest: &Guest) -> Result<(), AgentError> {
    simple(guest, &Request::PowerOff).await
}

/// Asks the guest to write everything out.
pub(crate) async fn sync(guest: &Guest) -> Result<(), AgentError> {
    simple(guest, &Request::Sync).await
}

/// [`exchange`] for a request about files.
pub(crate) async fn transact(
    guest: &Guest,
    request: &Request,
    frames: mpsc::Receiver<Vec<u8>>,
) -> Result<FileEvent, AgentError> {
    match exchange(guest, request, frames).await? {
        FileEvent::Failed { code, message } => Err(refused(code, &message)),
        event => Ok(event),
    }
}

/// [`exchange`] for a request that is answered with [`Event::Done`].
pub(crate) async fn transact_simple(
    guest: &Guest,
    request: &Request,
    frames: mpsc::Receiver<Vec<u8>>,
) -> Result<(), AgentError> {
    match exchange(guest, request, frames).await? {
        Event::Done => Ok(()),
        Event::Failed { code, message } => Err(refused(code, &message)),
        Event::Started { .. } | Event::Exited { .. } => {
            Err(AgentError::OutOfTurn("the answer to another request"))
        }
    }
}

/// Sends frames as they come and waits for the one answer, which may come before all are sent.
/// When the frames end without an answer, it is waited for.
pub(crate) async fn exchange<E: DeserializeOwned>(
    guest: &Guest,
    request: &Request,
    mut frames: mpsc::Receiver<Vec<u8>>,
) -> Result<E, AgentError> {
    let mut conversation = Conversation::begin(guest, request).await?;
    let mut unsent: Vec<u8> = Vec::new();
    let mut sent = 0;
    let mut more = true;
    loop {
        let Conversation {
            stream,
            decoder,
            received,
            ..
        } = &mut conversation;
        let mut rest = &received[..];
        let answer = decoder.decode(&mut rest).map_err(AgentError::Protocol)?;
        *received = rest.to_vec();
        if let Some(frame) = answer {
            return frame.message().map_err(AgentError::Protocol);
        }
        let (mut reader, mut writer) = stream.split();
        tokio::select! {
            read = reader.read_buf(received) => {
                if read.map_err(AgentError::Lost)? == 0 {
                    return Err(AgentError::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            written = writer.write(&unsent[sent..]), if sent < unsent.len() => {
                match written {
                    Ok(n) => sent += n,
                    // The answer says why it takes no more.
                    Err(_) => {
                        unsent.clear();
                        sent = 0;
                        more = false;
                        frames.close();
                    }
                }
            }
            frame = frames.recv(), if more && sent == unsent.len() => match frame {
                Some(frame) => {
                    unsent = frame;
                    sent = 0;
                }
                None => more = false,
            },
        }
    }
}
