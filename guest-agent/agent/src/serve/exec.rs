//! One running program and its pipes.
//!
//! The states it goes through: it runs; it has ended (or is being killed because its time is up or
//! somebody cancelled it); what its pipes held at its end is drained into its [`Sink`]; then its end
//! is reported. It never waits for the end of its output, since a background child may hold that
//! open for ever.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use pyro_agent_protocol::{ExitStatus, Frame, FrameKind, Signal as SignalMessage, parse};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus};

use super::poller::{Interest, OperationId, Output, Poller, Source, Watched};
use super::stream::{Gone, PIECE};
use crate::program::Program;
use crate::program::group::Group;

/// While more input than this waits for the program to read it, the stream is not read.
const INPUT_LIMIT: usize = 64 << 10;
/// How long a killed program may take to be gone before its end is reported all the same.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How soon a killed program is looked at again.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
/// Pieces of output that are relayed before others get their turn.
const TURNS: usize = 4;

#[derive(Debug)]
pub(super) struct Exec {
    pub(super) pid: Pid,
    group: Group,
    stdin: Input,
    stdout: Drain,
    stderr: Drain,
    started: Instant,
    deadline: Option<Instant>,
    killed: Option<Killed>,
    /// How and when the program ended.
    ended: Option<(ExitStatus, Instant)>,
    drains_counted: bool,
}

/// A program that is to die with all it started.
#[derive(Debug, Clone, Copy)]
struct Killed {
    since: Instant,
    /// When to look again whether all are gone.
    next: Instant,
    /// Its status if it does not go.
    status: ExitStatus,
}

/// How a program ended, and for how many nanoseconds it ran.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) status: ExitStatus,
    pub(super) duration_ns: u64,
}

/// Where a program's output goes.
pub(super) trait Sink {
    /// Whether it takes more of this output.
    fn has_room(&self, output: Output) -> bool;
    /// Takes up to `most` bytes of a pipe. Gives their number; 0 is the end.
    fn relay(&mut self, pipe: BorrowedFd<'_>, output: Output, most: usize) -> Result<usize, Errno>;
    /// Passes on what was taken.
    fn flush(&mut self) -> Result<(), Gone>;
}

/// The program's input.
#[derive(Debug)]
struct Input {
    /// Absent when it is closed, or was never open.
    pipe: Option<Watched>,
    waiting: Vec<u8>,
    written: usize,
    /// The host has sent all.
    complete: bool,
}

/// One of the program's outputs.
#[derive(Debug)]
struct Drain {
    output: Output,
    /// Absent when it has ended.
    pipe: Option<Watched>,
    /// After the program's end: what is still to be relayed.
    left: usize,
}

/// What a program that has ended leaves behind.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) group: Group,
    /// Outputs that a background child may still write to.
    pub(super) outputs: Vec<(Output, Watched)>,
}

impl Exec {
    pub(super) fn new(
        program: Program,
        timeout: Option<Duration>,
        id: OperationId,
        poller: &Poller,
    ) -> Self {
        let started = Instant::now();
        let drain = |pipe, output| Drain {
            output,
            pipe: Some(Watched::new(pipe, Source::Output(id, output), poller)),
            left: 0,
        };
        let pipe = program
            .stdin
            .map(|pipe| Watched::new(pipe, Source::Stdin(id), poller));
        Self {
            pid: program.pid,
            group: program.group,
            stdin: Input {
                pipe,
                waiting: Vec::new(),
                written: 0,
                complete: false,
            },
            stdout: drain(program.stdout, Output::Stdout),
            stderr: drain(program.stderr, Output::Stderr),
            started,
            // A time too far away to be counted never comes.
            deadline: timeout.and_then(|timeout| started.checked_add(timeout)),
            killed: None,
            ended: None,
            drains_counted: false,
        }
    }

    /// When something has to be done for this program though nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match (self.killed, self.ended) {
            (Some(killed), _) if !self.drains_counted => Some(killed.next),
            (None, None) => self.deadline,
            _ => None,
        }
    }

    /// To be called when [`Exec::deadline`] has come: kills everything, again while any is left.
    pub(super) fn time_is_up(&mut self, now: Instant) {
        self.kill(now, ExitStatus::TimedOut);
    }

    /// Kills everything. False when the program has ended or is being killed already.
    pub(super) fn cancel(&mut self, now: Instant) -> bool {
        let first = self.ended.is_none() && self.killed.is_none();
        if first {
            let signal = u8::try_from(Signal::KILL.as_raw()).unwrap_or(9);
            self.kill(now, ExitStatus::Signal { signal });
        }
        first
    }

    fn kill(&mut self, now: Instant, status: ExitStatus) {
        let next = now + KILL_INTERVAL;
        let killed = self.killed.get_or_insert(Killed {
            since: now,
            next,
            status,
        });
        killed.next = next;
        self.group.kill();
    }

    /// The program has been reaped.
    pub(super) fn reaped(&mut self, status: WaitStatus) {
        // The group's number stays taken while it has members, but not once it is empty.
        self.group.leader_gone();
        self.stdin.close();
        let status = match (
            self.killed,
            status.exit_status(),
            status.terminating_signal(),
        ) {
            (Some(killed), _, _) => killed.status,
            (None, Some(code), _) => ExitStatus::Code {
                code: u8::try_from(code).unwrap_or(255),
            },
            (None, None, Some(signal)) => ExitStatus::Signal {
                signal: u8::try_from(signal).unwrap_or(0),
            },
            (None, None, None) => ExitStatus::Code { code: 255 },
        };
        self.ended = Some((status, Instant::now()));
    }

    /// Sends a signal to the program's process group.
    pub(super) fn signal(&self, number: u8) {
        if self.ended.is_none()
            && let Some(signal) = named(number)
        {
            self.group.signal(signal);
        }
    }

    /// Takes a frame from the host. Gives the reason when it makes no sense here.
    pub(super) fn frame(&mut self, frame: &Frame) -> Result<(), String> {
        match frame.kind {
            FrameKind::Stdin => {
                self.stdin.take(&frame.payload);
                Ok(())
            }
            FrameKind::Signal => match parse::<SignalMessage>(&frame.payload) {
                Ok(SignalMessage { signal }) if named(signal).is_some() => {
                    self.signal(signal);
                    Ok(())
                }
                Ok(SignalMessage { signal }) => Err(format!("{signal} is no signal")),
                Err(error) => Err(error.to_string()),
            },
            other => Err(format!(
                "a frame of kind {other:?} makes no sense during an exec"
            )),
        }
    }

    /// The program may take input again.
    pub(super) fn input_ready(&mut self) {
        self.stdin.write();
    }

    /// There is output.
    pub(super) fn output_ready(&mut self, output: Output, sink: &mut dyn Sink) {
        let ended = self.drains_counted;
        let drain = match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        for _ in 0..TURNS {
            if !sink.has_room(output) || !drain.relay(sink, ended) {
                break;
            }
            if sink.flush().is_err() {
                break; // The stream's own event tells.
            }
        }
    }

    /// Goes on as far as possible. Gives the program's end once all its output is in the sink.
    pub(super) fn advance(&mut self, sink: &mut dyn Sink) -> Option<End> {
        let overdue = self
            .killed
            .filter(|killed| killed.since.elapsed() > KILL_LIMIT);
        let (status, at) = match (self.ended, overdue) {
            (Some(ended), None) if self.killed.is_none() || self.group.is_empty() => ended,
            (Some(ended), Some(_)) => ended,
            (None, Some(killed)) => (killed.status, Instant::now()),
            _ => return None,
        };
        if !self.drains_counted {
            self.drains_counted = true;
            self.stdout.count();
            self.stderr.count();
        }
        for drain in [&mut self.stdout, &mut self.stderr] {
            while drain.left > 0 && sink.has_room(drain.output) {
                if !drain.relay(sink, true) || sink.flush().is_err() {
                    break;
                }
            }
        }
        if self.stdout.left > 0 || self.stderr.left > 0 {
            return None;
        }
        let lasted = at.saturating_duration_since(self.started);
        let duration_ns = u64::try_from(lasted.as_nanos()).unwrap_or(u64::MAX);
        Some(End {
            status,
            duration_ns,
        })
    }

    /// Whether the program's input is taken as it comes.
    pub(super) fn takes_input(&self) -> bool {
        self.stdin.has_room()
    }

    /// Watches the pipes for what can be done something about.
    pub(super) fn watch(&mut self, sink: &dyn Sink) -> Result<(), Errno> {
        self.stdin.watch()?;
        for drain in [&mut self.stdout, &mut self.stderr] {
            let wanted = sink.has_room(drain.output) && (!self.drains_counted || drain.left > 0);
            if let Some(pipe) = &mut drain.pipe {
                pipe.watch(if wanted {
                    Interest::READ
                } else {
                    Interest::NONE
                })?;
            }
        }
        Ok(())
    }

    /// Ends the service. What is left is the caller's to look after.
    pub(super) fn into_remains(self) -> Remains {
        let outputs = [(Output::Stdout, self.stdout), (Output::Stderr, self.stderr)];
        let open = outputs
            .into_iter()
            .filter_map(|(output, drain)| Some((output, drain.pipe?)));
        Remains {
            group: self.group,
            outputs: open.collect(),
        }
    }
}

impl Input {
    fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.complete = true;
        } else if self.pipe.is_some() && !self.complete {
            self.waiting.drain(..self.written);
            self.written = 0;
            self.waiting.extend_from_slice(bytes);
        }
        self.write();
    }

    fn write(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        while self.written < self.waiting.len() {
            match rustix::io::write(pipe, &self.waiting[self.written..]) {
                Ok(length) => self.written += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // EPIPE: nobody will read. The rest is taken and thrown away.
                Err(_) => return self.close(),
            }
        }
        self.waiting.clear();
        self.written = 0;
        if self.complete {
            self.close();
        }
    }

    fn close(&mut self) {
        self.pipe = None;
        self.waiting = Vec::new();
        self.written = 0;
    }

    fn has_room(&self) -> bool {
        self.waiting.len() - self.written < INPUT_LIMIT
    }

    fn watch(&mut self) -> Result<(), Errno> {
        let waits = self.written < self.waiting.len();
        match &mut self.pipe {
            Some(pipe) => pipe.watch(if waits {
                Interest::WRITE
            } else {
                Interest::NONE
            }),
            None => Ok(()),
        }
    }
}

impl Drain {
    /// Relays one piece. False when there is nothing more for now.
    fn relay(&mut self, sink: &mut dyn Sink, counted: bool) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let most = if counted { self.left } else { PIECE };
        if most == 0 {
            return false;
        }
        match sink.relay(pipe.as_fd(), self.output, most) {
            Ok(0) => {
                self.pipe = None;
                self.left = 0;
                false
            }
            Ok(length) => {
                self.left = self.left.saturating_sub(length);
                true
            }
            Err(Errno::INTR) => true,
            // Counted bytes that are not there: another reader has taken them.
            Err(Errno::AGAIN) => {
                self.left = 0;
                false
            }
            Err(_) => {
                self.pipe = None;
                self.left = 0;
                false
            }
        }
    }

    /// Takes note of what the pipe holds now: that much is the program's output, what a background
    /// child writes later is not.
    fn count(&mut self) {
        let held = self
            .pipe
            .as_ref()
            .map(|pipe| rustix::io::ioctl_fionread(pipe.as_fd()));
        self.left = match held {
            Some(Ok(held)) => usize::try_from(held).unwrap_or(0),
            _ => 0,
        };
    }
}

/// The signal of this number, 1 to 31.
pub(super) fn named(number: u8) -> Option<Signal> {
    Signal::from_named_raw(i32::from(number))
}
