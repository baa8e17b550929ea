use proptest::prelude::*;

use super::*;
use crate::redact::Redactor;

const BASH: &[u8] = include_bytes!("recordings/bash.rec");
const LESS: &[u8] = include_bytes!("recordings/less.rec");
const TOP: &[u8] = include_bytes!("recordings/top.rec");
const COLOURS: &[u8] = include_bytes!("recordings/colours.rec");

fn size(cols: u16, rows: u16) -> TerminalSize {
    TerminalSize::new(cols, rows).expect("a size")
}

fn none() -> Redactor {
    Redactor::default()
}

fn since(output: &[u8], cursor: usize) -> String {
    plain(size(80, 24), output, cursor, 65536, &none()).text
}

fn all(output: &[u8]) -> String {
    since(output, 0)
}

fn lines(from: u32, to: u32) -> String {
    let lines: Vec<_> = (from..=to).map(|n| format!("line {n}")).collect();
    lines.join("\n")
}

#[test]
fn a_progress_bar_shows_how_far_it_came() {
    let mut output = Vec::new();
    for percent in 0..=100 {
        output.extend(format!("\r[{:<10}] {percent}%", "#".repeat(percent / 10)).bytes());
    }
    assert_eq!(all(&output), "[##########] 100%");
    output.extend(b"\r\x1b[Kdone\r\n$ ");
    assert_eq!(all(&output), "done\n$");
}

#[test]
fn backspaces_and_erasures_are_applied() {
    assert_eq!(all(b"abcd\x08\x08X\x1b[K!"), "abX!");
    assert_eq!(all(b"one\r\ntwo\x1b[A\x1b[2K\r1\r\n"), "1\ntwo");
}

#[test]
fn a_shell_session_reads_as_it_looked() {
    let before_clear = BASH
        .windows(4)
        .position(|window| window == b"\x1b[2J")
        .expect("it was cleared");
    assert_eq!(
        all(&BASH[..before_clear - 3]),
        "bash-5.2# echo hallo\nhallo\nbash-5.2# echo wrong\nwrong\nbash-5.2# clear"
    );
    let last = "bash-5.2# printf \"%s\\n\" a \"\" b\na\n\nb\nbash-5.2#";
    assert!(all(BASH).ends_with(last), "{:?}", all(BASH));
    assert_eq!(since(BASH, before_clear), last);
}

#[test]
fn a_prompt_that_was_typed_behind_is_a_changed_line() {
    let output = b"$ ls\r\na b\r\n$ ";
    assert_eq!(since(output, 2), "$ ls\na b\n$");
    assert_eq!(since(output, output.len()), "");
    assert_eq!(since(output, 1000), "");
}

#[test]
fn less_shows_its_page_and_what_was_beneath_it_afterwards() {
    let page = LESS
        .windows(4)
        .position(|window| window == b"\r\x1b[K")
        .expect("a second page");
    let mut first = lines(1, 23);
    first.push_str("\n/tmp/sample/text");
    assert_eq!(all(&LESS[..page]), first);
    let quit = LESS.len() - 28;
    assert_eq!(since(&LESS[..quit], page), format!("{}\n:", lines(24, 46)));
    assert_eq!(since(LESS, quit), "");
}

#[test]
fn top_shows_its_last_screen() {
    let shown = all(TOP);

    assert!(shown.starts_with("top - 03:01:48 up  7:07,"), "{shown}");
    assert!(shown.contains("%Cpu(s): 85.7 us"), "{shown}");
    assert!(shown.contains("    1 root      20   0   51752"), "{shown}");
    assert!(!shown.contains('\u{1b}'));
    assert!(shown.lines().count() <= 24);
}

#[test]
fn colours_leave_nothing_behind() {
    let shown = all(COLOURS);

    let ends: Vec<_> = shown.lines().map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(ends, [Some("8"), Some("."), Some("..")]);
}

#[test]
fn wide_and_combining_characters_are_whole() {
    let text = "日本語 e\u{301} 🦀 end";
    assert_eq!(all(text.as_bytes()), text);
    // One that does not fit at the end of a row goes to the next one.
    let shown = plain(size(5, 4), "日本語".as_bytes(), 0, 100, &none()).text;
    assert_eq!(shown.replace(' ', ""), "日本語");
}

#[test]
fn a_line_that_wraps_is_one_line() {
    let long = "0123456789".repeat(30);
    let output = format!("{long}\r\nnext");
    assert_eq!(all(output.as_bytes()), format!("{long}\nnext"));
    // Also when its beginning has scrolled off.
    let shown = plain(size(10, 3), output.as_bytes(), 0, 65536, &none()).text;
    assert_eq!(shown, format!("{long}\nnext"));
}

#[test]
fn everything_that_scrolled_off_since_is_there() {
    let output = (1..=500)
        .map(|n| format!("line {n}\r\n"))
        .collect::<String>();
    assert_eq!(all(output.as_bytes()), lines(1, 500));
    let cursor = output.find("line 400\r").expect("there");
    assert_eq!(since(output.as_bytes(), cursor), lines(400, 500));
}

#[test]
fn a_cursor_within_a_sequence_or_a_character_is_no_trouble() {
    let output = "a\x1b[31mé\x1b[0mb\r\nnew".as_bytes();
    for cursor in 0..=output.len() {
        let shown = since(output, cursor);
        assert!(
            !shown.contains(['\u{1b}', '[', '\u{fffd}']),
            "{cursor}: {shown:?}"
        );
    }
    assert_eq!(since(output, 3), "aéb\nnew");
    assert_eq!(since(output, 7), "aéb\nnew");
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    assert_eq!(all(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    assert_eq!(
        since(b"\xff\x80\x80\x80ab", 5),
        "\u{fffd}\u{fffd}\u{fffd}\u{fffd}ab"
    );
}

#[test]
fn the_last_characters_are_kept_from_the_beginning_of_a_line() {
    let output = (1..=500)
        .map(|n| format!("line {n}\r\n"))
        .collect::<String>();
    let shown = plain(size(80, 24), output.as_bytes(), 0, 20, &none());
    assert_eq!(shown.text, lines(499, 500));
    assert!(shown.truncated);
    let shown = plain(size(80, 24), output.as_bytes(), 0, 17, &none());
    assert_eq!(shown.text, lines(499, 500));
    let shown = plain(size(80, 24), b"0123456789", 0, 4, &none());
    assert_eq!((shown.text.as_str(), shown.truncated), ("6789", true));
    let shown = plain(size(80, 24), b"0123", 0, 4, &none());
    assert_eq!((shown.text.as_str(), shown.truncated), ("0123", false));
}

#[test]
fn what_takes_too_long_is_shown_without_its_sequences() {
    let output = "\x1b[2J\x1b[31mred".repeat(1000);
    let shown = plain_within(
        size(80, 24),
        output.as_bytes(),
        0,
        10,
        &none(),
        Duration::ZERO,
    );
    assert_eq!((shown.text.as_str(), shown.truncated), ("dredredred", true));
}

#[test]
fn output_that_is_made_to_take_long_ends() {
    // Each of them rewrites a million cells.
    let output = "\x1b[2J\x1b[65535b\x1b[1000L".repeat(20_000);
    let shown = plain_within(
        size(1000, 1000),
        output.as_bytes(),
        0,
        100,
        &none(),
        Duration::from_millis(50),
    );
    assert_eq!(shown.text, "");
}

/// Output as a hostile program makes it: sequences, whole and torn, with odd parameters.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        Just(String::new()),
        Just("0".to_string()),
        Just("65535".to_string()),
        Just("99999999999999999999".to_string()),
        (0u16..30).prop_map(|n| n.to_string()),
    ];
    let csi = (
        proptest::collection::vec(number, 0..5),
        prop_oneof![Just(""), Just("?"), Just(">"), Just("!")],
        0x20u8..0x7f,
    )
        .prop_map(|(numbers, mark, last)| {
            format!("\x1b[{mark}{}{}", numbers.join(";"), char::from(last)).into_bytes()
        });
    let mode = prop_oneof![Just(1049), Just(47), Just(1047), Just(6), Just(7), Just(25)]
        .prop_flat_map(|mode| prop_oneof![Just('h'), Just('l')].prop_map(move |to| (mode, to)))
        .prop_map(|(mode, to)| format!("\x1b[?{mode}{to}").into_bytes());
    let piece = prop_oneof![
        4 => csi,
        1 => mode,
        2 => "[a-z \\r\\n\\t\u{8}日é🦀\u{301}\u{200d}]{0,12}".prop_map(String::into_bytes),
        1 => (0u8..=255).prop_map(|byte| vec![0x1b, byte]),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
        1 => Just(b"\x1b]0;".to_vec()),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn hostile_output_is_rendered_within_the_bounds(
        output in hostile(),
        cols in 1u16..20,
        rows in 1u16..8,
        cursor in 0usize..400,
        most in 0usize..200,
    ) {
        let shown = plain(size(cols, rows), &output, cursor, most, &none());

        prop_assert!(shown.text.chars().count() <= most);
        let escape = shown.text.contains('\u{1b}');
        prop_assert!(!escape);
    }
}
