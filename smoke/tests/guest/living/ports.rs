//! Published ports: much, many at once, half-closed, and gone when they should be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use serde_json::Value;

use super::services::start;
use crate::daemon::Daemon;
use crate::pyro::wait_until;

/// Bytes that are compared at a time; each piece begins with its number.
const PIECE: usize = 64 << 10;
const PIECES_PER_MIB: u64 = 16;

/// Takes `up` pieces to the end of what the client sends, says whether they are what they should be,
/// and sends `down` pieces. `late` ends its own half first, and keeps what comes then.
pub(super) const SERVER: &str = "
import socket, threading
FILL = bytes(range(256)) * 256
def piece(n):
    return n.to_bytes(8, 'big') + FILL[8:]
def serve(connection):
    stream = connection.makefile('rb', 1 << 20)
    words = stream.readline().split()
    if words == [b'late']:
        connection.sendall(b'half\\n')
        connection.shutdown(socket.SHUT_WR)
        rest = stream.read()
        with open('/tmp/late', 'wb') as file:
            file.write(rest)
        return
    up, down = map(int, words)
    good = all([stream.read(1 << 16) == piece(n) for n in range(up)])
    good = good and stream.read(1) == b''
    connection.sendall(b'good\\n' if good else b'bad\\n')
    for n in range(down):
        connection.sendall(piece(n))
    connection.close()
server = socket.create_server(('127.0.0.1', 7000), backlog=64)
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=[connection], daemon=True).start()
";

pub(super) fn test(daemon: &Daemon, id: &str) {
    daemon.json(&["file", "write", id, "server.py", "--text", SERVER]);
    let port = serve(daemon, id);
    half_closed(daemon, id, port);
    let clients: Vec<_> = (0..20)
        .map(|_| std::thread::spawn(move || exchange(port, 3, 3)))
        .collect();
    for client in clients {
        client.join().expect("as sent");
    }
    much(port);
    refusals(daemon, id, port);
    daemon.json(&["service", "stop", id, "server"]);
    assert_withdrawn(daemon, id, port);
}

/// Publishes the server; answers with its port on the host.
pub(super) fn serve(daemon: &Daemon, id: &str) -> u16 {
    let words = [
        "--ready-tcp",
        "localhost:7000",
        "--publish",
        "7000",
        "--",
        "python3",
        "-IS",
        "server.py",
    ];
    let service = start(daemon, id, "server", &words);
    let port = port(&service);
    exchange(port, 1, 1);
    port
}

fn port(service: &Value) -> u16 {
    let published = &service["published"][0];
    assert_eq!(published["host"], "127.0.0.1");
    let port = published["host_port"].as_u64().expect("a port");
    u16::try_from(port).expect("a port")
}

/// Nobody listens there any more, and nobody says so.
pub(super) fn assert_withdrawn(daemon: &Daemon, id: &str, port: u16) {
    assert_refused(port);
    let service = daemon.json(&["service", "status", id, "server"]);
    assert_eq!(service["published"], Value::Array(Vec::new()), "{service}");
}

pub(super) fn assert_refused(port: u16) {
    let error = TcpStream::connect(("127.0.0.1", port)).expect_err("withdrawn");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

fn piece(number: u64) -> Vec<u8> {
    let mut piece: Vec<u8> = (0..=u8::MAX).cycle().take(PIECE).collect();
    piece[..8].copy_from_slice(&number.to_be_bytes());
    piece
}

/// Sends, ends its half, and compares what comes back to the end.
pub(super) fn exchange(port: u16, up: u64, down: u64) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    writeln!(stream, "{up} {down}").expect("sent");
    for number in 0..up {
        stream.write_all(&piece(number)).expect("sent");
    }
    stream.shutdown(Shutdown::Write).expect("its half");
    let mut stream = BufReader::new(stream);
    let mut verdict = String::new();
    stream.read_line(&mut verdict).expect("read");
    assert_eq!(verdict, "good\n", "what was sent");
    let mut got = vec![0; PIECE];
    for number in 0..down {
        stream.read_exact(&mut got).expect("read");
        assert!(got == piece(number), "piece {number} is another");
    }
    assert_eq!(stream.read(&mut got).expect("the end"), 0);
}

fn much(port: u16) {
    let mib = std::env::var("PYRO_TEST_PORT_MIB").map_or(64, |mib| mib.parse().expect("a number"));
    let began = Instant::now();
    let pieces = mib * PIECES_PER_MIB / 2;
    exchange(port, pieces, pieces);
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("living: {mib} MiB through a port, half each way: {seconds:.0} s");
}

/// The guest ends its half; what it is sent then still arrives.
fn half_closed(daemon: &Daemon, id: &str, port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.write_all(b"late\n").expect("sent");
    let mut got = String::new();
    stream.read_to_string(&mut got).expect("its half");
    assert_eq!(got, "half\n");
    stream.write_all(b"more").expect("sent");
    drop(stream);
    wait_until("the rest arrives", || {
        daemon.sh(id, "cat /tmp/late 2>/dev/null || true") == "more"
    });
}

/// Ports that cannot be had: each says so, and leaves nothing.
fn refusals(daemon: &Daemon, id: &str, port: u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("bound").port();
    for host in [taken, port, 80] {
        let publish = format!("{host}:7000");
        let words = ["--publish", &publish, "--", "sleep", "1000"];
        let words = [&["service", "start", id, "more"][..], &words].concat();
        assert_eq!(daemon.error(&words), "port_unavailable");
        let more = daemon.json(&["service", "status", id, "more"]);
        assert_eq!(more["state"], "failed", "{more}");
    }
    assert_eq!(daemon.sh(id, "pgrep -x sleep || echo none"), "none\n");
}
