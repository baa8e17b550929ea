//! The line that a host client starts with: `CONNECT <port>\n`.
//!
//! The line is looked at without being taken out of the socket until it is whole, so bytes that
//! an eager client sends behind it are not lost, and a client that dawdles holds no buffer.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};

use super::limits::MAX_CONNECT_LINE;
use super::packet::Port;

/// How far a client has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The line is not whole yet.
    Waiting,
    /// The client wants this guest port.
    Connect(Port),
    /// The client left, or said something else: it is to be closed.
    Refused,
}

/// Looks at what the client has sent so far. Does not block. `last` says that nothing more can
/// come.
pub(super) fn advance(stream: &UnixStream, last: bool) -> Progress {
    let mut line = [0; MAX_CONNECT_LINE];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let seen = match retry(|| recv(stream, &mut line[..], flags)) {
        Ok((seen, _)) => seen,
        Err(rustix::io::Errno::AGAIN) => return Progress::Waiting,
        Err(_) => return Progress::Refused,
    };
    let Some(end) = line[..seen].iter().position(|byte| *byte == b'\n') else {
        let hopeless = seen == 0 || seen == MAX_CONNECT_LINE || last;
        return if hopeless {
            Progress::Refused
        } else {
            Progress::Waiting
        };
    };
    let Some(port) = parse(&line[..end]) else {
        return Progress::Refused;
    };
    // What was peeked is there to be taken, and only this thread takes.
    match retry(|| recv(stream, &mut line[..=end], RecvFlags::DONTWAIT)) {
        Ok((taken, _)) if taken == end + 1 => Progress::Connect(port),
        _ => Progress::Refused,
    }
}

/// The answer to a client whose connection the guest has accepted.
pub(super) fn accepted(host: Port) -> String {
    format!("OK {}\n", host.0)
}

/// Reads the line without its end. Decimal digits only; no sign, no second space.
fn parse(line: &[u8]) -> Option<Port> {
    let digits = line.strip_prefix(b"CONNECT ")?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Port)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Makes `stream` non-blocking, which everything here relies on.
pub(super) fn prepare(stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn after(bytes: &[u8]) -> (Progress, UnixStream, UnixStream) {
        let (mut client, server) = UnixStream::pair().unwrap();
        prepare(&server).unwrap();
        client.write_all(bytes).unwrap();
        (advance(&server, false), client, server)
    }

    #[test]
    fn a_whole_line_names_the_port() {
        assert_eq!(after(b"CONNECT 1024\n").0, Progress::Connect(Port(1024)));
        assert_eq!(
            after(b"CONNECT 4294967295\n").0,
            Progress::Connect(Port(u32::MAX))
        );
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let (progress, mut client, server) = after(b"CONN");
        assert_eq!(progress, Progress::Waiting);
        client.write_all(b"ECT 7").unwrap();
        assert_eq!(advance(&server, false), Progress::Waiting);
        client.write_all(b"\n").unwrap();
        assert_eq!(advance(&server, false), Progress::Connect(Port(7)));
    }

    #[test]
    fn bytes_behind_the_line_stay_in_the_socket() {
        let (progress, client, mut server) = after(b"CONNECT 7\nhello");
        assert_eq!(progress, Progress::Connect(Port(7)));
        drop(client);
        let mut rest = String::new();
        server.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "hello");
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            &b"\n"[..],
            b"GET / HTTP/1.1\n",
            b"CONNECT\n",
            b"CONNECT \n",
            b"CONNECT  7\n",
            b"CONNECT +7\n",
            b"CONNECT -7\n",
            b"CONNECT 7 \n",
            b"CONNECT 7\r\n",
            b"CONNECT 4294967296\n",
            b"connect 7\n",
            b"CONNECT \xff\n",
            b"CONNECT 00000000000000000000000000000000000001\n",
        ] {
            assert_eq!(
                after(line).0,
                Progress::Refused,
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn a_client_that_leaves_is_refused() {
        let (progress, client, server) = after(b"CONNECT 7");
        assert_eq!(progress, Progress::Waiting);
        drop(client);
        assert_eq!(advance(&server, true), Progress::Refused);

        let (client, server) = UnixStream::pair().unwrap();
        prepare(&server).unwrap();
        drop(client);
        assert_eq!(advance(&server, false), Progress::Refused);
    }
}
