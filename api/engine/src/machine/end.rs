//! What a person is told when a VM ended before it should have.

use std::io;
use std::time::Duration;

use pyro_vmm::control::ExitReason;

use super::Ended;
use crate::error::{Code, Error};

const AGAIN: &str = "run it again; when it happens again, report it with the detail below";
const MORE_MEMORY: &str =
    "see the end of the guest's console below; a guest short of memory needs a larger --mem-mib";

/// How many lines of a console a person is shown.
const LINES: usize = 40;
/// What the kernel's last words start with.
const PANIC: &str = "Kernel panic";

/// Lines from the guest or the monitor, made safe for a terminal: those from a panic on, else
/// the last.
pub(super) fn printable_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    let last = lines.len().saturating_sub(LINES);
    let from = lines
        .iter()
        .rposition(|line| line.contains(PANIC))
        .map_or(last, |at| at.min(last));
    let shown = lines[from..]
        .iter()
        .take(LINES)
        .copied()
        .collect::<Vec<_>>()
        .join("\n");
    shown
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The VM ended before the agent was ready.
pub(super) fn before_ready(ended: &Ended) -> Error {
    describe(ended, "before it was ready", Code::BootFailed)
}

/// The VM ended while it was in use.
pub(super) fn before_done(ended: &Ended) -> Error {
    describe(ended, "before the command was done", Code::GuestEnded)
}

/// The VM ended while nobody had asked for it.
pub(super) fn by_itself(ended: &Ended) -> Error {
    describe(ended, "while the workspace ran", Code::GuestEnded)
}

fn describe(ended: &Ended, when: &str, code: Code) -> Error {
    let Ended::Reported {
        reason,
        console_tail,
    } = ended
    else {
        return Error::new(
            Code::MonitorFailed,
            format!("the VM's monitor was killed or crashed {when}"),
            "check whether the host ran out of memory (`dmesg | tail`), then run it again",
        );
    };
    let panicked = console_tail.contains(PANIC);
    let error = match reason {
        ExitReason::Reset | ExitReason::TripleFault if panicked => Error::new(
            Code::GuestCrashed,
            format!("the guest's kernel panicked {when}"),
            MORE_MEMORY,
        ),
        ExitReason::TripleFault => Error::new(
            Code::GuestCrashed,
            format!("the guest's processor shut down {when}"),
            MORE_MEMORY,
        ),
        ExitReason::PowerOff => {
            Error::new(code, format!("the guest powered itself off {when}"), AGAIN)
        }
        ExitReason::Reset => Error::new(code, format!("the guest rebooted {when}"), MORE_MEMORY),
        ExitReason::Stopped => Error::new(
            Code::MonitorFailed,
            format!("the VM was stopped from outside {when}"),
            AGAIN,
        ),
        ExitReason::InternalError {
            suberror,
            rip,
            instruction,
            remedy,
        } => Error::new(
            Code::KvmCannotRunGuest,
            format!(
                "KVM gave up on the guest {when} (sub-error {suberror} at {rip:#x}, \
                 instruction bytes {instruction})"
            ),
            remedy.clone(),
        ),
        ExitReason::FailedEntry { hardware_reason } => Error::new(
            Code::KvmCannotRunGuest,
            format!("KVM refused to enter the guest (hardware reason {hardware_reason:#x})"),
            "run `pyro doctor`; a newer host kernel or firmware may be needed",
        ),
        ExitReason::Failed { message } => Error::new(
            Code::MonitorFailed,
            format!(
                "the VM's monitor failed {when}: {}",
                crate::exec::printable(message)
            ),
            AGAIN,
        ),
    };
    error.with_detail(printable_lines(console_tail))
}

/// The agent did not greet in time.
pub(super) fn not_ready(deadline: Duration) -> Error {
    Error::new(
        Code::BootFailed,
        format!(
            "the guest was not ready after {} seconds",
            deadline.as_secs()
        ),
        "check the host's load, and `pyro doctor`; the end of the guest's console is below",
    )
}

/// The agent greeted in a way that we do not understand.
pub(super) fn bad_greeting(error: io::Error) -> Error {
    Error::new(
        Code::AgentFailed,
        "the guest's agent did not greet as it should",
        "make sure that pyro, pyro-vmm and pyro-agent are of one version",
    )
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(reason: ExitReason, console: &str) -> Ended {
        Ended::Reported {
            reason,
            console_tail: console.to_string(),
        }
    }

    #[test]
    fn a_panic_is_told_from_a_reboot_by_the_console() {
        let panic = reported(ExitReason::Reset, "Kernel panic - not syncing");
        let reboot = reported(ExitReason::Reset, "bye");

        assert_eq!(before_ready(&panic).code(), Code::GuestCrashed);
        assert_eq!(before_ready(&reboot).code(), Code::BootFailed);
        assert_eq!(before_done(&reboot).code(), Code::GuestEnded);
    }

    #[test]
    fn an_internal_error_carries_the_monitors_remedy_and_the_bytes() {
        let reason = ExitReason::InternalError {
            suberror: 1,
            rip: 0x1000,
            instruction: "f00fc7".into(),
            remedy: "use hardware KVM".into(),
        };
        let error = before_ready(&reported(reason, ""));

        assert_eq!(error.code(), Code::KvmCannotRunGuest);
        assert!(error.message().contains("f00fc7"));
        assert_eq!(error.remedy(), "use hardware KVM");
    }

    #[test]
    fn a_killed_monitor_is_the_monitors_failure() {
        assert_eq!(before_done(&Ended::Silently).code(), Code::MonitorFailed);
    }

    #[test]
    fn console_lines_cannot_drive_the_terminal() {
        assert_eq!(printable_lines("a\x1b[2J\r\nb\n"), "a\u{fffd}[2J\nb");
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let shown = printable_lines(&text);
        assert_eq!(shown.lines().count(), LINES);
        assert!(
            shown.starts_with("60\n") && shown.ends_with("\n99"),
            "{shown}"
        );
    }

    #[test]
    fn a_panic_is_shown_from_its_first_line() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let text = text.replace("57\n", "Kernel panic - not syncing: 57\n");
        let shown = printable_lines(&text);
        assert_eq!(shown.lines().count(), LINES);
        assert!(
            shown.starts_with("Kernel panic - not syncing: 57\n58\n"),
            "{shown}"
        );
    }
}
