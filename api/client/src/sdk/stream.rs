//! Streamed answers: one JSON document a line.

use std::collections::VecDeque;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::connection::Connection;
use super::{ClientError, Result};
use crate::operations::Event;
use crate::types::{ExecEvent, ExecRecord, RunEvent, RunResult};

/// Most bytes of a line: a record with both its streams, every byte of them escaped, and room to spare.
const MAX_LINE: usize = 64 << 20;

/// A command that runs, event by event. Dropping it before its last event cancels the command,
/// unless that is detached.
pub type ExecStream = EventStream<ExecEvent>;
/// A run, event by event. Dropping it before its last event ends the VM.
pub type RunStream = EventStream<RunEvent>;

/// Events of an operation that goes on.
#[derive(Debug)]
pub struct EventStream<E> {
    /// Owning it is what keeps the operation going.
    connection: Option<Connection>,
    body: Incoming,
    lines: Lines,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> EventStream<E> {
    pub(super) fn new(connection: Connection, body: Incoming) -> Self {
        Self {
            connection: Some(connection),
            body,
            lines: Lines::default(),
            event: PhantomData,
        }
    }

    /// The next event; `None` after the last. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the stream ends before its last event.
    pub async fn next(&mut self) -> Result<Option<E>> {
        loop {
            if self.connection.is_none() {
                return Ok(None);
            }
            if let Some(line) = self.lines.next() {
                let event: E =
                    serde_json::from_slice(&line).map_err(|source| ClientError::Answer {
                        source: source.into(),
                    })?;
                if event.is_last() {
                    self.connection = None;
                }
                return Ok(Some(event));
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.connection = None;
                    return Err(ClientError::Broken {
                        source: Some(error.into()),
                    });
                }
                None => {
                    self.connection = None;
                    return Err(ClientError::Broken { source: None });
                }
            };
            if let Some(data) = frame.data_ref() {
                self.lines.push(data)?;
            }
        }
    }
}

impl ExecStream {
    /// Copies the command's output to the writers as it comes, and gives its record.
    ///
    /// # Errors
    /// [`ClientError::Output`] when a writer fails, which cancels the command; [`ClientError::Api`]
    /// when the product failed.
    ///
    /// ```no_run
    /// # async fn example(client: pyro_client::Client) -> Result<(), pyro_client::ClientError> {
    /// use pyro_client::types::ExecRequest;
    ///
    /// let stream = client.exec_stream("box", &ExecRequest::new(["make", "test"])).await?;
    /// let record = stream.copy_to(tokio::io::stdout(), tokio::io::stderr()).await?;
    /// println!("ended with {:?}", record.exit_code);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn copy_to(
        mut self,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
    ) -> Result<ExecRecord> {
        while let Some(event) = self.next().await? {
            match event {
                ExecEvent::Started { .. } => {}
                ExecEvent::Stdout { data } => write(&mut stdout, &data).await?,
                ExecEvent::Stderr { data } => write(&mut stderr, &data).await?,
                ExecEvent::Ended { record } => return Ok(*record),
                ExecEvent::Failed { error } => return Err(ClientError::Api(error)),
            }
        }
        Err(ClientError::Broken { source: None })
    }
}

impl RunStream {
    /// Copies the command's output to the writers as it comes, and gives the result.
    ///
    /// # Errors
    /// [`ClientError::Output`] when a writer fails, which ends the VM; [`ClientError::Api`] when the
    /// product failed.
    pub async fn copy_to(
        mut self,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
    ) -> Result<RunResult> {
        while let Some(event) = self.next().await? {
            match event {
                RunEvent::Started { .. } => {}
                RunEvent::Stdout { data } => write(&mut stdout, &data).await?,
                RunEvent::Stderr { data } => write(&mut stderr, &data).await?,
                RunEvent::Ended { result } => return Ok(*result),
                RunEvent::Failed { error } => return Err(ClientError::Api(error)),
            }
        }
        Err(ClientError::Broken { source: None })
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), data: &str) -> Result<()> {
    let data = BASE64_STANDARD
        .decode(data)
        .map_err(|source| ClientError::Answer {
            source: source.into(),
        })?;
    let failed = |source| ClientError::Output { source };
    to.write_all(&data).await.map_err(failed)?;
    to.flush().await.map_err(failed)
}

/// Cuts what arrives into lines.
#[derive(Debug, Default)]
struct Lines {
    ready: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut data: &[u8]) -> Result<()> {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&data[..end]);
            data = &data[end + 1..];
            let line = std::mem::take(&mut self.partial);
            // An empty line keeps a silent stream alive.
            if !line.is_empty() {
                self.ready.push_back(line);
            }
        }
        self.partial.extend_from_slice(data);
        if self.partial.len() > MAX_LINE {
            return Err(ClientError::Answer {
                source: "a line is too long".into(),
            });
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            for chunk in text.chunks(size) {
                lines.push(chunk).expect("short");
            }

            assert_eq!(lines.next().as_deref(), Some(&b"{\"a\":1}"[..]));
            assert_eq!(lines.next().as_deref(), Some(&b"{\"b\":2}"[..]));
            assert_eq!(lines.next(), None);
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut lines = Lines::default();

        let error = (0..=64)
            .find_map(|_| lines.push(&vec![b'x'; 1 << 20]).err())
            .expect("refused");

        assert_eq!(error.code(), "daemon_answer_invalid");
    }
}
