//! The server of operations: accepts, checks the token, runs one operation per connection.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{CHANNEL, exec, init};
use crate::flow::Outbox;
use crate::wire::{self, Event, GENERATION, Hello, Request};

/// First argument of the process that serves.
pub const ARGUMENT: &str = "inside-serve";
/// Operations at once; more are turned away.
const MOST_CONNECTIONS: usize = 256;
/// How long a client may take to say what it wants.
const HELLO_TIME: Duration = Duration::from_secs(20);
/// What a host in deterministic time waits before it serves, so that the work that a boot leaves to
/// the background is over. It costs next to nothing: virtual time jumps while nothing is to be done.
const SETTLE: Duration = Duration::from_secs(3);

/// Serves until the machine ends, or one operation on the channel.
///
/// # Errors
/// When nothing can be served at all.
pub fn run(channel: bool) -> Result<()> {
    let token = std::env::var("PYRO_HOST_TOKEN").context("no token")?;
    if channel {
        thread::sleep(SETTLE);
        let port = File::options()
            .read(true)
            .write(true)
            .open(find_channel()?)?;
        let outbox = Outbox::new(Box::new(port.try_clone()?));
        init::announce_ready();
        operate(Box::new(port), &outbox, &token, &|| {})?;
        return Ok(());
    }
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, wire::PORT)).context("cannot listen")?;
    init::announce_ready();
    let token: Arc<str> = token.into();
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
            continue; // dropping it closes it
        }
        open.fetch_add(1, Ordering::Relaxed);
        let token = Arc::clone(&token);
        let count = Arc::clone(&open);
        let spawned = thread::Builder::new().spawn(move || {
            // The client learns of a failure by the end of its connection.
            let _ = connection(&stream, &token);
            let _ = stream.shutdown(Shutdown::Both);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
    bail!("the listener ended")
}

fn connection(stream: &TcpStream, token: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HELLO_TIME))?;
    let outbox = Outbox::new(Box::new(stream.try_clone()?));
    operate(Box::new(stream.try_clone()?), &outbox, token, &|| {
        let _ = stream.set_read_timeout(None);
    })
}

fn operate(
    mut from: Box<dyn Read + Send>,
    outbox: &Outbox,
    token: &str,
    accepted: &dyn Fn(),
) -> io::Result<()> {
    let Some(frame) = wire::read_frame(&mut *from)? else {
        return Ok(());
    };
    let hello: Hello = frame.message()?;
    if hello.token != token {
        return Err(wire::invalid("a wrong token"));
    }
    if hello.generation != GENERATION {
        let message = format!(
            "the emulated host speaks generation {GENERATION}, the client {}",
            hello.generation
        );
        return outbox.message(&Event::Failed { code: 125, message });
    }
    accepted();
    match hello.request {
        Request::Ping => outbox.message(&Event::Pong),
        Request::Exec(request) => exec::run(&request, from, outbox),
    }
}

/// The device of the virtio port with our name.
fn find_channel() -> Result<PathBuf> {
    for _ in 0..1000 {
        if let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") {
            for port in ports.flatten() {
                let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
                let device = PathBuf::from("/dev").join(port.file_name());
                if name.trim_end() == CHANNEL && device.exists() {
                    return Ok(device);
                }
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("the channel's port does not appear")
}
