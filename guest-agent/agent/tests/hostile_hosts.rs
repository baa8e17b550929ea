//! Streams on which nobody keeps to the protocol. The agent refuses them and goes on.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use std::io::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use pyro_agent_protocol::{
    ErrorCode, Event, Exec, FrameKind, JobEvent, MAX_FRAME, Request, encode,
};
use support::{Agent, command, runs, shell, wait_until};

/// What the agent says to these bytes, as the first on a stream.
fn refusal(agent: &Agent, bytes: &[u8]) -> String {
    let mut stream = agent.connect();
    stream.send(bytes);
    match stream.event() {
        Event::Failed {
            code: ErrorCode::InvalidRequest,
            message,
        } => {
            assert!(stream.frame().is_none());
            message
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let agent = Agent::start_anywhere();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
    let unknown_kind = refusal(&agent, &[0, 0, 0, 0, 77]);
    assert!(unknown_kind.contains("77"), "{unknown_kind}");
    let length = refusal(&agent, &[&too_long[..], &[1]].concat());
    assert!(length.contains("longer"), "{length}");
    refusal(
        &agent,
        &encode(FrameKind::Message, br#"{"op":"fly"}"#).unwrap(),
    );
    refusal(
        &agent,
        &encode(FrameKind::Message, b"\xff\xff not json").unwrap(),
    );
    refusal(&agent, &encode(FrameKind::Message, b"").unwrap());
    refusal(&agent, &encode(FrameKind::Stdin, b"too early").unwrap());
    refusal(&agent, b"GET / HTTP/1.1\r\n\r\n");
    agent.ping();
}

#[test]
fn a_frame_that_makes_no_sense_during_an_exec_ends_it() {
    let agent = Agent::start_anywhere();
    let ping = encode(FrameKind::Message, br#"{"op":"ping"}"#).unwrap();
    let no_signal = encode(FrameKind::Signal, br#"{"signal":99}"#).unwrap();
    let output = encode(FrameKind::Stdout, b"mine").unwrap();
    for bytes in [ping, no_signal, output, vec![0, 0, 0, 0, 0]] {
        let mut stream = agent.exec(command(&["sleep", "1000"]));
        stream.send(&bytes);
        let Event::Failed { code, .. } = stream.event() else {
            panic!("it was taken")
        };
        assert_eq!(code, ErrorCode::InvalidRequest);
        let pid = stream.pid;
        wait_until("the program is gone", || !runs(pid));
    }
}

#[test]
fn a_request_and_its_input_may_come_in_any_pieces() {
    let agent = Agent::start_anywhere();
    let request = Request::Exec(Exec {
        stdin: true,
        ..shell("cat; exit 8")
    });
    let mut bytes = pyro_agent_protocol::encode_message(&request).unwrap();
    bytes.extend(encode(FrameKind::Stdin, b"abc").unwrap());
    bytes.extend(encode(FrameKind::Stdin, b"").unwrap());
    let mut stream = agent.connect();
    for byte in &bytes[..40] {
        stream.send(std::slice::from_ref(byte));
    }
    stream.send(&bytes[40..]);
    assert!(matches!(stream.event(), Event::Started { .. }));
    let outcome = stream.outcome();
    assert_eq!((outcome.code(), outcome.text()), (8, "abc"));
}

#[test]
fn streams_that_say_nothing_or_half_a_thing_keep_nobody_from_being_served() {
    let agent = Agent::start_anywhere();
    let mut silent: Vec<_> = (0..200).map(|_| agent.connect()).collect();
    for stream in &mut silent[..100] {
        stream.send(&[200, 0, 0]);
    }
    assert_eq!(agent.shell("exit 1").code(), 1);
    drop(silent);
    wait_until("their descriptors are closed", || agent.descriptors() < 14);
}

/// Requests and changes that do no harm to the machine that runs the tests.
const OTHER_MESSAGES: [&str; 29] = [
    r#"{"op":"start","job":"a","exec":{"argv":["cat"],"timeout_ms":50},"output":{"keep":"tail","bytes":10},"terminal":{"cols":80,"rows":24}}"#,
    r#"{"op":"start","job":"b","exec":{"argv":["yes"],"timeout_ms":5},"output":{"keep":"tail","bytes":10}}"#,
    r#"{"op":"start","job":"b","exec":{"argv":["yes"]},"output":{"keep":"head-tail","bytes":10},"terminal":{"cols":1,"rows":1}}"#,
    r#"{"op":"write-job","job":"a"}"#,
    r#"{"op":"resize-job","job":"a","size":{"cols":1000,"rows":1}}"#,
    r#"{"op":"signal-job","job":"a","signal":15,"group":"foreground"}"#,
    r#"{"op":"secrets","secrets":[{"name":"A","size":1}]}"#,
    r#"{"op":"secrets","secrets":[]}"#,
    r#"{"op":"connect","host":"localhost","port":1}"#,
    r#"{"op":"connect","host":"::1","port":65535,"timeout_ms":18446744073709551615}"#,
    r#"{"op":"connect","host":"a.b","port":1}"#,
    r#"{"op":"start","job":"a","exec":{"argv":["cat"],"stdin":true,"timeout_ms":50},"output":{"keep":"head-tail","bytes":10}}"#,
    r#"{"op":"start","job":"b","exec":{"argv":["yes"],"timeout_ms":5},"output":{"keep":"head-tail","bytes":10},"hold":true}"#,
    r#"{"op":"attach","job":"a","follow":true,"hold":true}"#,
    r#"{"op":"attach","job":"b","stdout_from":18446744073709551615}"#,
    r#"{"op":"jobs"}"#,
    r#"{"op":"signal-job","job":"a","signal":15}"#,
    r#"{"op":"cancel-job","job":"b"}"#,
    r#"{"op":"forget","job":"a"}"#,
    r#"{"op":"forget","job":"b"}"#,
    r#"{"op":"list","path":"/usr/lib","recursive":true,"max_entries":300}"#,
    r#"{"op":"stat","path":{"hex":"2fff"}}"#,
    r#"{"op":"read","path":"/etc/passwd","max_bytes":100}"#,
    r#"{"op":"read","path":"/proc/self/maps","max_bytes":18446744073709551615}"#,
    r#"{"op":"apply","beneath":"/no/such/directory"}"#,
    r#"{"change":"write","path":"x","size":1}"#,
    r#"{"change":"write","path":"x","size":18446744073709551615}"#,
    r#"{"change":"delete","path":"x"}"#,
    r#"{"change":"commit"}"#,
];

#[test]
fn random_bytes_and_random_ends_leave_a_working_agent() {
    let agent = Agent::start_anywhere();
    let frame = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        (0u8..7, proptest::collection::vec(any::<u8>(), 0..30)).prop_map(|(kind, payload)| {
            let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
            bytes.push(kind);
            bytes.extend(payload);
            bytes
        }),
        Just(
            encode(
                FrameKind::Message,
                br#"{"op":"exec","argv":["cat"],"stdin":true}"#
            )
            .unwrap()
        ),
        Just(
            encode(
                FrameKind::Message,
                br#"{"op":"exec","argv":["true"],"timeout_ms":5}"#
            )
            .unwrap()
        ),
        prop::sample::select(OTHER_MESSAGES.to_vec()).prop_map(|text| encode(
            FrameKind::Message,
            text.as_bytes()
        )
        .unwrap()),
        Just(encode(FrameKind::Message, br#"{"op":"ping"}"#).unwrap()),
        Just(encode(FrameKind::Signal, br#"{"signal":15}"#).unwrap()),
        Just(encode(FrameKind::Stdin, b"x").unwrap()),
    ];
    let mut runner = TestRunner::new(Config::with_cases(600));
    runner
        .run(&proptest::collection::vec(frame, 0..6), |frames| {
            let mut stream = agent.connect();
            // The agent may close in between, which is its right.
            let _ = stream.socket.write_all(&frames.concat());
            Ok(())
        })
        .unwrap();
    agent.ping();
    for name in ["a", "b"] {
        let job = support::id(name);
        agent.job_answer(&Request::CancelJob { job: job.clone() });
        wait_until("it is forgotten", || {
            let answer = agent.job_answer(&Request::Forget { job: job.clone() });
            !matches!(
                answer,
                JobEvent::Failed {
                    code: ErrorCode::Busy,
                    ..
                }
            )
        });
    }
    wait_until("nothing is staged", || agent.staged() == 0);
    wait_until("their descriptors are closed", || agent.descriptors() < 14);
    assert_eq!(agent.shell("exit 1").code(), 1);
}
