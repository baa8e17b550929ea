//! The host's resolver, played: one name moves, all others are asked of the real one.
//!
//! The daemon is started where `/etc/resolv.conf` names us; nobody else on the host sees that.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::daemon::Daemon;

/// The name that moves.
pub(super) const NAME: &str = "moves.test";
/// A name that many hosts can reach.
const KNOWN: &str = "deb.debian.org";
/// Where we listen; every address of 127/8 is the host's.
const OURS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 53, 0, 77)), 53);
const PATIENCE: Duration = Duration::from_secs(20);
/// Header of a message (RFC 1035 §4.1.1), and the bytes behind the name of a question.
const HEADER: usize = 12;
const TYPE_AND_CLASS: usize = 4;

/// Answers as long as the test runs.
pub(super) struct Resolver {
    moved: Arc<Mutex<Ipv4Addr>>,
    /// A web server out in the world.
    pub(super) world: Ipv4Addr,
}

impl Resolver {
    /// Starts the daemon with it. `None`, after saying why, where this user may not, or where there
    /// is no way out of this host.
    pub(super) fn new(daemon: &Daemon) -> Option<Self> {
        let made = Self::start(daemon);
        if let Err(why) = &made {
            eprintln!("living: nothing is fetched from the world: {why}");
        }
        made.ok()
    }

    fn start(daemon: &Daemon) -> Result<Self, String> {
        let file = fs::read_to_string("/etc/resolv.conf").map_err(|error| error.to_string())?;
        let above = file
            .lines()
            .filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok())
            .find(IpAddr::is_ipv4)
            .map(|address| SocketAddr::new(address, 53))
            .ok_or("this host has no resolver")?;
        let world = ask(above, &question(KNOWN))
            .and_then(|answer| address_in(&answer))
            .ok_or_else(|| format!("{above} does not know {KNOWN}"))?;
        TcpStream::connect_timeout(&(world, 80).into(), PATIENCE)
            .map_err(|error| format!("{KNOWN} at {world}: {error}"))?;
        let socket = UdpSocket::bind(OURS).map_err(|error| format!("{OURS}: {error}"))?;
        let config = daemon.path("resolv.conf");
        fs::write(&config, format!("nameserver {}\n", OURS.ip())).expect("a file");
        let script = "mount --bind \"$0\" \"$(realpath /etc/resolv.conf)\" && exec \"$@\"";
        let listed = daemon.command(&["list"]);
        let status = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(&config)
            .arg(listed.get_program())
            .args(listed.get_args())
            .env("PYRO_STATE_DIR", daemon.path("state"))
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return Err("this user may not mount".to_string());
        }
        let moved = Arc::new(Mutex::new(world));
        let told = Arc::clone(&moved);
        std::thread::spawn(move || serve(&socket, above, &told));
        Ok(Self { moved, world })
    }

    /// From now on the name is there.
    pub(super) fn set(&self, address: Ipv4Addr) {
        *self.moved.lock().expect("no panic") = address;
    }
}

fn serve(socket: &UdpSocket, above: SocketAddr, moved: &Mutex<Ipv4Addr>) {
    let mut message = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut message) {
        let query = &message[..length];
        let answer = match name_in(query).as_deref() {
            Some(NAME) => Some(answer(query, *moved.lock().expect("no panic"))),
            _ => ask(above, query),
        };
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn ask(resolver: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.send_to(query, resolver).ok()?;
    let mut answer = vec![0; 4096];
    let (length, _) = socket.recv_from(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

/// Asks for the IPv4 address of a name (RFC 1035 §4.1.2).
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("short"));
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// The first name of a query, and how long it is.
fn name_in(query: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            return Some(labels.join("."));
        }
        let label = query.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += 1 + length;
    }
}

/// What the one name answers: its address, and nothing of other types.
fn answer(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let end = HEADER + NAME.len() + 2 + TYPE_AND_CLASS;
    let mut answer = query[..end.min(query.len())].to_vec();
    let is_a = answer.get(end - TYPE_AND_CLASS..end - 2) == Some(&[0, 1]);
    answer[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        // A pointer to the question's name, type A, class IN, not to be kept, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

/// The first address in an answer, which ends with addresses alone where nothing is behind them.
fn address_in(answer: &[u8]) -> Option<Ipv4Addr> {
    const A: [u8; 4] = [0, 1, 0, 1];
    let at = answer
        .windows(10)
        .skip(HEADER)
        .position(|part| part.starts_with(&A) && part.ends_with(&[0, 4]))?;
    let octets = answer.get(HEADER + at + 10..HEADER + at + 14)?;
    Some(<[u8; 4]>::try_from(octets).ok()?.into())
}
