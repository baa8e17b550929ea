use pretty::text;
use proptest::prelude::*;

use super::*;

mod pretty {
    /// Bytes as text, for comparisons that are to be read.
    pub(super) fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn redactor(values: &[&str]) -> Redactor {
    Redactor::new(values.iter().map(|value| value.as_bytes()))
}

/// What must come out, from the definition: every byte of every occurrence is taken out.
fn expected(values: &[Vec<u8>], input: &[u8]) -> Vec<u8> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for value in values {
        for start in 0..input.len() {
            if input[start..].starts_with(value) {
                ranges.push(start..start + value.len());
            }
        }
    }
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    let mut out = Vec::new();
    let mut at = 0;
    for range in merged {
        out.extend_from_slice(&input[at..range.start]);
        out.extend_from_slice(MARK.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(&input[at..]);
    out
}

use std::ops::Range;

fn streamed<'a>(redactor: &Redactor, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut stream = redactor.stream();
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(stream.push(chunk));
    }
    out.extend(stream.finish());
    out
}

#[test]
fn a_value_is_found_whichever_way_it_is_cut() {
    let redactor = redactor(&["s3cr3t", "tops3cr"]);
    let input = b"a s3cr3t b tops3cr c tops3cr3t d s3cr3ts3cr3t s3cr";
    let whole = "a [REDACTED] b [REDACTED] c [REDACTED] d [REDACTED][REDACTED] s3cr";

    for first in 0..=input.len() {
        for second in first..=input.len() {
            let cut = [&input[..first], &input[first..second], &input[second..]];
            assert_eq!(text(&streamed(&redactor, cut.into_iter())), whole);
        }
    }
    let bytewise = streamed(&redactor, input.chunks(1));
    assert_eq!(text(&bytewise), whole);
}

#[test]
fn a_nested_value_does_not_leave_the_rest_of_the_outer_one() {
    let redactor = redactor(&["inner", "the inner thing"]);

    assert_eq!(redactor.text("(the inner thing)"), "([REDACTED])");
    assert_eq!(redactor.text("(the inner)"), "(the [REDACTED])");
}

#[test]
fn occurrences_that_overlap_themselves_are_one() {
    let redactor = redactor(&["abab"]);

    assert_eq!(redactor.text("xabababab."), "x[REDACTED].");
    let bytewise = streamed(&redactor, b"xabababab.".chunks(1));
    assert_eq!(text(&bytewise), "x[REDACTED].");
}

#[test]
fn only_what_may_begin_a_value_is_held_back() {
    let redactor = redactor(&["abcdef"]);
    let mut stream = redactor.stream();

    assert_eq!(text(&stream.push(b"xxabc")), "xx");
    assert_eq!(stream.held(), 3);
    assert_eq!(text(&stream.push(b"x")), "abcx");
    assert_eq!(stream.held(), 0);
    assert_eq!(text(&stream.push(b"abcdef")), "[REDACTED]");
    assert_eq!(stream.held(), 0);
    assert_eq!(text(&stream.push(b"abcde")), "");
    assert_eq!(text(&stream.finish()), "abcde");
}

#[test]
fn a_value_with_newlines_is_found_as_a_terminal_prints_it() {
    let redactor = redactor(&["-----\nkey\n-----\n"]);

    assert_eq!(redactor.text("<-----\nkey\n----->"), "<[REDACTED]>");
    assert_eq!(
        redactor.text("<-----\r\nkey\r\n-----\r\n>"),
        "<[REDACTED]\r\n>"
    );
}

#[test]
fn parts_of_a_value_on_both_sides_of_a_gap_are_redacted_whichever_way_they_are_cut() {
    let redactor = redactor(&["0123456789"]);
    let after = b"456789 and 456789";
    for cut in 0..=after.len() {
        let mut stream = redactor.stream();

        let mut out = stream.push(b"a012 b01234");
        out.extend(stream.gap());
        out.extend(stream.push(&after[..cut]));
        out.extend(stream.push(&after[cut..]));
        out.extend(stream.finish());

        let whole = "a012 b[REDACTED][REDACTED] and 456789";
        assert_eq!(text(&out), whole, "{cut}");
    }
}

#[test]
fn what_may_be_the_end_of_a_value_after_a_gap_waits_for_its_own_end_and_no_longer() {
    let redactor = redactor(&["0123456789"]);
    let mut stream = redactor.stream();
    stream.gap();
    assert_eq!(text(&stream.push(b"45")), "");
    assert_eq!(stream.held(), 2);
    assert_eq!(text(&stream.push(b"x")), "45x");
    stream.gap();
    assert_eq!(text(&stream.push(b"67")), "");
    assert_eq!(text(&stream.push(b"89")), "[REDACTED]");
    stream.gap();
    assert_eq!(text(&stream.push(b"34")), "");
    assert_eq!(text(&stream.gap()), "34");
    assert_eq!(text(&stream.push(b"0123")), "");
    assert_eq!(text(&stream.finish()), "0123");
}

#[test]
fn without_values_everything_passes_at_once() {
    for redactor in [Redactor::default(), redactor(&["abc", "", "a\n\n\n"])] {
        let mut stream = redactor.stream();
        assert_eq!(text(&stream.push(b"abc")), "abc");
        assert!(stream.gap().is_empty());
        assert_eq!(text(&stream.push(b"abc")), "abc");
        assert_eq!(redactor.text("abc"), "abc");
    }
}

#[test]
fn errors_lose_values_in_all_their_parts() {
    let redactor = redactor(&["hunter22"]);
    let part = |name: &str| format!("{name} hunter22");
    let error = redactor.error(ApiError {
        code: "code".into(),
        message: part("message"),
        remedy: part("remedy"),
        detail: Some(part("detail")),
    });

    assert!(!format!("{error:?}").contains("hunter22"));
    assert_eq!(error.message, "message [REDACTED]");
}

#[test]
fn nothing_prints_values() {
    let redactor = redactor(&["hunter22"]);
    let mut stream = redactor.stream();
    stream.push(b"hunter2");

    assert!(!format!("{redactor:?} {stream:?}").contains("hunter"));
}

proptest! {
    // An alphabet of two letters finds the overlaps.
    #[test]
    fn however_a_stream_is_cut_it_is_redacted_as_defined(
        values in proptest::collection::vec("[ab]{4,9}", 1..5),
        input in "[abc]{0,80}",
        cuts in proptest::collection::vec(0usize..80, 0..8),
    ) {
        let values: Vec<Vec<u8>> = values.into_iter().map(String::into_bytes).collect();
        let redactor = Redactor::new(values.iter().map(Vec::as_slice));
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let input = input.as_bytes();

        let out = streamed(&redactor, cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]));

        prop_assert_eq!(text(&out), text(&expected(&values, input)));
        for value in &values {
            prop_assert!(!out.windows(value.len()).any(|window| window == value));
        }
    }

    #[test]
    fn what_is_held_is_shorter_than_the_longest_value(
        values in proptest::collection::vec("[ab]{4,9}", 1..5),
        input in "[ab]{0,200}",
    ) {
        let longest = values.iter().map(String::len).max().unwrap_or(0);
        let redactor = Redactor::new(values.iter().map(String::as_bytes));
        let mut stream = redactor.stream();
        for chunk in input.as_bytes().chunks(3) {
            stream.push(chunk);
            prop_assert!(stream.held() < longest);
        }
    }
}
