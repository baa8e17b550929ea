//! A workspace with a network: what goes through a published port, which is vsock, and through
//! `pyro-net` to a server in the world, which is a network namespace of the host.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::workspace::pyro;
use super::{ENVIRONMENT, GUEST_MIB};

/// Bytes one way.
const BYTES: usize = 16 << 20;
/// Connections, and bytes to and fro on one, after one that warms up.
const TIMES: u32 = 10;
/// The world's server. The range is for documentation: nobody else has it.
const WORLD: &str = "203.0.113.1:9000";
/// The server's port in the guest.
const PORT: &str = "9000";
/// The namespace and a pair of devices: the host's end has another address of the range.
const LAYOUT: [&str; 7] = [
    "ip netns add world",
    "modprobe veth",
    "ip link add host0 type veth peer name world0 netns world",
    "ip address add 203.0.113.2/24 dev host0",
    "ip link set host0 up",
    "ip -n world address add 203.0.113.1/24 dev world0",
    "ip -n world link set world0 up",
];
/// Serves by the first byte: `d` sends, `u` takes and answers, others are echoed one by one.
const SERVER: &str = "
import socket, sys
def serve(c, size):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kind, block = c.recv(1), bytearray(1 << 20)
    if kind == b'd':
        for _ in range(size >> 20): c.sendall(block)
    elif kind == b'u':
        while c.recv_into(block): pass
        c.sendall(b'!')
    else:
        while kind:
            c.sendall(kind)
            kind = c.recv(1)
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    serve(connection, int(sys.argv[2]))
    connection.close()
";
/// The same as [`measure_from`], in the guest.
const CLIENT: &str = "
import json, socket, sys, time
host, port, size, times = sys.argv[1], *map(int, sys.argv[2:])
def connect(kind):
    c = socket.create_connection((host, port))
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    c.sendall(kind)
    return c
def ms(since, times=1): return (time.perf_counter() - since) * 1000 / times
def first():
    c = connect(b'p')
    c.recv(1)
    return c
first().close()
began = time.perf_counter()
for _ in range(times): first().close()
connection_ms = ms(began, times)
c, began = first(), time.perf_counter()
for _ in range(times):
    c.sendall(b'p'); c.recv(1)
round_trip_ms = ms(began, times)
c.close()
block, began = bytearray(1 << 20), time.perf_counter()
c = connect(b'u')
for _ in range(size >> 20): c.sendall(block)
c.shutdown(socket.SHUT_WR)
c.recv(1)
up_ms, began = ms(began), time.perf_counter()
c = connect(b'd')
while c.recv_into(block): pass
print(json.dumps(dict(connection_ms=connection_ms, round_trip_ms=round_trip_ms,
    up_ms=up_ms, down_ms=ms(began))))
";

/// One way, from its client's side.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Figures {
    /// From the start of a connection to the first byte back.
    pub(super) connection_ms: f64,
    /// One byte to and fro.
    pub(super) round_trip_ms: f64,
    /// [`BYTES`] to the server, with its answer.
    pub(super) up_ms: f64,
    /// [`BYTES`] from it.
    pub(super) down_ms: f64,
}

/// Both ways.
#[derive(Debug, Serialize)]
pub(super) struct Network {
    /// From the host through a published port into the guest.
    pub(super) published: Figures,
    /// From the guest through `pyro-net` out into the world.
    pub(super) egress: Figures,
}

/// What [`BYTES`] in so many milliseconds are in MiB a second.
pub(super) fn rate(milliseconds: f64) -> f64 {
    (BYTES >> 20) as f64 * 1000.0 / milliseconds
}

/// Makes a world and a workspace, and measures.
///
/// # Errors
/// When either does not do what it should.
pub(super) fn measure() -> Result<Network> {
    world()?;
    let memory = GUEST_MIB.to_string();
    let policy = "egress+published-ports";
    let create = ["create", ENVIRONMENT, "--mem-mib", &memory];
    let id = pyro(&[&create[..], &["--network-policy", policy, "--id-only"]].concat())?;
    let id = id.trim();
    let size = BYTES.to_string();
    let start = ["service", "start", id, "server", "--json"];
    let ready = ["--ready-tcp", "localhost:9000", "--publish", PORT, "--"];
    let command = ["python3", "-c", SERVER, PORT, &size];
    let service = pyro(&[&start[..], &ready, &command].concat())?;
    let published = measure_from(published(&service)?)?;
    let (host, port) = WORLD.split_once(':').context("an address")?;
    let times = TIMES.to_string();
    let client = ["python3", "-c", CLIENT, host, port, &size, &times];
    let said = pyro(&[&["exec", id, "--timeout-seconds", "600", "--"][..], &client].concat())?;
    let egress = serde_json::from_str(&said).context("the client printed no figures")?;
    pyro(&["delete", id])?;
    Ok(Network { published, egress })
}

fn published(service: &str) -> Result<SocketAddr> {
    let service: serde_json::Value = serde_json::from_str(service)?;
    let port = service["published"][0]["host_port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok());
    Ok(([127, 0, 0, 1], port.context("nothing is published")?).into())
}

fn measure_from(address: SocketAddr) -> Result<Figures> {
    let connect = |kind: u8| -> Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&[kind])?;
        Ok(stream)
    };
    let mut byte = [0];
    let mut first = || -> Result<TcpStream> {
        let mut stream = connect(b'p')?;
        stream.read_exact(&mut byte)?;
        Ok(stream)
    };
    first()?;
    let began = Instant::now();
    for _ in 0..TIMES {
        first()?;
    }
    let connection_ms = ms(began) / f64::from(TIMES);
    let mut stream = first()?;
    let began = Instant::now();
    for _ in 0..TIMES {
        stream.write_all(b"p")?;
        stream.read_exact(&mut byte)?;
    }
    let round_trip_ms = ms(began) / f64::from(TIMES);
    drop(stream);
    let mut block = vec![0; 1 << 20];
    let began = Instant::now();
    let mut stream = connect(b'u')?;
    for _ in 0..BYTES / block.len() {
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut byte)?;
    let up_ms = ms(began);
    let began = Instant::now();
    let mut stream = connect(b'd')?;
    let mut got = 0;
    loop {
        match stream.read(&mut block)? {
            0 => break,
            length => got += length,
        }
    }
    ensure!(got == BYTES, "{got} bytes came");
    Ok(Figures {
        connection_ms,
        round_trip_ms,
        up_ms,
        down_ms: ms(began),
    })
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Makes the world, with a server in it that runs until the host ends.
fn world() -> Result<()> {
    for command in LAYOUT {
        let mut words = command.split(' ');
        let program = words.next().context("a program")?;
        let status = Command::new(program).args(words).status()?;
        ensure!(status.success(), "{command}: {status}");
    }
    let bound = thread::spawn(|| -> Result<TcpListener> {
        let world = File::open("/run/netns/world")?;
        move_into_link_name_space(world.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(TcpListener::bind(WORLD)?)
    });
    let listener = bound.join().map_err(|_| anyhow::anyhow!("no server"))??;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away has measured nothing, and says so itself.
            let _ = serve(stream);
        }
    });
    Ok(())
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut block = vec![0; 1 << 20];
    match &kind {
        b"d" => {
            for _ in 0..BYTES / block.len() {
                stream.write_all(&block)?;
            }
            Ok(())
        }
        b"u" => {
            while stream.read(&mut block)? > 0 {}
            stream.write_all(b"!")
        }
        _ => loop {
            stream.write_all(&kind)?;
            stream.read_exact(&mut kind)?;
        },
    }
}
