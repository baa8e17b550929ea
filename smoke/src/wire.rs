//! What the two ends of an operation say to each other.
//!
//! One byte stream per operation. Both ends speak in frames: kind, stream, two spare bytes, the
//! payload's length (little endian), then the payload. The client's first frame is a [`Hello`];
//! everything after it belongs to that one operation.
//!
//! The three standard streams flow under credit: a sender may have [`WINDOW`] bytes of a stream
//! on the way, and the receiver grants more as it hands bytes on. So neither end ever stops
//! reading frames because one stream's consumer is slow, and a signal or a window always gets
//! through.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The protocol's generation: both ends must have the same one.
pub const GENERATION: u32 = 1;
/// Port inside the emulated host on which operations are served.
pub const PORT: u16 = 1024;
/// Longest payload of a frame in bytes.
pub const MAX_FRAME: usize = 128 * 1024;
/// Longest piece of a stream in one frame.
pub const CHUNK: usize = 64 * 1024;
/// Bytes of one stream that may be on the way.
pub const WINDOW: u64 = 1024 * 1024;

/// What a frame means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// JSON: [`Hello`] or [`Control`] to the host, [`Event`] from it.
    Message = 1,
    /// Bytes of a stream.
    Data = 2,
    /// The stream has ended.
    End = 3,
    /// The receiver of the stream grants so many more bytes (a `u32`, little endian).
    Window = 4,
    /// The receiver of the stream takes no more of it, as when a pipe's reader has gone.
    Refuse = 5,
}

/// A standard stream of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// Standard input; flows to the command.
    Stdin = 0,
    /// Standard output, and all output of a terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it means.
    pub kind: Kind,
    /// Which stream it is about; `Stdin` and without meaning for messages.
    pub stream: Stream,
    /// At most [`MAX_FRAME`] bytes.
    pub payload: Vec<u8>,
}

/// Client to host, first on the stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// [`GENERATION`] of the client.
    pub generation: u32,
    /// Proves that the client may read the state directory.
    pub token: String,
    /// What it wants.
    pub request: Request,
}

/// An operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Answered with [`Event::Pong`].
    Ping,
    /// Runs a command.
    Exec(Exec),
}

/// A command to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; not empty.
    pub argv: Vec<OsString>,
    /// Added to the default environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; root's home when absent.
    pub cwd: Option<PathBuf>,
    /// Runs it on a terminal of this size.
    pub terminal: Option<Size>,
    /// Collects output in memory and sends it after the end, so that sending it costs the command
    /// no (virtual) time. Standard input is empty then.
    pub deferred: bool,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Characters in a row.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// Client to host while the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// A signal for the command's process group.
    Signal(i32),
    /// Kill everything that the command started.
    Kill,
    /// The terminal has a new size.
    Resize(Size),
}

/// Host to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Answer to [`Request::Ping`].
    Pong,
    /// The command runs.
    Started,
    /// The command ended and all its output has been sent.
    Exited(Status),
    /// The command could not be run.
    Failed {
        /// The exit code that a shell has for this failure.
        code: u8,
        /// One sentence.
        message: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Message),
            2 => Some(Self::Data),
            3 => Some(Self::End),
            4 => Some(Self::Window),
            5 => Some(Self::Refuse),
            _ => None,
        }
    }
}

impl Stream {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// Writes one frame with one call to `write_all`.
///
/// # Errors
/// What writing gives; `InvalidInput` for a payload over [`MAX_FRAME`].
pub fn write_frame(
    to: &mut dyn Write,
    kind: Kind,
    stream: Stream,
    payload: &[u8],
) -> io::Result<()> {
    if payload.len() > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a frame is too long",
        ));
    }
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend_from_slice(&[kind as u8, stream as u8, 0, 0]);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    to.write_all(&bytes)
}

/// Reads one frame; `None` when the stream ended between two frames.
///
/// # Errors
/// What reading gives; `InvalidData` for what is no frame, `UnexpectedEof` inside one.
pub fn read_frame(from: &mut dyn Read) -> io::Result<Option<Frame>> {
    let mut header = [0; 8];
    let mut filled = 0;
    while filled < header.len() {
        match from.read(&mut header[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let [kind, stream, _, _, a, b, c, d] = header;
    let (Some(kind), Some(stream)) = (Kind::from_byte(kind), Stream::from_byte(stream)) else {
        return Err(invalid("a frame of an unknown kind"));
    };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_FRAME {
        return Err(invalid("a frame that is too long"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Some(Frame {
        kind,
        stream,
        payload,
    }))
}

/// Writes one JSON message.
///
/// # Errors
/// As [`write_frame`].
pub fn write_message<T: Serialize>(to: &mut dyn Write, message: &T) -> io::Result<()> {
    write_frame(
        to,
        Kind::Message,
        Stream::Stdin,
        &serde_json::to_vec(message)?,
    )
}

impl Frame {
    /// The JSON message in this frame.
    ///
    /// # Errors
    /// `InvalidData` when it is none or another one.
    pub fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        if self.kind != Kind::Message {
            return Err(invalid("a frame where a message was expected"));
        }
        serde_json::from_slice(&self.payload)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The number of bytes that a frame of kind [`Kind::Window`] grants.
    ///
    /// # Errors
    /// `InvalidData` when the payload is no number.
    pub fn window(&self) -> io::Result<u64> {
        let bytes: [u8; 4] = self
            .payload
            .as_slice()
            .try_into()
            .map_err(|_| invalid("a window without its size"))?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    }
}

/// An error about bytes that make no sense.
#[must_use]
pub fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Kind::Data, Stream::Stderr, b"x\0y").unwrap();
        let mut from = bytes.as_slice();
        let frame = read_frame(&mut from).unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                kind: Kind::Data,
                stream: Stream::Stderr,
                payload: b"x\0y".to_vec()
            }
        );
        assert!(read_frame(&mut from).unwrap().is_none());
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error_at_every_length() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, &Event::Pong).unwrap();
        for length in 1..bytes.len() {
            let error = read_frame(&mut &bytes[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
    }

    #[test]
    fn an_absurd_length_or_kind_is_refused_before_anything_is_allocated() {
        for header in [
            [2, 0, 0, 0, 255, 255, 255, 255],
            [9, 0, 0, 0, 0, 0, 0, 0],
            [2, 7, 0, 0, 0, 0, 0, 0],
        ] {
            let error = read_frame(&mut header.as_slice()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn arguments_that_are_not_utf8_survive() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![0xff, b'a']);
        let exec = Exec {
            argv: vec![odd.clone()],
            ..Exec::default()
        };
        let mut bytes = Vec::new();
        write_message(&mut bytes, &Request::Exec(exec)).unwrap();
        let frame = read_frame(&mut bytes.as_slice()).unwrap().unwrap();
        let Request::Exec(back) = frame.message().unwrap() else {
            panic!("not an exec")
        };
        assert_eq!(back.argv, [odd]);
    }
}
