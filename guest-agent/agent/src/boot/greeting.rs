//! The first words with the host: [`Hello`] and [`Welcome`] on the stream to [`READY_PORT`].

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use pyro_agent_protocol::{
    Decoder, FrameError, GENERATION, Hello, READY_PORT, Welcome, encode_message,
};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::time::{ClockId, clock_gettime};

use crate::sys::vsock;

/// Why host and guest could not come together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetingError {
    #[error("no stream to the host")]
    Stream(#[source] Errno),
    #[error("the host closed the stream without a welcome")]
    Closed,
    #[error("the host does not speak the agent's protocol")]
    Protocol(#[source] FrameError),
    #[error("the host speaks generation {host} of the protocol, this agent {GENERATION}")]
    Generation { host: u32 },
}

/// The stream on which it happens.
#[derive(Debug)]
pub(super) struct Greeting {
    stream: OwnedFd,
}

impl Greeting {
    pub(super) fn connect() -> Result<Self, GreetingError> {
        let stream = vsock::connect_to_host(READY_PORT).map_err(GreetingError::Stream)?;
        Ok(Self { stream })
    }

    pub(super) fn say_hello(&mut self) -> Result<(), GreetingError> {
        let now = clock_gettime(ClockId::Monotonic);
        let nanoseconds = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let hello = Hello {
            generation: GENERATION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            boot_ns: u64::try_from(nanoseconds).unwrap_or(0),
        };
        let bytes = encode_message(&hello).map_err(GreetingError::Protocol)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(GreetingError::Stream(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn welcome(&mut self) -> Result<Welcome, GreetingError> {
        let mut decoder = Decoder::new();
        loop {
            let mut piece = [const { MaybeUninit::<u8>::uninit() }; 4096];
            let mut input: &[u8] = match rustix::io::read(&self.stream, &mut piece[..]) {
                Ok(([], _)) => return Err(GreetingError::Closed),
                Ok((bytes, _)) => bytes,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(GreetingError::Stream(errno)),
            };
            let Some(frame) = decoder
                .decode(&mut input)
                .map_err(GreetingError::Protocol)?
            else {
                continue;
            };
            let welcome: Welcome = frame.message().map_err(GreetingError::Protocol)?;
            if welcome.generation != GENERATION {
                return Err(GreetingError::Generation {
                    host: welcome.generation,
                });
            }
            return Ok(welcome);
        }
    }

    pub(super) fn into_stream(self) -> OwnedFd {
        self.stream
    }
}
