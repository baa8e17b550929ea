//! What the process does on this machine, between a guest's kernel (over a TAP device and two
//! threads that copy frames, in the place of the monitor) and a server in another namespace; and
//! what the host itself does with the same server. `cargo bench -p pyro-net`; needs namespaces.
#![allow(clippy::unwrap_used, reason = "a failing step ends the measurement")]
#![allow(missing_docs, dead_code, reason = "the laboratory is made for tests")]

#[path = "../tests/network/lab.rs"]
mod lab;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use lab::{Lab, Space, WORLD};

const BYTES: usize = 1 << 30;
const ROUNDS: u32 = 5000;
const CONNECTIONS: u32 = 1000;

/// Serves by the first byte: `d` sends, `u` takes, `p` echoes bytes one by one.
fn server(lab: &Lab) -> u16 {
    let listener = lab.world.run(|| TcpListener::bind((WORLD, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut byte = [0];
    if stream.read_exact(&mut byte).is_err() {
        return;
    }
    let mut piece = vec![0; 1 << 20];
    match byte[0] {
        b'd' => (0..BYTES / piece.len()).for_each(|_| stream.write_all(&piece).unwrap()),
        b'u' => {
            let mut left = BYTES;
            while left > 0 {
                left -= stream.read(&mut piece).unwrap();
            }
            stream.write_all(b"!").unwrap();
        }
        _ => {
            while stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).unwrap();
            }
        }
    }
}

fn measure(name: &str, space: &Space, port: u16) {
    let connect = || {
        let stream = TcpStream::connect((WORLD, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    space.run(|| {
        let rate = |start: Instant| (BYTES >> 20) as f64 / start.elapsed().as_secs_f64();
        let mut piece = vec![0; 1 << 20];
        let mut stream = connect();
        let start = Instant::now();
        stream.write_all(b"u").unwrap();
        (0..BYTES / piece.len()).for_each(|_| stream.write_all(&piece).unwrap());
        stream.read_exact(&mut [0]).unwrap();
        println!("{name}: {:.0} MiB/s up", rate(start));

        let mut stream = connect();
        let start = Instant::now();
        stream.write_all(b"d").unwrap();
        let mut left = BYTES;
        while left > 0 {
            left -= stream.read(&mut piece).unwrap();
        }
        println!("{name}: {:.0} MiB/s down", rate(start));

        let mut stream = connect();
        stream.write_all(b"p").unwrap();
        let start = Instant::now();
        for _ in 0..ROUNDS {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        println!("{name}: {:.1} µs there and back", micros(start, ROUNDS));

        let start = Instant::now();
        for _ in 0..CONNECTIONS {
            drop(connect());
        }
        println!("{name}: {:.1} µs a connection", micros(start, CONNECTIONS));
    });
}

fn micros(start: Instant, count: u32) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

fn main() {
    let mut lab = Lab::new(|_| ());
    let port = server(&lab);
    let idle = lab.process.resident_kib();
    measure("host", &lab.host, port);
    measure("guest", &lab.guest, port);
    let after = lab.process.resident_kib();
    println!("memory: {idle} KiB idle, {after} KiB after");
    println!("{:?}", lab.process.stats());
}
