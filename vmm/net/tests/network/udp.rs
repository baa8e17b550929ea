//! UDP and DNS between a guest's kernel and the world.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use super::lab::{HOST, Lab, PATIENCE, PRIVATE, RESOLVERS, WORLD, wait_for};

const DNS: &str = "10.0.2.3:53";

fn bound(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, from)
}

/// Answers every datagram at `address` with what `reply` makes of it, if anything; the port.
fn serve(socket: UdpSocket, reply: fn(Vec<u8>) -> Option<Vec<u8>>) -> u16 {
    let port = socket.local_addr().unwrap().port();
    socket.set_read_timeout(None).unwrap();
    thread::spawn(move || {
        loop {
            let (asked, from) = receive(&socket);
            if let Some(reply) = reply(asked) {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    port
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn datagrams_of_every_length_come_back_from_whom_they_went_to() {
    let mut lab = Lab::new(|_| ());
    let port = serve(lab.world.run(|| bound(&format!("{WORLD}:0"))), Some);
    lab.guest.run(|| {
        let socket = bound("0.0.0.0:0");
        for length in [0, 1, 1472, 9000, 60_000] {
            socket.send_to(&vec![7; length], (WORLD, port)).unwrap();
            let (reply, from) = receive(&socket);
            assert_eq!(
                (reply.len(), from),
                (length, SocketAddr::new(WORLD.parse().unwrap(), port))
            );
        }
    });
    assert_eq!(lab.process.stats().udp_flows, 1);
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn nobody_but_the_destination_gets_through_to_a_flow() {
    let lab = Lab::new(|_| ());
    let server = lab.world.run(|| bound(&format!("{WORLD}:0")));
    let stranger = lab.world.run(|| bound(&format!("{WORLD}:0")));
    let guest = lab.guest.run(|| bound("0.0.0.0:0"));
    guest
        .send_to(b"hello", server.local_addr().unwrap())
        .unwrap();
    let (_, flow) = receive(&server);
    stranger.send_to(b"intruder", flow).unwrap();
    server.send_to(b"welcome", flow).unwrap();
    assert_eq!(receive(&guest).0, b"welcome");
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn a_port_without_a_listener_and_an_address_that_is_refused_are_told() {
    let mut lab = Lab::new(|_| ());
    let port = lab
        .world
        .run(|| bound(&format!("{WORLD}:0")).local_addr().unwrap().port());
    let error = |address: &str, port| {
        lab.guest.run(|| {
            let socket = bound("0.0.0.0:0");
            socket.connect((address, port)).unwrap();
            socket.send(b"x").unwrap();
            socket.recv(&mut [0; 9]).unwrap_err()
        })
    };
    assert_eq!(error(WORLD, port).kind(), ErrorKind::ConnectionRefused);
    assert_eq!(error("10.0.2.2", 53).kind(), ErrorKind::ConnectionRefused);
    for address in [PRIVATE, HOST, "169.254.169.254", "203.0.113.255"] {
        // A datagram to everybody may not even leave the guest.
        let told = error(address, 9).raw_os_error();
        assert!(
            matches!(told, Some(libc::EHOSTUNREACH | libc::EACCES)),
            "{told:?}"
        );
    }
    assert_eq!(lab.process.stats().egress_refused, 4);
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn a_new_flow_takes_the_place_of_the_one_that_was_idle_longest() {
    let mut lab = Lab::new(|config| config.limits.udp_flows = 4);
    let port = serve(lab.world.run(|| bound(&format!("{WORLD}:0"))), Some);
    lab.guest.run(|| {
        let sockets: Vec<_> = (0..10).map(|_| bound("0.0.0.0:0")).collect();
        for socket in sockets.iter().chain(&sockets) {
            socket.send_to(b"x", (WORLD, port)).unwrap();
            assert_eq!(receive(socket).0, b"x");
        }
    });
    let stats = lab.process.stats();
    assert_eq!((stats.udp_open, stats.udp_flows), (4, 20));
}

/// A question for `example.org`.
fn question(id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(b"\x07example\x03org\x00\x00\x01\x00\x01");
    message
}

/// A resolver's answer: the question, marked as a response.
fn answer(mut asked: Vec<u8>) -> Option<Vec<u8>> {
    asked[2] |= 0x80;
    asked.extend(b"and an answer");
    Some(asked)
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn questions_are_answered_by_the_host_s_resolver_over_udp_and_tcp() {
    let mut lab = Lab::new(|_| ());
    let address = format!("{}:53", RESOLVERS[0]);
    serve(lab.world.run(|| bound(&address)), answer);
    let listener = lab.world.run(|| TcpListener::bind(&address).unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut asked = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut asked).unwrap();
                let reply = answer(asked).unwrap();
                let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length, &reply[..]].concat()).unwrap();
            }
        }
    });
    lab.guest.run(|| {
        let socket = bound("0.0.0.0:0");
        for id in 0..50 {
            socket.send_to(&question(id), DNS).unwrap();
            let expected = answer(question(id)).unwrap();
            assert_eq!(receive(&socket), (expected, DNS.parse().unwrap()));
        }
        let mut stream = TcpStream::connect(DNS).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for id in 0..3 {
            let asked = question(id);
            stream
                .write_all(&[&[0, asked.len() as u8], &asked[..]].concat())
                .unwrap();
            let expected = answer(asked).unwrap();
            let mut reply = vec![0; 2 + expected.len()];
            stream.read_exact(&mut reply).unwrap();
            assert_eq!(reply[2..], expected);
        }
        // A whole zone is nobody's question.
        let mut transfer = question(9);
        let kind = transfer.len() - 3;
        transfer[kind] = 252;
        stream
            .write_all(&[&[0, transfer.len() as u8], &transfer[..]].concat())
            .unwrap();
        assert_eq!(
            stream.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        socket.send_to(&transfer, DNS).unwrap();
        assert_eq!(receive(&socket).0[3] & 15, 5);
    });
    assert_eq!(lab.process.stats().dns_queries, 50);
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn a_resolver_that_does_not_answer_is_followed_by_the_next() {
    let lab = Lab::new(|_| ());
    // Nobody listens at the first; or somebody does, and says nothing, or lies about who asked.
    serve(
        lab.world.run(|| bound(&format!("{}:53", RESOLVERS[1]))),
        answer,
    );
    let ask = |id| {
        lab.guest.run(|| {
            let socket = bound("0.0.0.0:0");
            socket.send_to(&question(id), DNS).unwrap();
            assert_eq!(receive(&socket).0, answer(question(id)).unwrap());
        });
    };
    ask(1);
    serve(
        lab.world.run(|| bound(&format!("{}:53", RESOLVERS[0]))),
        |mut asked| {
            asked[0] ^= 1;
            answer(asked)
        },
    );
    ask(2);
}

#[test]
#[cfg_attr(not(lab), ignore = "no network namespaces or TAP devices here")]
fn without_any_resolver_the_guest_is_told_so() {
    let mut lab = Lab::new(|_| ());
    lab.guest.run(|| {
        let socket = bound("0.0.0.0:0");
        socket.send_to(&question(7), DNS).unwrap();
        let (reply, _) = receive(&socket);
        assert_eq!((&reply[..2], reply[3] & 15), (&[0, 7][..], 2));
    });
    wait_for(|| (lab.process.stats().dns_queries == 1).then_some(()));
}
