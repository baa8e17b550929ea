//! The device's own epoll set, nested into the loop that hosts the device.
//!
//! Sockets are watched edge-triggered and only for what the connection can use at the moment, so
//! a socket that cannot be served wakes nobody. Each registration carries a [`Token`] that names
//! a slot and its generation, never a descriptor number, so an event for something that is gone
//! is recognised.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::slots::SlotId;

/// Most events taken in one go.
const EVENTS: usize = 64;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Timer,
    Slot(SlotId),
}

impl Token {
    /// Generations of slots start at 1, so the upper half tells them from these.
    const LISTENER: u64 = 0;
    const TIMER: u64 = 1;

    fn encode(self) -> EventData {
        EventData::new_u64(match self {
            Token::Listener => Self::LISTENER,
            Token::Timer => Self::TIMER,
            Token::Slot(slot) => u64::from(slot.generation) << 32 | u64::from(slot.index),
        })
    }

    fn decode(data: u64) -> Token {
        match data {
            Self::LISTENER => Token::Listener,
            Self::TIMER => Token::Timer,
            slot => Token::Slot(SlotId {
                generation: u32::try_from(slot >> 32).expect("32 bits are left"),
                index: u32::try_from(slot & 0xffff_ffff).expect("32 bits are left"),
            }),
        }
    }
}

/// An epoll set with one timer in it.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer fires, if it is set.
    alarm: Option<Instant>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        epoll::add(&epoll, &timer, Token::Timer.encode(), EventFlags::IN)?;
        Ok(Poller {
            epoll,
            timer,
            alarm: None,
        })
    }

    /// Readable when there are events to [`Self::take`].
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.epoll
    }

    pub(super) fn add(&self, fd: impl AsFd, token: Token, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.encode(), interest)?)
    }

    /// Changes the interest; an edge-triggered event that is already due fires again.
    pub(super) fn modify(
        &self,
        fd: impl AsFd,
        token: Token,
        interest: EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, token.encode(), interest)?)
    }

    /// Forgets `fd`. Needed before it is closed: a process forked from this one may keep the
    /// socket open, and its registration would live on.
    pub(super) fn remove(&self, fd: impl AsFd) {
        // Nothing to forget is as good as forgotten.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for an event, at most this long.
    pub(super) fn wait(&self, most: Duration) -> io::Result<()> {
        match poll(
            &mut [PollFd::new(&self.epoll, PollFlags::IN)],
            Some(&timespec(most)),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes some of the events that are due, without waiting. True says that there may be more.
    pub(super) fn take(&self, events: &mut Vec<(Token, EventFlags)>) -> io::Result<bool> {
        let mut buffer = Vec::with_capacity(EVENTS);
        let now = timespec(Duration::ZERO);
        match epoll::wait(&self.epoll, spare_capacity(&mut buffer), Some(&now)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let full = buffer.len() == EVENTS;
        events.extend(
            buffer
                .into_iter()
                .map(|event| (Token::decode(event.data.u64()), event.flags)),
        );
        Ok(full)
    }

    /// Sees to it that the timer fires at `deadline` or before.
    pub(super) fn wake_by(&mut self, deadline: Instant) -> io::Result<()> {
        if self.alarm.is_some_and(|alarm| alarm <= deadline) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.set_timer(left.max(Duration::from_nanos(1)))?;
        self.alarm = Some(deadline);
        Ok(())
    }

    /// Quiets the timer after it has fired.
    pub(super) fn timer_fired(&mut self) -> io::Result<()> {
        self.alarm = None;
        // Setting a timer also takes its expirations back.
        self.set_timer(Duration::ZERO)
    }

    fn set_timer(&self, left: Duration) -> io::Result<()> {
        let spec = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(left),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_encoding() {
        for token in [
            Token::Listener,
            Token::Timer,
            Token::Slot(SlotId {
                generation: 1,
                index: 0,
            }),
            Token::Slot(SlotId {
                generation: u32::MAX,
                index: 319,
            }),
        ] {
            assert_eq!(Token::decode(token.encode().u64()), token);
        }
    }

    #[test]
    fn a_timer_that_fired_stays_quiet() {
        let mut poller = Poller::new().unwrap();
        poller.wake_by(Instant::now()).unwrap();
        let mut events = Vec::new();
        while events.is_empty() {
            poller.take(&mut events).unwrap();
        }
        assert_eq!(events[0].0, Token::Timer);
        poller.timer_fired().unwrap();
        events.clear();
        poller.take(&mut events).unwrap();
        assert!(events.is_empty());
    }
}
