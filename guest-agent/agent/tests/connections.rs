//! Streams to ports of the guest: here, of this machine's loopback.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pyro_agent_protocol::{
    CONNECTIONS_MAX, Connect, ConnectEvent, ErrorCode, Event, FrameKind, Request, encode,
};
use sha2::{Digest as _, Sha256};
use support::{Agent, Stream, wait_until};

fn request(host: &str, port: u16) -> Request {
    Request::Connect(Connect {
        host: host.to_owned(),
        port,
        timeout_ms: None,
    })
}

/// A raw stream to a port, which must be there.
fn connect(agent: &Agent, port: u16) -> UnixStream {
    let mut stream = agent.request(&request("127.0.0.1", port));
    assert_eq!(stream.message::<ConnectEvent>(), ConnectEvent::Connected);
    raw(stream)
}

fn raw(stream: Stream) -> UnixStream {
    assert!(stream.is_at_a_frames_end());
    stream.socket
}

fn refusal(stream: &mut Stream) -> ErrorCode {
    match stream.message() {
        ConnectEvent::Failed { code, .. } => {
            assert!(stream.frame().is_none());
            code
        }
        ConnectEvent::Connected => panic!("it is connected"),
    }
}

/// A listener and its port.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn patient(socket: TcpStream) -> TcpStream {
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket
}

/// A connection and the guest's end of it.
fn pair(agent: &Agent) -> (UnixStream, TcpStream) {
    let (listener, port) = listener();
    let host = connect(agent, port);
    (host, patient(listener.accept().unwrap().0))
}

/// Bytes that no mix-up leaves as they are.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let agent = Agent::start_anywhere();
    let (mut host, mut guest) = pair(&agent);
    let mut piece = [0; 100];
    guest.write_all(b"welcome").unwrap();
    let length = host.read(&mut piece).unwrap();
    assert_eq!(&piece[..length], b"welcome");
    host.write_all(b"\x00\x01request").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    guest.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"\x00\x01request");
    // The other way is still open.
    guest.write_all(b"answer").unwrap();
    drop(guest);
    let mut all = Vec::new();
    host.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"answer");
    drop(host);

    let (mut host, mut guest) = pair(&agent);
    guest.shutdown(Shutdown::Write).unwrap();
    assert_eq!(host.read(&mut piece).unwrap(), 0);
    host.write_all(b"still").unwrap();
    drop(host);
    let mut all = Vec::new();
    guest.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"still");
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn much_goes_both_ways_at_once_unharmed() {
    let agent = Agent::start_anywhere();
    let (host, guest) = pair(&agent);
    let length = 64 << 20;
    let (there, back) = (noise(1, length), noise(2, length));
    let digest = |bytes: &[u8]| Sha256::digest(bytes);
    let send = |mut socket: Box<dyn Write + Send>, bytes: Vec<u8>| {
        std::thread::spawn(move || {
            socket.write_all(&bytes).unwrap();
            socket
        })
    };
    let receive = |mut socket: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            socket.read_to_end(&mut all).unwrap();
            all
        })
    };
    let expected = (digest(&there), digest(&back));
    let sending = send(Box::new(host.try_clone().unwrap()), there);
    let answering = send(Box::new(guest.try_clone().unwrap()), back);
    let at_guest = receive(Box::new(guest.try_clone().unwrap()));
    let at_host = receive(Box::new(host.try_clone().unwrap()));
    sending.join().unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    answering.join().unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    let got = (at_guest.join().unwrap(), at_host.join().unwrap());
    assert_eq!((got.0.len(), got.1.len()), (length, length));
    assert_eq!((digest(&got.0), digest(&got.1)), expected);
    drop((host, guest));
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn what_cannot_be_reached_is_told_apart() {
    let agent = Agent::start_anywhere();
    let (free, port) = listener();
    drop(free);
    for host in ["127.0.0.1", "localhost"] {
        let mut stream = agent.request(&request(host, port));
        assert_eq!(refusal(&mut stream), ErrorCode::ConnectionRefused, "{host}");
    }
    // Nobody is connected to everybody.
    let mut everybody = agent.request(&request("255.255.255.255", 80));
    assert_eq!(refusal(&mut everybody), ErrorCode::Unreachable);
    for (host, port) in [
        ("127.0.0.1", 0),
        ("example.com", 80),
        ("127.0.0.1:80", 80),
        ("LOCALHOST", 80),
        ("", 80),
        ("1.2.3", 80),
        ("/run/socket", 80),
    ] {
        let mut stream = agent.request(&request(host, port));
        assert_eq!(refusal(&mut stream), ErrorCode::InvalidRequest, "{host:?}");
    }
    let long = "9".repeat(200_000);
    assert_eq!(
        refusal(&mut agent.request(&request(&long, 80))),
        ErrorCode::InvalidRequest
    );
}

#[test]
fn localhost_is_either_loopback() {
    let agent = Agent::start_anywhere();
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return eprintln!("skipped: no IPv6 here");
    };
    let port = listener.local_addr().unwrap().port();
    for host in ["localhost", "::1"] {
        let mut stream = agent.request(&request(host, port));
        assert_eq!(
            stream.message::<ConnectEvent>(),
            ConnectEvent::Connected,
            "{host}"
        );
        listener.accept().unwrap();
    }
}

#[test]
fn a_slow_attempt_keeps_nobody_waiting_and_ends_in_time() {
    let agent = Agent::start_anywhere();
    // With its queue full, a listener answers nobody any more.
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().unwrap().port();
    let _first = connect(&agent, port);
    let slow = |timeout_ms| {
        agent.request(&Request::Connect(Connect {
            host: "127.0.0.1".to_owned(),
            port,
            timeout_ms,
        }))
    };
    let given_up = slow(None);
    let mut late: Vec<_> = (0..10).map(|_| slow(Some(300))).collect();
    let before = agent.ticks();
    assert_eq!(agent.shell("echo here").text(), "here");
    drop(given_up);
    for stream in &mut late {
        assert_eq!(refusal(stream), ErrorCode::TimedOut);
    }
    assert!(agent.ticks() - before < 20, "the agent spins");
    drop(late);
    wait_until("descriptors are closed", || agent.descriptors() < 16);
}

#[test]
fn there_are_only_so_many_connections_and_idle_ones_cost_no_thread_and_no_time() {
    let agent = Agent::start_anywhere();
    let (listener, port) = listener();
    let threads = || {
        std::fs::read_dir(format!("/proc/{}/task", agent.pid()))
            .unwrap()
            .count()
    };
    let before = threads();
    let mut pairs: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| (connect(&agent, port), patient(listener.accept().unwrap().0)))
        .collect();
    let mut more = agent.request(&request("127.0.0.1", port));
    assert_eq!(refusal(&mut more), ErrorCode::OutOfResources);
    assert_eq!(agent.shell("echo here").text(), "here");
    assert_eq!(threads(), before);
    let ticks = agent.ticks();
    std::thread::sleep(Duration::from_millis(200));
    assert!(agent.ticks() - ticks <= 2, "the agent spins");
    for (number, (host, guest)) in pairs.iter_mut().enumerate() {
        host.write_all(&[number as u8]).unwrap();
        let mut byte = [0];
        guest.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [number as u8]);
    }
    pairs.pop();
    wait_until("there is room again", || {
        let mut stream = agent.request(&request("127.0.0.1", port));
        stream.message::<ConnectEvent>() == ConnectEvent::Connected
    });
    drop(pairs);
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn who_does_not_read_holds_up_the_other_side_and_nobody_else() {
    let agent = Agent::start_anywhere();
    let (mut host, mut guest) = pair(&agent);
    for socket in [&host as &dyn SetNonblocking, &guest] {
        socket.nonblocking();
    }
    let fill = |socket: &mut dyn Write| {
        let mut sent = 0usize;
        let mut idle = 0;
        while idle < 20 {
            match socket.write(&[7; 65_536]) {
                Ok(length) => (sent, idle) = (sent + length, 0),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
        sent
    };
    let (there, back) = (fill(&mut host), fill(&mut guest));
    assert!(there < 64 << 20 && back < 64 << 20, "{there} {back}");
    let ticks = agent.ticks();
    std::thread::sleep(Duration::from_millis(200));
    assert!(agent.ticks() - ticks <= 2, "the agent spins");
    let (mut other, mut others) = pair(&agent);
    other.write_all(b"x").unwrap();
    others.read_exact(&mut [0]).unwrap();
    let drain = |socket: &mut dyn Read, most: usize| {
        let (mut got, mut piece) = (0, vec![0; 1 << 20]);
        wait_until("all has come", || {
            while let Ok(length @ 1..) = socket.read(&mut piece) {
                assert!(piece[..length].iter().all(|byte| *byte == 7));
                got += length;
            }
            got == most
        });
    };
    drain(&mut guest, there);
    drain(&mut host, back);
}

trait SetNonblocking {
    fn nonblocking(&self);
}

impl SetNonblocking for UnixStream {
    fn nonblocking(&self) {
        self.set_nonblocking(true).unwrap();
    }
}

impl SetNonblocking for TcpStream {
    fn nonblocking(&self) {
        self.set_nonblocking(true).unwrap();
    }
}

#[test]
fn all_that_was_sent_arrives_though_the_host_has_gone() {
    let agent = Agent::start_anywhere();
    let (mut host, mut guest) = pair(&agent);
    let bytes = noise(3, 3 << 20);
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || host.write_all(&sent).unwrap());
    let mut all = Vec::new();
    guest.read_to_end(&mut all).unwrap();
    sending.join().unwrap();
    assert!(all == bytes);
}

#[test]
fn a_side_that_breaks_off_ends_both() {
    let agent = Agent::start_anywhere();
    // The guest's side resets, with bytes unread.
    let (mut host, guest) = pair(&agent);
    host.write_all(b"unread").unwrap();
    wait_until("it has come", || guest.peek(&mut [0; 6]).unwrap_or(0) == 6);
    drop(guest);
    let mut rest = Vec::new();
    let _ = host.read_to_end(&mut rest);
    assert!(rest.is_empty());
    wait_until("descriptors are closed", || agent.descriptors() < 14);
    // The host goes while the guest sends.
    let (host, mut guest) = pair(&agent);
    drop(host);
    let error = loop {
        match guest.write_all(&[1; 4096]) {
            Ok(()) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => break error.kind(),
        }
    };
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    assert!(matches!(error, BrokenPipe | ConnectionReset), "{error}");
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn a_host_that_says_something_too_early_is_not_connected() {
    let agent = Agent::start_anywhere();
    let (_listener, port) = listener();
    let connect = encode(
        FrameKind::Message,
        format!(r#"{{"op":"connect","host":"127.0.0.1","port":{port}}}"#).as_bytes(),
    )
    .unwrap();
    for early in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        encode(FrameKind::Stdin, b"x").unwrap(),
        vec![1],
    ] {
        let mut stream = agent.connect();
        stream.send(&[&connect[..], &early].concat());
        // It is refused, or closed without having carried anything.
        if let Some(frame) = stream.frame() {
            let Ok(Event::Failed { code, .. }) = frame.message() else {
                panic!("{frame:?}")
            };
            assert_eq!(code, ErrorCode::InvalidRequest);
        }
    }
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let agent = Agent::start_anywhere();
    let (listener, port) = listener();
    let echo = std::thread::spawn(move || {
        for socket in listener.incoming().take(500) {
            let mut socket = socket.unwrap();
            let mut piece = [0; 1000];
            let length = socket.read(&mut piece).unwrap_or(0);
            let _ = socket.write_all(&piece[..length]);
        }
    });
    for number in 0..500u32 {
        let mut host = connect(&agent, port);
        match number % 4 {
            0 => drop(host),
            1 => host.shutdown(Shutdown::Both).unwrap(),
            _ => {
                host.write_all(&number.to_le_bytes()).unwrap();
                let mut back = [0; 4];
                host.read_exact(&mut back).unwrap();
                assert_eq!(back, number.to_le_bytes());
            }
        }
    }
    echo.join().unwrap();
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}
