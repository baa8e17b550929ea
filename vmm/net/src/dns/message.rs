//! What of DNS a guest may say: ordinary questions (RFC 1035 §4.1).

/// Length of a message's header.
pub(super) const HEADER: usize = 12;
/// Longest question that passes: far beyond a name and its options.
pub(super) const QUESTION_MAX: usize = 4096;

// Response codes (§4.1.1).
pub(super) const SERVFAIL: u8 = 2;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// `QTYPE`s that ask for whole zones: IXFR (RFC 1995), AXFR (RFC 1035 §3.2.3).
const TRANSFERS: [u16; 2] = [251, 252];

/// What happens to a message of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on to a resolver.
    Forward,
    /// It is answered with this code.
    Refuse(u8),
    /// It cannot even be answered.
    Drop,
}

/// What happens to `message`.
pub(super) fn verdict(message: &[u8]) -> Verdict {
    let Some(header) = message.first_chunk::<HEADER>() else {
        return Verdict::Drop;
    };
    let is_response = header[2] & 0x80 != 0;
    if is_response || message.len() > QUESTION_MAX {
        return Verdict::Drop;
    }
    // Updates and notifications are for who runs the zone.
    let opcode = header[2] >> 3 & 0xf;
    if opcode != 0 {
        return Verdict::Refuse(NOTIMP);
    }
    let questions = u16::from_be_bytes([header[4], header[5]]);
    let answers = u16::from_be_bytes([header[6], header[7]]);
    match question_end(message) {
        Some(end) if questions == 1 && answers == 0 => {
            let kind = u16::from_be_bytes([message[end - 4], message[end - 3]]);
            if TRANSFERS.contains(&kind) {
                Verdict::Refuse(REFUSED)
            } else {
                Verdict::Forward
            }
        }
        _ => Verdict::Refuse(REFUSED),
    }
}

/// Where the first question ends; `None` when it is not whole. Its name is not compressed: there
/// is nothing before it to point to.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => at += length,
            _ => return None,
        }
    }
    let end = at + 4;
    (end <= message.len()).then_some(end)
}

/// Whether `answer` is one to `question`.
pub(super) fn answers(question: &[u8], answer: &[u8]) -> bool {
    answer.len() >= HEADER && answer[..2] == question[..2] && answer[2] & 0x80 != 0
}

/// The answer to `question`, which has a header, that only says this code.
pub(super) fn refusal(question: &[u8], code: u8) -> Vec<u8> {
    let end = question_end(question);
    let mut message = question[..end.unwrap_or(HEADER)].to_vec();
    // A response; the opcode and the wish for recursion stay.
    message[2] = 0x80 | question[2] & 0x79;
    message[3] = 0x80 | code;
    let count = u8::from(end.is_some());
    message[4..HEADER].copy_from_slice(&[0, count, 0, 0, 0, 0, 0, 0]);
    message
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A question for `example.org` of this type.
    pub(in crate::dns) fn question(kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(b"\x07example\x03org\x00");
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn ordinary_questions_go_on_with_their_options() {
        for kind in [1, 28, 15, 255, 65] {
            assert_eq!(verdict(&question(kind)), Verdict::Forward);
        }
        let mut with_options = question(1);
        with_options[11] = 1;
        with_options.extend(*b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
        assert_eq!(verdict(&with_options), Verdict::Forward);
    }

    #[test]
    fn transfers_updates_and_odd_questions_are_refused() {
        assert_eq!(verdict(&question(252)), Verdict::Refuse(REFUSED));
        assert_eq!(verdict(&question(251)), Verdict::Refuse(REFUSED));
        let with = |at: usize, byte: u8| {
            let mut message = question(1);
            message[at] = byte;
            message
        };
        assert_eq!(verdict(&with(2, 5 << 3)), Verdict::Refuse(NOTIMP));
        assert_eq!(verdict(&with(5, 2)), Verdict::Refuse(REFUSED));
        assert_eq!(verdict(&with(7, 1)), Verdict::Refuse(REFUSED));
        assert_eq!(verdict(&with(12, 0xc0)), Verdict::Refuse(REFUSED));
        assert_eq!(verdict(&with(12, 63)), Verdict::Refuse(REFUSED));
    }

    #[test]
    fn responses_and_scraps_are_dropped() {
        let mut response = question(1);
        response[2] |= 0x80;
        assert_eq!(verdict(&response), Verdict::Drop);
        assert_eq!(verdict(&question(1)[..11]), Verdict::Drop);
        assert_eq!(verdict(&[]), Verdict::Drop);
        let mut long = question(1);
        long.resize(QUESTION_MAX + 1, 0);
        assert_eq!(verdict(&long), Verdict::Drop);
    }

    #[test]
    fn a_refusal_answers_its_question() {
        let asked = question(1);
        let told = refusal(&asked, SERVFAIL);
        assert!(answers(&asked, &told));
        assert_eq!(told[3] & 15, SERVFAIL);
        assert_eq!(told[HEADER..], asked[HEADER..]);
        let mut other = told.clone();
        other[0] ^= 1;
        assert!(!answers(&asked, &other));
        assert!(!answers(&asked, &asked));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(message in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Verdict::Refuse(code) = verdict(&message) {
                let told = refusal(&message, code);
                prop_assert!(told.len() >= HEADER && told.len() <= message.len());
            }
        }
    }
}
