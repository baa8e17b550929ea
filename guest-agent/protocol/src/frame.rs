//! Frames as bytes: how they are written, and a decoder that is fed what a stream delivers.
//!
//! Nothing here does input or output, so blocking sockets, an epoll loop and an async runtime all
//! use the same code: [`encode`] gives the bytes to send, and a [`Decoder`] turns whatever pieces
//! arrive into whole [`Frame`]s. A decoder holds at most one frame, and grows only by bytes that
//! have really arrived: a peer that announces much and sends little costs little.

use serde::{Serialize, de::DeserializeOwned};

use crate::{FrameKind, MAX_FRAME};

/// What can be wrong with the bytes of a frame.
///
/// After any of these the stream has no frame boundary left to continue at: close it.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The payload is, or claims to be, longer than [`MAX_FRAME`].
    #[error("a frame of {length} bytes is longer than the {MAX_FRAME} that are allowed")]
    TooLong {
        /// How long.
        length: usize,
    },
    /// The kind byte is none of [`FrameKind`].
    #[error("frames of kind {kind} are not known")]
    UnknownKind {
        /// The byte.
        kind: u8,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    /// The payload is not the JSON that was expected, or a value cannot be written as JSON.
    #[error("a frame does not hold the message that was expected here")]
    Message(#[source] serde_json::Error),
}

impl FrameKind {
    /// The kind that this byte stands for, if any.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Message),
            2 => Some(Self::Stdin),
            3 => Some(Self::Stdout),
            4 => Some(Self::Stderr),
            5 => Some(Self::Signal),
            _ => None,
        }
    }
}

/// The five bytes before a payload, valid by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    kind: FrameKind,
    length: u32,
}

impl FrameHeader {
    /// Bytes a header takes.
    pub const LEN: usize = 5;

    /// The header of a payload of `length` bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn new(kind: FrameKind, length: usize) -> Result<Self, FrameError> {
        match u32::try_from(length) {
            Ok(short) if length <= MAX_FRAME => Ok(Self {
                kind,
                length: short,
            }),
            _ => Err(FrameError::TooLong { length }),
        }
    }

    /// Reads a header as it came from the peer.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] and [`FrameError::UnknownKind`].
    pub fn decode(bytes: [u8; Self::LEN]) -> Result<Self, FrameError> {
        let [a, b, c, d, kind] = bytes;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::UnknownKind { kind })?;
        Self::new(kind, length)
    }

    /// The header as it is sent.
    #[must_use]
    pub const fn encode(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.length.to_le_bytes();
        [a, b, c, d, self.kind as u8]
    }

    /// What the payload is.
    #[must_use]
    pub const fn kind(self) -> FrameKind {
        self.kind
    }

    /// Length of the payload, at most [`MAX_FRAME`].
    #[must_use]
    pub const fn length(self) -> usize {
        self.length as usize
    }
}

/// One whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// At most [`MAX_FRAME`] bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The payload read as a JSON message. Fields that this side does not know are ignored.
    ///
    /// # Errors
    /// [`FrameError::Message`].
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        parse(&self.payload)
    }
}

/// The bytes of one frame.
///
/// # Errors
/// [`FrameError::TooLong`]: cut raw bytes into pieces of at most [`MAX_FRAME`].
pub fn encode(kind: FrameKind, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::with_capacity(FrameHeader::LEN + payload.len().min(MAX_FRAME));
    encode_into(&mut out, kind, payload)?;
    Ok(out)
}

/// Appends the bytes of one frame to `out`, which is left as it was on an error.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode_into(out: &mut Vec<u8>, kind: FrameKind, payload: &[u8]) -> Result<(), FrameError> {
    let header = FrameHeader::new(kind, payload.len())?;
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
    Ok(())
}

/// The bytes of a frame of kind `Message` that holds `message` as JSON.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Message`].
pub fn encode_message<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    encode_json(FrameKind::Message, message)
}

/// The bytes of a frame of `kind` that holds `value` as JSON.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Message`].
pub fn encode_json<T: Serialize>(kind: FrameKind, value: &T) -> Result<Vec<u8>, FrameError> {
    let payload = serde_json::to_vec(value).map_err(FrameError::Message)?;
    encode(kind, &payload)
}

/// Reads a JSON message. Fields that this side does not know are ignored.
///
/// # Errors
/// [`FrameError::Message`].
pub fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(FrameError::Message)
}

/// Turns the pieces in which a stream arrives into frames.
///
/// ```
/// use pyro_agent_protocol::{Decoder, FrameKind, encode};
/// let bytes = encode(FrameKind::Stdin, b"hello")?;
/// let mut decoder = Decoder::new();
/// let mut first = &bytes[..3];
/// assert!(decoder.decode(&mut first)?.is_none());
/// let mut rest = &bytes[3..];
/// let frame = decoder.decode(&mut rest)?.expect("the frame is whole now");
/// assert_eq!(frame.payload, b"hello");
/// # Ok::<(), pyro_agent_protocol::FrameError>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; FrameHeader::LEN],
    head_filled: usize,
    header: Option<FrameHeader>,
    payload: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `input` up to the end of the current frame, and gives that
    /// frame when it is whole. `None` means that all of `input` is taken and more is needed, so
    /// call it in a loop until then.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] and [`FrameError::UnknownKind`], as soon as the header is there.
    /// Every later call gives the same error again.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let wanted = FrameHeader::LEN - self.head_filled;
                let piece = take(input, wanted);
                self.head[self.head_filled..][..piece.len()].copy_from_slice(piece);
                self.head_filled += piece.len();
                if self.head_filled < FrameHeader::LEN {
                    return Ok(None);
                }
                let header = FrameHeader::decode(self.head)?;
                self.header = Some(header);
                header
            }
        };
        let wanted = header.length() - self.payload.len();
        self.payload.extend_from_slice(take(input, wanted));
        if self.payload.len() < header.length() {
            return Ok(None);
        }
        self.header = None;
        self.head_filled = 0;
        Ok(Some(Frame {
            kind: header.kind(),
            payload: std::mem::take(&mut self.payload),
        }))
    }

    /// To be asked when the stream has ended: whether it ended between two frames.
    ///
    /// # Errors
    /// [`FrameError::Truncated`].
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.head_filled == 0 {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }
}

/// Takes at most `most` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_at_the_limit_is_taken_and_one_beyond_it_is_not() {
        assert!(FrameHeader::new(FrameKind::Stdin, MAX_FRAME).is_ok());
        let over = FrameHeader::new(FrameKind::Stdin, MAX_FRAME + 1);
        assert!(matches!(over, Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn an_announced_length_alone_allocates_nothing() {
        let header = FrameHeader::new(FrameKind::Stdout, MAX_FRAME)
            .unwrap()
            .encode();
        let mut decoder = Decoder::new();
        assert!(decoder.decode(&mut &header[..]).unwrap().is_none());
        assert_eq!(decoder.payload.capacity(), 0);
        assert!(matches!(decoder.finish(), Err(FrameError::Truncated)));
    }

    #[test]
    fn an_empty_payload_is_a_frame_at_once() {
        let bytes = encode(FrameKind::Stdin, b"").unwrap();
        let mut input = &bytes[..];
        let frame = Decoder::new().decode(&mut input).unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                kind: FrameKind::Stdin,
                payload: vec![]
            }
        );
        assert!(input.is_empty());
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = Decoder::new();
        let mut input: &[u8] = &[0, 0, 0, 0, 99, 1, 2, 3];
        for _ in 0..2 {
            let error = decoder.decode(&mut input).unwrap_err();
            assert!(matches!(error, FrameError::UnknownKind { kind: 99 }));
        }
    }

    #[test]
    fn a_length_of_four_gigabytes_is_refused() {
        let error = Decoder::new()
            .decode(&mut &[0xff, 0xff, 0xff, 0xff, 1][..])
            .unwrap_err();
        assert!(matches!(
            error,
            FrameError::TooLong {
                length: 0xffff_ffff
            }
        ));
    }
}
