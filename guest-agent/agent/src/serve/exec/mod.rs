//! One running program and its pipes, or its terminal.
//!
//! The states it goes through: it runs; it has ended (or is being killed because its time is up or
//! somebody cancelled it); what its pipes held at its end is drained into its [`Sink`]; then its end
//! is reported. It never waits for the end of its output, since a background child may hold that
//! open for ever.

mod drain;
mod input;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use pyro_agent_protocol::{
    ExitStatus, Frame, FrameKind, Signal as SignalMessage, TerminalSize, parse,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus};

use self::drain::Drain;
use self::input::Input;
use super::poller::{OperationId, Output, Poller, Watched};
use super::stream::Gone;
use crate::program::Program;
use crate::program::group::Group;
use crate::program::terminal::Terminal;

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
    /// While the program runs, if it has one.
    terminal: Option<Terminal>,
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
        let is_terminal = program.terminal.is_some();
        let drain = |pipe, output| Drain::new(pipe, is_terminal, output, id, poller);
        Self {
            pid: program.pid,
            group: program.group,
            stdin: Input::new(program.stdin, !is_terminal, id, poller),
            stdout: drain(Some(program.stdout), Output::Stdout),
            stderr: drain(program.stderr, Output::Stderr),
            terminal: program.terminal,
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
        // From here on the terminal is those processes' that still have it.
        self.terminal = None;
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

    /// Sends a signal to the foreground process group of the program's terminal, if it has one.
    pub(super) fn signal_foreground(&self, number: u8) {
        if let (Some(terminal), Some(signal)) = (&self.terminal, named(number)) {
            terminal.signal_foreground(signal);
        }
    }

    /// Gives the program's terminal another size, if it has one and runs.
    pub(super) fn resize(&self, size: TerminalSize) -> Result<(), Errno> {
        match &self.terminal {
            Some(terminal) => terminal.resize(size),
            None => Ok(()),
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

    /// Takes input of a stream that waits until it is written. Once it is closed nothing is taken.
    pub(super) fn take_input(&mut self, from: OperationId, bytes: &[u8]) {
        self.stdin.take_from(from, bytes);
    }

    /// Whether something that a stream waits for is not written.
    pub(super) fn owes_input(&self, from: OperationId) -> bool {
        self.stdin.owes(from)
    }

    /// Forgets what is not written of a stream.
    pub(super) fn withdraw_input(&mut self, from: OperationId) {
        self.stdin.withdraw(from);
    }

    /// Whether nothing more will be written.
    pub(super) fn input_is_gone(&self) -> bool {
        self.stdin.is_gone()
    }

    /// Whether input that comes from now on can still be written.
    pub(super) fn input_is_open(&self) -> bool {
        self.stdin.is_open()
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
            while drain.left() > 0 && sink.has_room(drain.output) {
                if !drain.relay(sink, true) || sink.flush().is_err() {
                    break;
                }
            }
        }
        if self.stdout.left() > 0 || self.stderr.left() > 0 {
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
            let wanted = !self.drains_counted || drain.left() > 0;
            drain.watch(wanted && sink.has_room(drain.output))?;
        }
        Ok(())
    }

    /// Ends the service. What is left is the caller's to look after.
    pub(super) fn into_remains(self) -> Remains {
        let outputs = [self.stdout, self.stderr].into_iter();
        Remains {
            group: self.group,
            outputs: outputs.filter_map(Drain::into_open).collect(),
        }
    }
}

/// The signal of this number, 1 to 31.
pub(super) fn named(number: u8) -> Option<Signal> {
    Signal::from_named_raw(i32::from(number))
}
