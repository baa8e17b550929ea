//! Published ports, as clients on the host and an agent in a guest see them; and the process's end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use pyro_agent_protocol::{
    Connect, ConnectEvent, Decoder, ErrorCode as AgentError, Request as AgentRequest,
    encode_message,
};
use pyro_net::control::{ErrorCode, Published, Reply, Request};

use super::lab::{PATIENCE, Process, wait_for};

fn refusal(reply: Reply) -> ErrorCode {
    match reply {
        Reply::Error { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

fn client(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Takes one stream as the monitor and the agent would; the port that was asked for.
fn accept(process: &Process) -> (UnixStream, Connect) {
    let (mut stream, _) = process.vsock.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    assert_eq!(line, b"CONNECT 1024\n");
    stream.write_all(b"OK 1073741824\n").unwrap();
    let mut decoder = Decoder::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        if let Some(frame) = decoder.decode(&mut &byte[..]).unwrap() {
            match frame.message().unwrap() {
                AgentRequest::Connect(connect) => return (stream, connect),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn connected(stream: &mut UnixStream, and: &[u8]) {
    let event = encode_message(&ConnectEvent::Connected).unwrap();
    stream.write_all(&[&event[..], and].concat()).unwrap();
}

fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_connection_reaches_the_guest_s_port_and_either_side_may_end_first() {
    let mut process = Process::start(|_| ());
    let port = process.publish(None, 8080).host_port;
    let mut stream = client(port);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (mut agent, asked) = accept(&process);
    assert_eq!((&asked.host[..], asked.port), ("127.0.0.1", 8080));
    // What comes at once with the answer is not lost.
    connected(&mut agent, b"early ");
    assert_eq!(read_all(&agent), b"question");
    agent.write_all(b"answer").unwrap();
    agent.shutdown(Shutdown::Both).unwrap();
    assert_eq!(read_all(&stream), b"early answer");

    let mut stream = client(port);
    let (mut agent, _) = accept(&process);
    connected(&mut agent, b"");
    agent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&stream), b"");
    stream.write_all(b"still here").unwrap();
    drop(stream);
    assert_eq!(read_all(&agent), b"still here");
    wait_for(|| (process.stats().published_open == 0).then_some(()));
    assert_eq!(process.stats().published_connected, 2);
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    const LENGTH: usize = 16 << 20;
    let mut process = Process::start(|_| ());
    let port = process.publish(None, 80).host_port;
    let stream = client(port);
    let (mut agent, _) = accept(&process);
    connected(&mut agent, b"");
    let echo = thread::spawn(move || {
        let mut reader = agent.try_clone().unwrap();
        std::io::copy(&mut reader, &mut agent).unwrap();
    });
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at >> 8 ^ at) as u8).collect();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        read_all(&stream)
    });
    assert!(received == sent);
    echo.join().unwrap();
}

#[test]
fn what_the_guest_does_not_take_looks_broken() {
    let mut process = Process::start(|_| ());
    let port = process.publish(None, 80).host_port;
    let failed = encode_message(&ConnectEvent::Failed {
        code: AgentError::ConnectionRefused,
        message: "nobody listens".to_owned(),
    })
    .unwrap();
    let answers: [&[u8]; 5] = [
        &failed,
        b"",
        b"\xff\xff\xff\xff\x01",
        b"\x02\0\0\0\x01{}",
        b"\x02\0\0\0\x03{}",
    ];
    for answer in answers {
        let mut stream = client(port);
        let (mut agent, _) = accept(&process);
        agent.write_all(answer).unwrap();
        drop(agent);
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{answer:?}");
    }
    assert_eq!(process.stats().published_failed, 5);
    assert!(process.is_alive());
}

#[test]
fn a_monitor_that_is_gone_breaks_its_clients() {
    let mut process = Process::start(|_| ());
    let port = process.publish(None, 80).host_port;
    std::fs::remove_file(process.directory.path().join("vsock.sock")).unwrap();
    // The name is gone, the socket is not: the descriptor still leads to it.
    let stream = client(port);
    let (agent, _) = accept(&process);
    drop((stream, agent));
    let (replaced, _unused) = {
        let path = process.directory.path().join("other.sock");
        (std::os::unix::net::UnixListener::bind(path).unwrap(), ())
    };
    drop(std::mem::replace(&mut process.vsock, replaced));
    let mut stream = client(port);
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn ports_are_published_listed_and_withdrawn_with_their_connections() {
    let mut process = Process::start(|_| ());
    let first = process.publish(None, 80);
    let second = process.publish(None, 80);
    let mut both = vec![first, second];
    both.sort_by_key(|published| published.host_port);
    assert_eq!(process.ask(&Request::List), Reply::List { published: both });

    let mut stream = client(first.host_port);
    let (mut agent, _) = accept(&process);
    connected(&mut agent, b"x");
    stream.read_exact(&mut [0]).unwrap();
    let host_port = first.host_port;
    assert_eq!(process.ask(&Request::Withdraw { host_port }), Reply::Ok);
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let error = TcpStream::connect(("127.0.0.1", host_port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let again = process.ask(&Request::Withdraw { host_port });
    assert_eq!(refusal(again), ErrorCode::NotPublished);
    let published = process.publish(Some(host_port), 81);
    let expected = Published {
        host_port,
        guest_port: 81,
    };
    assert_eq!(published, expected);
}

#[test]
fn what_cannot_be_published_is_refused_with_its_reason() {
    let mut process = Process::start(|config| config.limits.published_ports = 1);
    let publish = |host_port, guest_port| Request::Publish {
        host_port,
        guest_port,
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken
        .local_addr()
        .map(|address| (address.port(), taken))
        .unwrap();
    assert_eq!(
        refusal(process.ask(&publish(Some(taken.0), 80))),
        ErrorCode::PortTaken
    );
    assert_eq!(
        refusal(process.ask(&publish(None, 0))),
        ErrorCode::InvalidRequest
    );
    // Also when root started it: it has given that up.
    assert_eq!(
        refusal(process.ask(&publish(Some(81), 80))),
        ErrorCode::PortReserved
    );
    process.publish(None, 80);
    assert_eq!(refusal(process.ask(&publish(None, 80))), ErrorCode::TooMany);

    let mut process = Process::start(|config| config.vsock_fd = None);
    assert_eq!(
        refusal(process.ask(&publish(None, 80))),
        ErrorCode::NotAllowed
    );
}

#[test]
fn connections_beyond_the_limit_are_broken_at_once() {
    let mut process = Process::start(|config| config.limits.published_connections = 1);
    let port = process.publish(None, 80).host_port;
    let _first = client(port);
    let (mut agent, _) = accept(&process);
    connected(&mut agent, b"");
    let mut second = client(port);
    assert_eq!(
        second.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(process.stats().over_limit, 1);
}

#[test]
fn it_ends_with_its_frames_and_withdraws_what_was_published() {
    let mut process = Process::start(|_| ());
    let port = process.publish(None, 80).host_port;
    process.guest = None;
    assert!(process.child.wait().unwrap().success());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn peers_come_and_go_and_nonsense_is_told() {
    let mut process = Process::start(|_| ());
    let path = process.directory.path().join("net.sock");
    let frame =
        |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat();
    // Too many, too long, and cut in pieces.
    let mut many: Vec<_> = (0..20)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    let mut lost = UnixStream::connect(&path).unwrap();
    lost.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!(read_all(&lost), b"");
    let last = many.last_mut().unwrap();
    for byte in frame(b"{\"request\":\"dance\"}") {
        last.write_all(&[byte]).unwrap();
    }
    let mut length = [0; 4];
    last.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    last.read_exact(&mut body).unwrap();
    let reply = serde_json::from_slice(&body).unwrap();
    assert_eq!(refusal(reply), ErrorCode::InvalidRequest);
    // The first peer had to go for so many.
    drop(many);
    process.control = UnixStream::connect(&path).unwrap();
    process.control.set_read_timeout(Some(PATIENCE)).unwrap();
    process.stats();
}
