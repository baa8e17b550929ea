//! Secrets, as the host brings them. What is in the way of their files is tried beside the code.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use pyro_agent_protocol::{
    ErrorCode, Event, FrameKind, Request, SECRET_MAX, SECRETS_MAX, Secret, Secrets, encode,
};
use support::{Agent, Stream, wait_until};

fn announce(agent: &Agent, secrets: &[(&str, usize)]) -> Stream {
    let secrets = secrets
        .iter()
        .map(|(name, size)| Secret {
            name: name.parse().unwrap(),
            size: *size as u64,
        })
        .collect();
    agent.request(&Request::Secrets(Secrets { secrets }))
}

fn refusal(stream: &mut Stream) -> ErrorCode {
    match stream.event() {
        Event::Failed { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

fn names(agent: &Agent) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(agent.secrets()) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn values_come_in_any_pieces_and_replace_those_of_before() {
    let agent = Agent::start_anywhere();
    let mut stream = announce(&agent, &[("A", 5), ("B", 0), ("LONG", 65_536)]);
    stream.stdin(b"al");
    stream.stdin(b"pha");
    let long: Vec<u8> = (0..65_536u32).map(|number| number as u8).collect();
    stream.stdin(&long[..1]);
    stream.stdin(&long[1..]);
    assert_eq!(stream.event(), Event::Done);
    assert!(stream.frame().is_none());
    assert_eq!(names(&agent), ["A", "B", "LONG"]);
    let read = |name: &str| std::fs::read(agent.secrets().join(name)).unwrap();
    assert_eq!(
        (read("A"), read("B"), read("LONG")),
        (b"alpha".to_vec(), vec![], long)
    );

    let mut stream = announce(&agent, &[("B", 2), ("C", 1)]);
    stream.stdin(b"yes");
    assert_eq!(stream.event(), Event::Done);
    assert_eq!(names(&agent), ["B", "C"]);
    assert_eq!(read("B"), b"ye");

    assert_eq!(announce(&agent, &[]).event(), Event::Done);
    assert_eq!(names(&agent), [""; 0]);
}

#[test]
fn a_host_that_breaks_off_or_breaks_the_rules_changes_nothing() {
    let agent = Agent::start_anywhere();
    let mut stream = announce(&agent, &[("KEPT", 4)]);
    stream.stdin(b"kept");
    assert_eq!(stream.event(), Event::Done);

    let mut early = announce(&agent, &[("A", 100)]);
    early.stdin(b"not all");
    agent.ping();
    drop(early);
    for bytes in [
        encode(FrameKind::Stdin, b"more than was said").unwrap(),
        encode(FrameKind::Message, b"{}").unwrap(),
        encode(FrameKind::Stdout, b"a").unwrap(),
        vec![0xff; 30],
    ] {
        let mut stream = announce(&agent, &[("A", 3)]);
        stream.send(&bytes);
        assert_eq!(refusal(&mut stream), ErrorCode::InvalidRequest);
    }
    let twice = &mut announce(&agent, &[("A", 1), ("A", 1)]);
    assert_eq!(refusal(twice), ErrorCode::InvalidRequest);
    let longer = usize::try_from(SECRET_MAX).unwrap() + 1;
    for size in [longer, usize::MAX] {
        let mut stream = announce(&agent, &[("A", size)]);
        // The host may be sending already, and gets the answer all the same.
        stream.stdin(&vec![0; longer]);
        assert_eq!(refusal(&mut stream), ErrorCode::TooMuch);
    }
    let many: Vec<String> = (0..=SECRETS_MAX)
        .map(|number| format!("S{number}"))
        .collect();
    let many: Vec<(&str, usize)> = many.iter().map(|name| (&**name, 0)).collect();
    assert_eq!(refusal(&mut announce(&agent, &many)), ErrorCode::TooMuch);
    for name in ["..", "a/b", "", "/etc/passwd", ".new-0", "A\\u0000"] {
        let text = format!(r#"{{"op":"secrets","secrets":[{{"name":"{name}","size":0}}]}}"#);
        let mut stream = agent.connect();
        stream.send(&encode(FrameKind::Message, text.as_bytes()).unwrap());
        assert_eq!(refusal(&mut stream), ErrorCode::InvalidRequest, "{name}");
    }
    assert_eq!(names(&agent), ["KEPT"]);
    wait_until("descriptors are closed", || agent.descriptors() < 15);
}

#[test]
fn no_answer_repeats_a_value() {
    let agent = Agent::start_anywhere();
    // In the wrong place: as a message, as a name, and more than was announced.
    let value = "hunter2-hunter2";
    for (request, then) in [
        (
            format!(r#"{{"op":"secrets","secrets":[{{"name":"{value}","size":1}}]}}"#),
            None,
        ),
        (
            r#"{"op":"secrets","secrets":[{"name":"A","size":1}]}"#.to_owned(),
            Some(FrameKind::Stdin),
        ),
        (
            r#"{"op":"secrets","secrets":[{"name":"A","size":1}]}"#.to_owned(),
            Some(FrameKind::Stderr),
        ),
    ] {
        let mut stream = agent.connect();
        stream.send(&encode(FrameKind::Message, request.as_bytes()).unwrap());
        if let Some(kind) = then {
            stream.send(&encode(kind, value.as_bytes()).unwrap());
        }
        let Event::Failed { message, .. } = stream.event() else {
            panic!("it was taken")
        };
        assert!(!message.contains(value), "{message}");
    }
}

#[test]
fn many_replace_at_once_and_one_of_them_is_the_last() {
    let agent = Agent::start_anywhere();
    let mut streams: Vec<_> = (0..30)
        .map(|number| {
            let name = format!("S{number}");
            let mut stream = announce(&agent, &[(&name, 9), ("SHARED", 9)]);
            stream.stdin(format!("value {number:0>3}value {number:0>3}").as_bytes());
            stream
        })
        .collect();
    for stream in &mut streams {
        assert_eq!(stream.event(), Event::Done);
    }
    let left = names(&agent);
    assert_eq!((left.len(), &*left[1]), (2, "SHARED"));
    let read = |name: &str| std::fs::read(agent.secrets().join(name)).unwrap();
    assert_eq!(read(&left[0]), read("SHARED"));
}
