//! What a request carries: a document, or a document on one line and then what a reader gives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// The body of a request.
pub(super) struct RequestBody {
    document: Bytes,
    input: Option<Input>,
}

struct Input {
    /// Answered when the request is accepted: what is refused has read nothing.
    accepted: Option<oneshot::Receiver<()>>,
    reader: Pin<Box<dyn AsyncRead + Send>>,
}

impl RequestBody {
    pub(super) fn document(document: impl Into<Bytes>) -> Self {
        Self {
            document: document.into(),
            input: None,
        }
    }

    /// The document must be on one line. The reader is not read before `accepted` is answered.
    pub(super) fn with_input(
        mut line: Vec<u8>,
        reader: impl AsyncRead + Send + 'static,
        accepted: oneshot::Receiver<()>,
    ) -> Self {
        line.push(b'\n');
        Self {
            document: line.into(),
            input: Some(Input {
                accepted: Some(accepted),
                reader: Box::pin(reader),
            }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.document.is_empty() && self.input.is_none()
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody")
            .field("document", &self.document.len())
            .field("input", &self.input.is_some())
            .finish()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.document.is_empty() {
            let document = std::mem::take(&mut self.document);
            return Poll::Ready(Some(Ok(Frame::data(document))));
        }
        let Some(input) = &mut self.input else {
            return Poll::Ready(None);
        };
        if let Some(accepted) = &mut input.accepted {
            let answer = ready!(Pin::new(accepted).poll(context));
            input.accepted = None;
            if answer.is_err() {
                self.input = None;
                return Poll::Ready(None);
            }
        }
        let mut chunk = BytesMut::zeroed(CHUNK);
        let mut buffer = ReadBuf::new(&mut chunk);
        // An error of the input is its end, as it is for a shell's pipe.
        let read = ready!(input.reader.as_mut().poll_read(context, &mut buffer));
        let length = read.map_or(0, |()| buffer.filled().len());
        if length == 0 {
            self.input = None;
            return Poll::Ready(None);
        }
        chunk.truncate(length);
        Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.input {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.document.len() as u64),
        }
    }
}
