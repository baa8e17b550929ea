//! This process's standard streams, whatever state their owner left them in.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{self, PollFd, PollFlags};

/// A stream of our own, without a buffer and without a lock. Its file description may be shared
/// with a process that has made it non-blocking; then this waits instead.
#[derive(Debug)]
pub struct Patient(File);

impl Patient {
    /// Duplicates the descriptor.
    ///
    /// # Errors
    /// When it is closed, or there are too many.
    pub fn duplicate(stream: impl AsFd) -> io::Result<Self> {
        Ok(Self(File::from(stream.as_fd().try_clone_to_owned()?)))
    }

    /// Waits when `result` says that the stream is not ready; true when the call is to be made again.
    fn again<T>(&self, result: &io::Result<T>, ready: PollFlags) -> bool {
        if !matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return false;
        }
        // An interrupted or failed wait shows in the next call.
        let _ = event::poll(&mut [PollFd::new(&self.0, ready)], None);
        true
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = self.0.read(buffer);
            if !self.again(&result, PollFlags::IN) {
                return result;
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let result = self.0.write(bytes);
            if !self.again(&result, PollFlags::OUT) {
                return result;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_stream_that_is_non_blocking_is_waited_for() {
        let (from, to) = io::pipe().unwrap();
        for end in [from.as_fd(), to.as_fd()] {
            rustix::fs::fcntl_setfl(end, rustix::fs::OFlags::NONBLOCK).unwrap();
        }
        let content = vec![7; 300_000]; // more than a pipe holds
        let mut writer = Patient::duplicate(&to).unwrap();
        drop(to);
        let sender = thread::spawn({
            let content = content.clone();
            move || writer.write_all(&content)
        });
        let mut received = Vec::new();
        Patient::duplicate(&from)
            .unwrap()
            .read_to_end(&mut received)
            .unwrap();
        sender.join().unwrap().unwrap();
        assert!(received == content);
    }
}
