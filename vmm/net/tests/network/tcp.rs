//! TCP between a guest's kernel and servers of the world.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use super::lab::{HOST, Lab, METADATA, PATIENCE, PRIVATE, WORLD, wait_for};

/// Bytes that no shift or repetition of is the same.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn connect(address: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Serves connections to an address of the world, each on a thread; the port.
fn serve(lab: &Lab, address: &'static str, each: fn(TcpStream)) -> u16 {
    let listener = lab.world.run(|| TcpListener::bind((address, 0)).unwrap());
    serve_on(listener, each)
}

fn serve_on(listener: TcpListener, each: fn(TcpStream)) -> u16 {
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || each(stream));
        }
    });
    port
}

fn echo(mut stream: TcpStream) {
    let mut reader = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut reader, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}

fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn either_side_may_end_first_and_the_other_still_speaks() {
    let lab = Lab::new(|_| ());
    // Answers only when the guest has ended.
    let port = serve(&lab, WORLD, |mut stream| {
        let asked = read_all(&stream);
        stream.write_all(&asked).unwrap();
    });
    lab.guest.run(|| {
        let mut stream = connect(WORLD, port).unwrap();
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&stream), b"question");
    });
    // Ends first and listens on.
    let listener = lab.world.run(|| TcpListener::bind((WORLD, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&stream)
    });
    lab.guest.run(|| {
        let mut stream = connect(WORLD, port).unwrap();
        assert_eq!(read_all(&stream), b"hello");
        stream.write_all(b"answer").unwrap();
    });
    assert_eq!(server.join().unwrap(), b"answer");
    let mut lab = lab;
    wait_for(|| (lab.process.stats().tcp_open == 0).then_some(()));
    assert_eq!(lab.process.stats().tcp_connected, 2);
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn many_megabytes_arrive_as_they_were_sent_both_ways_at_once() {
    const LENGTH: usize = 64 << 20;
    let lab = Lab::new(|_| ());
    let port = serve(&lab, WORLD, echo);
    lab.guest.run(|| {
        let stream = connect(WORLD, port).unwrap();
        let sent = pattern(7, LENGTH);
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                (&stream).write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            read_all(&stream)
        });
        assert!(received == sent, "{} of {LENGTH}", received.len());
    });
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn a_peer_that_does_not_read_holds_its_sender_up_and_nobody_else() {
    let lab = Lab::new(|_| ());
    let stuck = serve(&lab, WORLD, |stream| {
        // Until the guest goes.
        let mut stream = stream;
        thread::park_timeout(PATIENCE);
        let _ = stream.write_all(b"x");
    });
    let lively = serve(&lab, WORLD, echo);
    lab.guest.run(|| {
        let mut stream = connect(WORLD, stuck).unwrap();
        stream.set_nonblocking(true).unwrap();
        let piece = vec![1; 1 << 20];
        let mut written = 0usize;
        while written < 256 << 20 {
            match stream.write(&piece) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(written < 256 << 20, "somebody keeps all of this");
        let mut other = connect(WORLD, lively).unwrap();
        other.write_all(b"still there?").unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&other), b"still there?");
    });
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn what_is_refused_looks_refused_and_what_cannot_be_reached_unreachable() {
    let mut lab = Lab::new(|_| ());
    let port = lab.world.run(|| {
        let listener = TcpListener::bind((WORLD, 0)).unwrap();
        listener.local_addr().unwrap().port()
    });
    let error = |address: &str, port| {
        let guest = &lab.guest;
        guest.run(|| connect(address, port).unwrap_err().kind())
    };
    assert_eq!(error(WORLD, port), ErrorKind::ConnectionRefused);
    // Nobody has this address.
    assert_eq!(error("203.0.113.9", 80), ErrorKind::HostUnreachable);
    assert_eq!(lab.process.stats().tcp_failed, 2);
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn a_connection_that_is_broken_here_is_broken_there() {
    let lab = Lab::new(|_| ());
    let (tell, told) = std::sync::mpsc::channel();
    let listener = lab.world.run(|| TcpListener::bind((WORLD, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        // The guest breaks the first; the second is broken for it.
        let (mut first, _) = listener.accept().unwrap();
        first.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        tell.send(()).unwrap();
        assert_eq!(
            first.read(&mut byte).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        let (mut second, _) = listener.accept().unwrap();
        second.set_read_timeout(Some(PATIENCE)).unwrap();
        second.read_exact(&mut byte).unwrap();
        rustix::net::sockopt::set_socket_linger(&second, Some(std::time::Duration::ZERO)).unwrap();
    });
    lab.guest.run(move || {
        let mut stream = connect(WORLD, port).unwrap();
        stream.write_all(b"x").unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        drop(stream);
        let mut stream = connect(WORLD, port).unwrap();
        stream.write_all(b"x").unwrap();
        assert_eq!(
            stream.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    });
    server.join().unwrap();
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn addresses_that_a_guest_may_not_reach_refuse_whoever_listens_there() {
    let mut lab = Lab::new(|_| ());
    let host = lab.host.run(|| TcpListener::bind((HOST, 0)).unwrap());
    let everywhere = lab.host.run(|| TcpListener::bind(("0.0.0.0", 0)).unwrap());
    let targets = [
        (PRIVATE, serve(&lab, PRIVATE, echo)),
        (METADATA, serve(&lab, METADATA, echo)),
        (HOST, serve_on(host, echo)),
        ("10.0.2.2", serve_on(everywhere, echo)),
        ("10.0.2.3", 80),
        ("10.0.2.77", 80),
    ];
    for (address, port) in targets {
        let error = lab.guest.run(|| connect(address, port).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    assert_eq!(lab.process.stats().tcp_connected, 0);
    assert_eq!(lab.process.stats().egress_refused, 4);
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn an_operator_s_range_is_reached_and_the_host_is_not() {
    let lab = Lab::new(|config| {
        config.egress_allow = vec![
            "10.0.0.0/8".parse().unwrap(),
            "203.0.113.0/24".parse().unwrap(),
        ];
    });
    let private = serve(&lab, PRIVATE, echo);
    let own = serve_on(lab.host.run(|| TcpListener::bind((HOST, 0)).unwrap()), echo);
    lab.guest.run(|| {
        let mut stream = connect(PRIVATE, private).unwrap();
        stream.write_all(b"x").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&stream), b"x");
        for (address, port) in [(HOST, own), ("10.0.2.2", own)] {
            let error = connect(address, port).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
        }
    });
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn hundreds_of_connections_at_once_each_get_their_own() {
    let mut lab = Lab::new(|_| ());
    let port = serve(&lab, WORLD, echo);
    lab.guest.run(|| {
        let mut streams: Vec<_> = (0..300).map(|_| connect(WORLD, port).unwrap()).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&pattern(number as u64, 3000)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        for (number, stream) in streams.iter().enumerate() {
            assert_eq!(read_all(stream), pattern(number as u64, 3000));
        }
    });
    let stats = lab.process.stats();
    assert_eq!((stats.tcp_connected, stats.over_limit), (300, 0));
    wait_for(|| (lab.process.stats().tcp_open == 0).then_some(()));
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let mut lab = Lab::new(|config| config.limits.tcp_connections = 3);
    let port = serve(&lab, WORLD, echo);
    let streams: Vec<_> = (0..3)
        .map(|_| lab.guest.run(|| connect(WORLD, port).unwrap()))
        .collect();
    let refused = lab.guest.run(|| connect(WORLD, port).unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(lab.process.stats().over_limit, 1);
    drop(streams);
    wait_for(|| (lab.process.stats().tcp_open == 0).then_some(()));
    lab.guest.run(|| connect(WORLD, port).unwrap());
}
