//! The sockets between the engine and a guest's agent, and how they get to the monitor.
//!
//! No socket file is made: all are socket pairs, one end of which the monitor inherits.

use std::fs::File;
use std::io::{self, IoSliceMut, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixDatagram, UnixStream};

/// Longest answer to `CONNECT`: `OK 4294967295\n`.
const LONGEST_ANSWER: usize = 16;

/// A connected pair of stream sockets: ours, and the one for the monitor.
pub(super) fn stream_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// A listening socket that nobody can connect to.
pub(super) fn nameless_listener() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The kernel chooses an abstract name (unix(7), autobind); it is told to nobody.
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new_unnamed())?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

/// The socket on which the monitor hands over connections that the guest opens to one host port.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// A `SOCK_SEQPACKET` socket in the type that tokio has for sockets with messages: only its
    /// readiness is used, so the difference does not show.
    socket: UnixDatagram,
    port: u32,
}

impl Acceptor {
    /// An acceptor for `port`, and the monitor's end of it.
    pub(super) fn pair(port: u32) -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let ours = std::os::unix::net::UnixDatagram::from(ours);
        ours.set_nonblocking(true)?;
        Ok((
            Self {
                socket: UnixDatagram::from_std(ours)?,
                port,
            },
            theirs,
        ))
    }

    /// Waits for the guest's next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            self.socket.readable().await?;
            let received = self
                .socket
                .try_io(Interest::READABLE, || receive(&self.socket, self.port));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }
}

fn receive(socket: impl AsFd, wanted: u32) -> io::Result<UnixStream> {
    let mut port = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut port)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let stream = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match stream {
        Some(stream) if message.bytes == 4 && u32::from_le_bytes(port) == wanted => {
            let stream = std::os::unix::net::UnixStream::from(stream);
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
        _ => Err(io::Error::other(
            "the monitor handed over something else than a connection",
        )),
    }
}

/// Asks the monitor to connect this stream to `port` of the guest.
pub(super) async fn connect(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = [0; LONGEST_ANSWER];
    let mut length = 0;
    while answer[..length].last() != Some(&b'\n') {
        if length == LONGEST_ANSWER {
            return Err(io::Error::other(
                "the monitor's answer to CONNECT is too long",
            ));
        }
        // Looked at before it is taken: what follows the line belongs to the guest's program.
        let rest = &mut answer[length..];
        let seen = peek(stream, rest).await?;
        let taken = match rest[..seen].iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if seen == 0 => return Err(io::ErrorKind::ConnectionRefused.into()),
            None => seen,
        };
        length += stream.read_exact(&mut rest[..taken]).await?;
    }
    if answer.starts_with(b"OK ") {
        return Ok(());
    }
    Err(io::Error::other(
        "the monitor's answer to CONNECT is not OK",
    ))
}

/// Waits for bytes, and gives how many are there without taking them; none at the stream's end.
async fn peek(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        let seen = stream.try_io(Interest::READABLE, || {
            let (seen, _) = rustix::net::recv(stream, &mut *buffer, RecvFlags::PEEK)?;
            Ok(seen)
        });
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            seen => return seen,
        }
    }
}

/// A file without a name that holds `bytes`, to be read from its start.
pub(super) fn memory_file(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;

    fn hand_over(monitor: &OwnedFd, port: u32, descriptor: Option<&OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptor.iter().map(|fd| fd.as_fd()).collect();
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        let bytes = port.to_le_bytes();
        sendmsg(
            monitor,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::empty(),
        )
        .expect("sent");
    }

    #[tokio::test]
    async fn a_handed_over_connection_is_accepted() {
        let (acceptor, monitor) = Acceptor::pair(7).expect("pair");
        let (mut near, far) = stream_pair().expect("pair");
        hand_over(&monitor, 7, Some(&far));

        let mut stream = acceptor.accept().await.expect("accepted");

        stream.write_all(b"hi").await.expect("written");
        let mut got = [0; 2];
        near.read_exact(&mut got).await.expect("read");
        assert_eq!(&got, b"hi");
    }

    #[tokio::test]
    async fn a_wrong_port_a_missing_descriptor_and_the_end_are_errors() {
        let (acceptor, monitor) = Acceptor::pair(7).expect("pair");
        let (_near, far) = stream_pair().expect("pair");
        hand_over(&monitor, 8, Some(&far));
        assert!(acceptor.accept().await.is_err());
        hand_over(&monitor, 7, None);
        assert!(acceptor.accept().await.is_err());
        drop(monitor);
        let error = acceptor.accept().await.expect_err("the end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    async fn answered(answer: &[u8]) -> io::Result<Vec<u8>> {
        let (mut ours, theirs) = stream_pair()?;
        let theirs = std::os::unix::net::UnixStream::from(theirs);
        theirs.set_nonblocking(true)?;
        let mut theirs = UnixStream::from_std(theirs)?;
        theirs.write_all(answer).await?;
        theirs.shutdown().await?;
        connect(&mut ours, 1024).await?;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await?;
        let mut asked = [0; 13];
        theirs.read_exact(&mut asked).await?;
        assert_eq!(&asked, b"CONNECT 1024\n");
        Ok(rest)
    }

    #[tokio::test]
    async fn connect_takes_exactly_the_answers_line() {
        assert_eq!(
            answered(b"OK 4294967295\nrest").await.expect("connected"),
            b"rest"
        );
    }

    #[tokio::test]
    async fn a_refusal_is_told_from_nonsense() {
        let refused = answered(b"").await.expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(answered(b"NO\n").await.is_err());
        assert!(answered(&[b'x'; 100]).await.is_err());
    }
}
