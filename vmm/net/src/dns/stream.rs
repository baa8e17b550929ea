//! Questions over TCP: each with its length before it (RFC 1035 §4.2.2).

use super::message::{QUESTION_MAX, Verdict, verdict};

const LENGTH: usize = 2;

/// A stream of questions from the guest, of which only whole ones that may pass go on.
#[derive(Debug, Default)]
pub(crate) struct QueryStream {
    /// The beginning of a message that is not whole.
    partial: Vec<u8>,
    /// A message on its way.
    output: Vec<u8>,
}

impl QueryStream {
    /// Whether a message waits to be sent. While it does, nothing is taken.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// What is to be sent.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// This much of it was sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
    }

    /// Takes bytes of the guest, at most to the end of a message, and tells how many. `None` when
    /// they are none that may pass: the connection is over then.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0;
        if self.partial.len() < LENGTH {
            taken = bytes.len().min(LENGTH - self.partial.len());
            self.partial.extend_from_slice(&bytes[..taken]);
        }
        let Some((length, _)) = self.partial.split_first_chunk::<LENGTH>() else {
            return Some(taken);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > QUESTION_MAX {
            return None;
        }
        let missing = LENGTH + length - self.partial.len();
        let more = missing.min(bytes.len() - taken);
        self.partial.extend_from_slice(&bytes[taken..taken + more]);
        if more == missing {
            if verdict(&self.partial[LENGTH..]) != Verdict::Forward {
                return None;
            }
            self.output.append(&mut self.partial);
        }
        Some(taken + more)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::question;
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u16::try_from(message.len()).unwrap();
        [&length.to_be_bytes()[..], message].concat()
    }

    /// All that passes of `bytes`, given in pieces of this length.
    fn passed(bytes: &[u8], piece: usize) -> Option<Vec<u8>> {
        let (mut stream, mut out) = (QueryStream::default(), Vec::new());
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                piece = &piece[stream.take(piece)?..];
                out.extend(stream.output());
                stream.sent(usize::MAX);
            }
        }
        Some(out)
    }

    #[test]
    fn questions_pass_however_they_are_cut() {
        let bytes = [framed(&question(1)), framed(&question(28))].concat();
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(passed(&bytes, piece), Some(bytes.clone()));
        }
    }

    #[test]
    fn half_a_question_does_not_pass_yet() {
        let bytes = framed(&question(1));
        assert_eq!(passed(&bytes[..bytes.len() - 1], 5), Some(Vec::new()));
    }

    #[test]
    fn transfers_and_what_is_too_long_end_the_connection() {
        assert_eq!(passed(&framed(&question(252)), 1000), None);
        assert_eq!(passed(&[0xff, 0xff, 0], 1000), None);
        assert_eq!(passed(&[0, 0], 1000), None);
    }
}
