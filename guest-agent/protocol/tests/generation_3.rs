//! The messages of terminals, merged outputs, secrets, connections and networks, as they cross the
//! wire and as a hostile peer may send them.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

use proptest::prelude::*;
use pyro_agent_protocol::{
    Connect, ConnectEvent, Decoder, ErrorCode, Exec, FrameHeader, JobEvent, JobId, Keep, MAX_FRAME,
    Network, Request, SECRETS_MAX, Secret, SecretName, Secrets, SignalGroup, Start, TerminalSize,
    Welcome, encode_message, parse,
};

fn text<T: serde::Serialize>(message: &T) -> String {
    let bytes = encode_message(message).unwrap();
    String::from_utf8(bytes[FrameHeader::LEN..].to_vec()).unwrap()
}

fn job() -> JobId {
    "j".parse().unwrap()
}

fn start(output: Keep, terminal: Option<TerminalSize>) -> Start {
    Start {
        job: job(),
        exec: Exec {
            argv: vec!["sh".into()],
            env: Default::default(),
            cwd: None,
            user: None,
            timeout_ms: None,
            stdin: false,
        },
        output,
        terminal,
        hold: false,
    }
}

#[test]
fn the_messages_on_the_wire_are_these() {
    let size = TerminalSize::new(120, 30).unwrap();
    let exec = r#"{"argv":["sh"],"env":{},"cwd":null,"user":null,"timeout_ms":null,"stdin":false}"#;
    for (request, expected) in [
        (
            Request::Start(start(Keep::HeadTail { bytes: 10 }, None)),
            format!(
                r#"{{"op":"start","job":"j","exec":{exec},"output":{{"keep":"head-tail","bytes":10}},"hold":false}}"#
            ),
        ),
        (
            Request::Start(start(Keep::Tail { bytes: 9 }, Some(size))),
            format!(
                r#"{{"op":"start","job":"j","exec":{exec},"output":{{"keep":"tail","bytes":9}},"terminal":{{"cols":120,"rows":30}},"hold":false}}"#
            ),
        ),
        (
            Request::SignalJob {
                job: job(),
                signal: 2,
                group: SignalGroup::Foreground,
            },
            r#"{"op":"signal-job","job":"j","signal":2,"group":"foreground"}"#.into(),
        ),
        (
            Request::ResizeJob { job: job(), size },
            r#"{"op":"resize-job","job":"j","size":{"cols":120,"rows":30}}"#.into(),
        ),
        (
            Request::WriteJob { job: job() },
            r#"{"op":"write-job","job":"j"}"#.into(),
        ),
        (
            Request::Secrets(Secrets {
                secrets: vec![Secret {
                    name: "TOKEN".parse().unwrap(),
                    size: 5,
                }],
            }),
            r#"{"op":"secrets","secrets":[{"name":"TOKEN","size":5}]}"#.into(),
        ),
        (
            Request::Connect(Connect {
                host: "localhost".into(),
                port: 80,
                timeout_ms: None,
            }),
            r#"{"op":"connect","host":"localhost","port":80}"#.into(),
        ),
    ] {
        assert_eq!(text(&request), expected);
        assert_eq!(parse::<Request>(expected.as_bytes()).unwrap(), request);
    }
    assert_eq!(text(&ConnectEvent::Connected), r#"{"event":"connected"}"#);
    let network = Network {
        address: [10, 0, 2, 15].into(),
        prefix: 24,
        gateway: [10, 0, 2, 2].into(),
        dns: vec![[10, 0, 2, 3].into()],
        mtu: 65520,
    };
    assert_eq!(
        text(&network),
        r#"{"address":"10.0.2.15","prefix":24,"gateway":"10.0.2.2","dns":["10.0.2.3"],"mtu":65520}"#
    );
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let signal = parse::<Request>(br#"{"op":"signal-job","job":"j","signal":9}"#).unwrap();
    let expected = Request::SignalJob {
        job: job(),
        signal: 9,
        group: SignalGroup::Program,
    };
    assert_eq!(signal, expected);
    let welcome = br#"{"generation":3,"realtime_ns":2,"hostname":"h","entropy":[]}"#;
    assert_eq!(parse::<Welcome>(welcome).unwrap().network, None);
    let welcome = br#"{"generation":3,"realtime_ns":2,"hostname":"h","entropy":[],"network":
        {"address":"1.2.3.4","prefix":8,"gateway":"1.0.0.1","dns":[],"mtu":1500,"vlan":7}}"#;
    assert_eq!(
        parse::<Welcome>(welcome).unwrap().network.unwrap().mtu,
        1500
    );
}

#[test]
fn a_start_that_does_not_say_how_output_is_kept_is_refused() {
    for output in [
        "",
        r#","output":{"keep":"all","bytes":1}"#,
        r#","output":{"keep":"tail"}"#,
        r#","output":{"keep":"tail","bytes":-1}"#,
        r#","capture_bytes":10"#,
    ] {
        let request = format!(r#"{{"op":"start","job":"j","exec":{{"argv":["a"]}}{output}}}"#);
        assert!(parse::<Request>(request.as_bytes()).is_err(), "{request}");
    }
}

#[test]
fn sizes_that_no_terminal_has_are_refused() {
    for (cols, rows) in [(0, 1), (1, 0), (1001, 1), (1, 1001), (65535, 65535)] {
        assert_eq!(TerminalSize::new(cols, rows), None);
        let size = format!(r#"{{"cols":{cols},"rows":{rows}}}"#);
        assert!(parse::<TerminalSize>(size.as_bytes()).is_err());
    }
    for size in [
        r#"{"cols":65536,"rows":1}"#,
        r#"{"cols":-1,"rows":1}"#,
        r#"{"cols":1}"#,
    ] {
        assert!(parse::<TerminalSize>(size.as_bytes()).is_err());
    }
    let most = TerminalSize::new(1000, 1000).unwrap();
    assert_eq!((most.cols(), most.rows()), (1000, 1000));
}

#[test]
fn names_that_no_secret_may_have_are_refused() {
    let long = "x".repeat(65);
    for name in [
        "", "1A", "a-b", "a.b", "..", ".", "a/b", "/a", "a b", "a\0", "a\n", "\u{e9}", &long,
    ] {
        assert!(name.parse::<SecretName>().is_err(), "{name:?}");
        let json = serde_json::json!({"op": "secrets", "secrets": [{"name": name, "size": 1}]});
        let error = parse::<Request>(json.to_string().as_bytes()).unwrap_err();
        assert!(
            !format!("{error:?}").contains(name) || name.len() < 3,
            "it is repeated: {error:?}"
        );
    }
    for name in ["_", "a", "TOKEN_2", &long[..64]] {
        assert_eq!(name.parse::<SecretName>().unwrap().as_str(), name);
    }
}

#[test]
fn all_secrets_that_are_allowed_are_announced_in_one_frame() {
    let secret = |number: usize| Secret {
        name: format!("{}{number:0>3}", "x".repeat(61)).parse().unwrap(),
        size: u64::MAX,
    };
    let secrets = (0..SECRETS_MAX).map(secret).collect();
    let bytes = encode_message(&Request::Secrets(Secrets { secrets })).unwrap();
    assert!(bytes.len() < MAX_FRAME / 8);
}

#[test]
fn the_new_kinds_of_failure_are_read_as_themselves() {
    for (name, expected) in [
        ("ended", ErrorCode::Ended),
        ("connection-refused", ErrorCode::ConnectionRefused),
        ("unreachable", ErrorCode::Unreachable),
        ("timed-out", ErrorCode::TimedOut),
        ("no-idea", ErrorCode::Internal),
    ] {
        let json = format!(r#"{{"event":"failed","code":"{name}","message":"m"}}"#);
        let ConnectEvent::Failed { code, .. } = parse(json.as_bytes()).unwrap() else {
            panic!("it failed")
        };
        assert_eq!(code, expected);
        assert!(matches!(
            parse(json.as_bytes()).unwrap(),
            JobEvent::Failed { .. }
        ));
    }
}

fn requests() -> impl Strategy<Value = Request> {
    let size = (1u16..=1000, 1u16..=1000);
    let size = size.prop_map(|(cols, rows)| TerminalSize::new(cols, rows).unwrap());
    let secret = ("[A-Za-z_][A-Za-z0-9_]{0,63}", any::<u64>());
    let secret = secret.prop_map(|(name, size)| Secret {
        name: name.parse().unwrap(),
        size,
    });
    prop_oneof![
        (any::<u64>(), any::<bool>(), prop::option::of(size.clone())).prop_map(
            |(bytes, tail, terminal)| {
                let output = if tail {
                    Keep::Tail { bytes }
                } else {
                    Keep::HeadTail { bytes }
                };
                Request::Start(start(output, terminal))
            }
        ),
        size.prop_map(|size| Request::ResizeJob { job: job(), size }),
        (any::<u8>(), any::<bool>()).prop_map(|(signal, foreground)| Request::SignalJob {
            job: job(),
            signal,
            group: if foreground {
                SignalGroup::Foreground
            } else {
                SignalGroup::Program
            },
        }),
        prop::collection::vec(secret, 0..5)
            .prop_map(|secrets| Request::Secrets(Secrets { secrets })),
        (".{0,40}", any::<u16>(), any::<Option<u64>>()).prop_map(|(host, port, timeout_ms)| {
            Request::Connect(Connect {
                host,
                port,
                timeout_ms,
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_request_comes_back_as_it_went_and_a_damaged_one_never_panics_a_reader(
        request in requests(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let bytes = encode_message(&request).unwrap();
        let frame = Decoder::new().decode(&mut &bytes[..]).unwrap().unwrap();
        prop_assert_eq!(frame.message::<Request>().unwrap(), request);
        let mut payload = frame.payload;
        let at = at.index(payload.len());
        payload[at] = byte;
        let _ = parse::<Request>(&payload);
        let _ = parse::<ConnectEvent>(&payload);
        let _ = parse::<Network>(&payload);
    }

    #[test]
    fn a_network_comes_back_as_it_went(
        address: [u8; 4],
        gateway: [u8; 4],
        prefix: u8,
        dns in prop::collection::vec(any::<[u8; 4]>(), 0..5),
        mtu: u16,
    ) {
        let network = Network {
            address: address.into(),
            prefix,
            gateway: gateway.into(),
            dns: dns.into_iter().map(Into::into).collect(),
            mtu,
        };
        let welcome = Welcome {
            generation: 3,
            realtime_ns: 0,
            hostname: "h".into(),
            entropy: Vec::new(),
            network: Some(network),
        };
        prop_assert_eq!(parse::<Welcome>(text(&welcome).as_bytes()).unwrap(), welcome);
    }
}
