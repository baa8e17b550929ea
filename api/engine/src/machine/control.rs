//! The monitor's control socket, seen from its parent.
//!
//! A task reads the socket for as long as the monitor lives: replies go to whoever asked, and the
//! last event, how the VM ended, can be waited for by anybody at any time with
//! [`Control::ended`]. The monitor's messages are bounded like everybody's.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use pyro_vmm::control::{Event, ExitReason, MAX_MESSAGE, Message, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

/// How a VM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The monitor said so, as its last word.
    Reported {
        /// Why.
        reason: ExitReason,
        /// The end of the guest's console.
        console_tail: String,
    },
    /// The control socket closed without a last word: the monitor was killed or crashed.
    Silently,
}

/// The parent's end of a control socket.
#[derive(Debug)]
pub struct Control {
    writer: OwnedWriteHalf,
    replies: mpsc::Receiver<Reply>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Control {
    /// Takes the parent's end and starts to read it.
    pub fn start(socket: UnixStream) -> Self {
        let (reader, writer) = socket.into_split();
        let (reply_tx, replies) = mpsc::channel(8);
        let (ended_tx, ended) = watch::channel(None);
        tokio::spawn(async move {
            let end = read_all(reader, reply_tx).await;
            ended_tx.send_replace(Some(end));
        });
        Self {
            writer,
            replies,
            ended,
        }
    }

    /// Sends one request and waits for its reply. `None` when the monitor has gone.
    pub async fn ask(&mut self, request: &Request) -> Option<Reply> {
        self.send(request).await.ok()?;
        self.replies.recv().await
    }

    /// Sends one request and does not wait.
    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        let body = serde_json::to_vec(request)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        self.writer.write_all(&bytes).await
    }

    /// Sends one request with a descriptor and waits for its reply. `None` when the monitor has
    /// gone.
    pub async fn ask_with(&mut self, request: &Request, descriptor: OwnedFd) -> Option<Reply> {
        let body = serde_json::to_vec(request).ok()?;
        let length = u32::try_from(body.len()).ok()?;
        let bytes = [&length.to_le_bytes()[..], &body].concat();
        // The descriptor goes with the first bytes of the frame.
        let sent = loop {
            self.writer.writable().await.ok()?;
            let stream: &UnixStream = self.writer.as_ref();
            let result = stream.try_io(Interest::WRITABLE, || {
                send_with(stream, &bytes, descriptor.as_fd())
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result.ok()?,
            }
        };
        self.writer.write_all(&bytes[sent..]).await.ok()?;
        self.replies.recv().await
    }

    /// Waits until the VM has ended, and says how. Can be called by several, and again.
    pub fn ended(&self) -> impl Future<Output = Ended> + use<> {
        let mut ended = self.ended.clone();
        async move {
            let end = match ended.wait_for(Option::is_some).await {
                Ok(end) => end.clone(),
                Err(_) => None,
            };
            end.unwrap_or(Ended::Silently)
        }
    }
}

fn send_with(stream: impl AsFd, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let parts = [IoSlice::new(bytes)];
    Ok(sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads until the last word, the socket's end or nonsense.
async fn read_all(mut reader: OwnedReadHalf, replies: mpsc::Sender<Reply>) -> Ended {
    while let Ok(message) = read_message(&mut reader).await {
        match message {
            // Nobody waiting for a reply is no reason to stop reading.
            Message::Reply(reply) => drop(replies.try_send(reply)),
            Message::Event(Event::Started) => {}
            Message::Event(Event::Exited {
                reason,
                console_tail,
            }) => {
                return Ended::Reported {
                    reason,
                    console_tail,
                };
            }
        }
    }
    Ended::Silently
}

async fn read_message(reader: &mut OwnedReadHalf) -> io::Result<Message> {
    let length = reader.read_u32_le().await? as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::other("a control message is longer than allowed"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(message: &Message) -> Vec<u8> {
        let body = serde_json::to_vec(message).expect("serialises");
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn replies_reach_the_asker_and_the_end_reaches_everybody() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        let mut control = Control::start(ours);
        let ended = control.ended();
        let monitor = tokio::spawn(async move {
            let length = theirs.read_u32_le().await.expect("length") as usize;
            let mut body = vec![0; length];
            theirs.read_exact(&mut body).await.expect("body");
            assert_eq!(
                serde_json::from_slice::<Request>(&body).expect("JSON"),
                Request::Stop
            );
            theirs
                .write_all(&message(&Message::Event(Event::Started)))
                .await
                .expect("write");
            theirs
                .write_all(&message(&Message::Reply(Reply::Ok)))
                .await
                .expect("write");
            let last = Event::Exited {
                reason: ExitReason::Stopped,
                console_tail: "x".into(),
            };
            theirs
                .write_all(&message(&Message::Event(last)))
                .await
                .expect("write");
        });

        assert!(matches!(control.ask(&Request::Stop).await, Some(Reply::Ok)));

        monitor.await.expect("no panic");
        let end = Ended::Reported {
            reason: ExitReason::Stopped,
            console_tail: "x".into(),
        };
        assert_eq!(ended.await, end);
        assert_eq!(control.ended().await, end);
    }

    #[tokio::test]
    async fn a_closed_socket_a_huge_length_and_nonsense_all_end_silently() {
        for bytes in [&b""[..], &[0xff, 0xff, 0xff, 0xff], b"\x02\x00\x00\x00{}"] {
            let (ours, mut theirs) = UnixStream::pair().expect("pair");
            let mut control = Control::start(ours);
            theirs.write_all(bytes).await.expect("write");
            if bytes.is_empty() {
                drop(theirs);
            }
            assert_eq!(control.ended().await, Ended::Silently);
            assert!(control.ask(&Request::Stats).await.is_none());
        }
    }
}
