//! What either side's decoder promises about bytes from a peer that means ill, tried on random ones.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use pyro_agent_protocol::{
    Captured, Change, ConnectEvent, Decoder, Entry, ErrorCode, Event, Exec, ExitStatus, Expect,
    FileEvent, FileKind, Frame, FrameError, FrameHeader, FrameKind, GuestPath, Hello, JOBS_MAX,
    JobEvent, JobId, JobInfo, JobState, MAX_FRAME, Mode, Request, Sha256, Signal, TerminalSize,
    Welcome, Write, encode, encode_into, encode_json, encode_message, parse,
};

fn kinds() -> impl Strategy<Value = FrameKind> {
    prop::sample::select(vec![
        FrameKind::Message,
        FrameKind::Stdin,
        FrameKind::Stdout,
        FrameKind::Stderr,
        FrameKind::Signal,
    ])
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame =
        (kinds(), vec(any::<u8>(), 0..700)).prop_map(|(kind, payload)| Frame { kind, payload });
    vec(frame, 0..12)
}

/// Bytes that look enough like frames to get past the header.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let piece = (
        prop_oneof![0u32..40, 262_140u32..262_150, any::<u32>()],
        0u8..8,
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|(length, kind, body)| {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.push(kind);
            bytes.extend(body);
            bytes
        });
    prop_oneof![
        vec(any::<u8>(), 0..2000),
        vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    ]
}

fn read_as_every_message(payload: &[u8]) {
    let _ = parse::<Hello>(payload);
    let _ = parse::<Welcome>(payload);
    let _ = parse::<Request>(payload);
    let _ = parse::<Event>(payload);
    let _ = parse::<Signal>(payload);
    let _ = parse::<Change>(payload);
    let _ = parse::<FileEvent>(payload);
    let _ = parse::<JobEvent>(payload);
    let _ = parse::<ConnectEvent>(payload);
}

/// Any bytes as a path.
fn guest_paths() -> impl Strategy<Value = GuestPath> {
    vec(any::<u8>(), 0..30).prop_map(GuestPath::from_bytes)
}

fn expectations() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Anything),
        Just(Expect::Absent),
        any::<[u8; 32]>().prop_map(|digest| Expect::Sha256(Sha256(digest))),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    let mode = prop_oneof![Just(Mode::Keep), any::<u32>().prop_map(Mode::Set)];
    let write = (
        guest_paths(),
        any::<u64>(),
        mode,
        expectations(),
        any::<bool>(),
    );
    prop_oneof![
        write.prop_map(|(path, size, mode, expect, follow)| Change::Write(Write {
            path,
            size,
            mode,
            expect,
            follow,
        })),
        (guest_paths(), guest_paths(), expectations()).prop_map(|(path, target, expect)| {
            Change::Symlink {
                path,
                target,
                expect,
            }
        }),
        (guest_paths(), expectations()).prop_map(|(path, expect)| Change::Delete { path, expect }),
        (guest_paths(), guest_paths(), expectations())
            .prop_map(|(from, to, expect)| Change::Rename { from, to, expect }),
        (guest_paths(), any::<u32>()).prop_map(|(path, mode)| Change::SetMode { path, mode }),
        any::<bool>().prop_map(|dry_run| Change::Commit { dry_run }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn frames_survive_any_cutting_of_the_stream(
        frames in frames(),
        cuts in vec(1usize..900, 1..50),
    ) {
        let mut bytes = Vec::new();
        for frame in &frames {
            encode_into(&mut bytes, frame.kind, &frame.payload).unwrap();
        }
        let mut decoder = Decoder::new();
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (mut piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            while let Some(frame) = decoder.decode(&mut piece).unwrap() {
                got.push(frame);
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(got, frames);
        prop_assert!(decoder.finish().is_ok());
    }

    #[test]
    fn garbage_gives_frames_or_an_error_and_never_more_memory_than_came(bytes in nearly_frames()) {
        let mut decoder = Decoder::new();
        let mut input = &bytes[..];
        let mut taken = 0;
        loop {
            let before = input.len();
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => {
                    let now = before - input.len();
                    prop_assert!(now <= frame.payload.len() + FrameHeader::LEN);
                    prop_assert!(frame.payload.len() <= MAX_FRAME);
                    taken += frame.payload.len();
                    prop_assert!(taken <= bytes.len());
                    read_as_every_message(&frame.payload);
                }
                Ok(None) => {
                    prop_assert!(input.is_empty());
                    break;
                }
                Err(FrameError::TooLong { length }) => {
                    prop_assert!(length > MAX_FRAME);
                    break;
                }
                Err(FrameError::UnknownKind { kind }) => {
                    prop_assert_eq!(FrameKind::from_byte(kind), None);
                    break;
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    #[test]
    fn random_json_never_panics_a_reader(text in "[\\[\\]{}\":,a-z0-9\\-\\. ]{0,200}") {
        read_as_every_message(text.as_bytes());
    }

    #[test]
    fn a_damaged_message_never_panics_a_reader(at in any::<prop::sample::Index>(), byte: u8) {
        let welcome = Welcome {
            generation: 1,
            realtime_ns: u64::MAX,
            hostname: "a".into(),
            entropy: vec![0, 255],
            network: None,
        };
        let mut payload = encode_message(&welcome).unwrap().split_off(FrameHeader::LEN);
        let at = at.index(payload.len());
        payload[at] = byte;
        read_as_every_message(&payload);
    }

    #[test]
    fn a_change_comes_back_as_it_went_and_a_damaged_one_never_panics_a_reader(
        change in changes(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut payload = encode_message(&change).unwrap().split_off(FrameHeader::LEN);
        prop_assert_eq!(parse::<Change>(&payload).unwrap(), change);
        let at = at.index(payload.len());
        payload[at] = byte;
        read_as_every_message(&payload);
    }

    #[test]
    fn an_entry_comes_back_as_it_went(
        path in guest_paths(),
        target in prop::option::of(guest_paths()),
        size: u64,
        mode: u32,
    ) {
        let entry = Entry { path, kind: FileKind::Symlink, size, mode, target };
        let event = FileEvent::Entries { entries: std::iter::repeat_n(entry, 3).collect() };
        let payload = encode_message(&event).unwrap().split_off(FrameHeader::LEN);
        prop_assert_eq!(parse::<FileEvent>(&payload).unwrap(), event);
    }

    #[test]
    fn an_exec_comes_back_as_it_went(
        argv in vec(".{0,20}", 1..5),
        env in prop::collection::btree_map("[A-Z]{1,5}", ".{0,10}", 0..4),
        cwd in prop::option::of(".{0,20}"),
        timeout_ms: Option<u64>,
        stdin: bool,
    ) {
        let request = Request::Exec(Exec { argv, env, cwd, user: None, timeout_ms, stdin });
        let bytes = encode_message(&request).unwrap();
        let frame = Decoder::new().decode(&mut &bytes[..]).unwrap().unwrap();
        prop_assert_eq!(frame.message::<Request>().unwrap(), request);
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let deep = "[".repeat(MAX_FRAME);
    assert!(matches!(
        parse::<Request>(deep.as_bytes()),
        Err(FrameError::Message(_))
    ));
    let hidden = format!("{{\"op\":\"ping\",\"x\":{deep}");
    assert!(matches!(
        parse::<Request>(hidden.as_bytes()),
        Err(FrameError::Message(_))
    ));
}

#[test]
fn unknown_fields_are_ignored() {
    let text = br#"{"op":"exec","argv":["true"],"colour":"red","limits":{"a":[1,2]}}"#;
    let Request::Exec(exec) = parse(text).unwrap() else {
        panic!("an exec was sent")
    };
    assert_eq!(exec.argv, ["true"]);
    assert_eq!((exec.env, exec.stdin), (BTreeMap::new(), false));
    assert_eq!(
        parse::<Request>(br#"{"op":"ping","x":1}"#).unwrap(),
        Request::Ping
    );
    let text = br#"{"generation":1,"realtime_ns":2,"hostname":"h","entropy":[],"new":{}}"#;
    assert_eq!(parse::<Welcome>(text).unwrap().hostname, "h");
}

#[test]
fn an_unknown_operation_is_a_message_error() {
    let error = parse::<Request>(br#"{"op":"fly"}"#).unwrap_err();
    assert!(matches!(error, FrameError::Message(_)));
}

#[test]
fn an_error_code_of_a_later_agent_reads_as_internal() {
    let text = br#"{"event":"failed","code":"meltdown","message":"m"}"#;
    let event = parse::<Event>(text).unwrap();
    assert_eq!(
        event,
        Event::Failed {
            code: ErrorCode::Internal,
            message: "m".into()
        }
    );
    let known = br#"{"event":"failed","code":"bad-cwd","message":"m"}"#;
    let event = parse::<Event>(known).unwrap();
    assert_eq!(
        event,
        Event::Failed {
            code: ErrorCode::BadCwd,
            message: "m".into()
        }
    );
}

#[test]
fn the_bytes_on_the_wire_are_these() {
    assert_eq!(
        encode(FrameKind::Stdout, b"ab").unwrap(),
        [2, 0, 0, 0, 3, b'a', b'b']
    );
    let ping = encode_message(&Request::Ping).unwrap();
    assert_eq!(ping, [&[13, 0, 0, 0, 1], &br#"{"op":"ping"}"#[..]].concat());
    let signal = encode_json(FrameKind::Signal, &Signal { signal: 15 }).unwrap();
    assert_eq!(
        signal,
        [&[13, 0, 0, 0, 5], &br#"{"signal":15}"#[..]].concat()
    );
    let exited = Event::Exited {
        status: ExitStatus::TimedOut,
        duration_ns: 1,
    };
    let text = br#"{"event":"exited","status":{"kind":"timed-out"},"duration_ns":1}"#;
    assert_eq!(
        encode_message(&exited).unwrap()[FrameHeader::LEN..],
        text[..]
    );
}

#[test]
fn a_message_too_long_to_send_is_refused_before_it_is_sent() {
    let welcome = Welcome {
        generation: 1,
        realtime_ns: 0,
        hostname: "h".repeat(MAX_FRAME),
        entropy: Vec::new(),
        network: None,
    };
    assert!(matches!(
        encode_message(&welcome),
        Err(FrameError::TooLong { .. })
    ));
}

#[test]
fn the_new_messages_on_the_wire_are_these() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes[FrameHeader::LEN..].to_vec()).unwrap();
    let change = Change::Write(Write {
        path: "a".into(),
        size: 3,
        mode: Mode::Set(0o755),
        expect: Expect::Absent,
        follow: false,
    });
    assert_eq!(
        text(encode_message(&change).unwrap()),
        r#"{"change":"write","path":"a","size":3,"mode":{"set":493},"expect":"absent","follow":false}"#
    );
    let short = br#"{"change":"write","path":"a","size":3}"#;
    let Change::Write(write) = parse(short).unwrap() else {
        panic!("it is a write")
    };
    assert_eq!((write.mode, write.expect), (Mode::Keep, Expect::Anything));
    let text = br#"{"op":"start","job":"7","exec":{"argv":["true"]},"output":{"keep":"head-tail","bytes":10}}"#;
    assert!(matches!(parse(text).unwrap(), Request::Start(start) if !start.hold));
    let text = br#"{"op":"list","path":"x","max_entries":1}"#;
    assert!(matches!(parse(text).unwrap(), Request::List(list) if list.beneath == "/".into()));
}

#[test]
fn names_of_jobs_are_checked_as_they_are_read() {
    let long = "x".repeat(65);
    for name in ["", "a b", "a/b", "\u{e9}", "a\0", &long] {
        assert!(name.parse::<JobId>().is_err(), "{name:?}");
        let text = serde_json::json!({"op": "forget", "job": name}).to_string();
        assert!(parse::<Request>(text.as_bytes()).is_err());
    }
    assert_eq!("A-1_b.c".parse::<JobId>().unwrap().as_str(), "A-1_b.c");
}

#[test]
fn the_longest_list_of_jobs_fits_a_frame() {
    let captured = Captured {
        written: u64::MAX,
        head: u64::MAX,
        tail: u64::MAX,
    };
    let info = JobInfo {
        job: "x".repeat(64).parse().unwrap(),
        pid: u32::MAX,
        state: JobState::Ended {
            status: ExitStatus::Signal { signal: 255 },
            duration_ns: u64::MAX,
        },
        cancelled: false,
        stdout: captured,
        stderr: captured,
        terminal: TerminalSize::new(1000, 1000),
    };
    let jobs = vec![info; JOBS_MAX];
    assert!(encode_message(&JobEvent::Jobs { jobs }).is_ok());
}
