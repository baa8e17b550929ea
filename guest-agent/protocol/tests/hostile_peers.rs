//! What either side's decoder promises about bytes from a peer that means ill, tried on random ones.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use pyro_agent_protocol::{
    Decoder, ErrorCode, Event, Exec, ExitStatus, Frame, FrameError, FrameHeader, FrameKind, Hello,
    MAX_FRAME, Request, Signal, Welcome, encode, encode_into, encode_json, encode_message, parse,
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
        };
        let mut payload = encode_message(&welcome).unwrap().split_off(FrameHeader::LEN);
        let at = at.index(payload.len());
        payload[at] = byte;
        read_as_every_message(&payload);
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
    };
    assert!(matches!(
        encode_message(&welcome),
        Err(FrameError::TooLong { .. })
    ));
}
