//! Who this guest is and what time it has: all that makes it differ from others of its image.

use std::fs;

use pyro_agent_protocol::Welcome;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::sys::ioctl;

const MACHINE_ID: &str = "/etc/machine-id";

/// Takes on what the host says. What fails is reported and left.
pub(super) fn take_on(welcome: &Welcome) {
    let report = |what: &str, result: Result<(), Errno>| {
        if let Err(errno) = result {
            crate::log::warning(format_args!("cannot set {what}: {errno}"));
        }
    };
    // First, since programs and the machine id draw on it.
    report("the random generator's seed", mix_in(&welcome.entropy));
    report("the clock", set_clock(welcome.realtime_ns));
    report("the host name", set_hostname(&welcome.hostname));
    report(MACHINE_ID, make_machine_id());
}

fn mix_in(entropy: &[u8]) -> Result<(), Errno> {
    if entropy.is_empty() {
        return Ok(());
    }
    let random = open(
        "/dev/urandom",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    ioctl::add_entropy(random, entropy)
}

fn set_clock(realtime_ns: u64) -> Result<(), Errno> {
    const SECOND: u64 = 1_000_000_000;
    let tv_sec = i64::try_from(realtime_ns / SECOND).map_err(|_| Errno::INVAL)?;
    let tv_nsec = i64::try_from(realtime_ns % SECOND).map_err(|_| Errno::INVAL)?;
    clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec })
}

fn set_hostname(name: &str) -> Result<(), Errno> {
    if !is_hostname(name) {
        return Err(Errno::INVAL);
    }
    rustix::system::sethostname(name.as_bytes())
}

/// One label or several, hostname(7); at most `HOST_NAME_MAX`, 64 bytes.
fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

/// Makes a machine id, machine-id(5), where the image has none: every guest is its own machine.
fn make_machine_id() -> Result<(), Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    match fs::read(MACHINE_ID) {
        Ok(id) if !needs_machine_id(&id) => return Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(errno(error)),
        _ => {}
    }
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    fs::write(MACHINE_ID, machine_id(bytes)).map_err(errno)
}

fn needs_machine_id(id: &[u8]) -> bool {
    matches!(id.trim_ascii(), b"" | b"uninitialized")
}

/// The id as text, marked as a random UUID the way systemd does.
fn machine_id(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    format!("{:032x}\n", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_that_are_none_are_refused() {
        for good in ["a", "debian-12", "a.b.c", "1"] {
            assert!(is_hostname(good), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "-a", "a-", "a..b", "a b", "a\n", "ä", &long] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }

    #[test]
    fn a_machine_id_is_32_hexadecimal_digits() {
        let id = machine_id([0; 16]);
        assert_eq!(id, "00000000000040008000000000000000\n");
    }

    #[test]
    fn only_an_id_that_is_none_is_replaced() {
        assert!(needs_machine_id(b""));
        assert!(needs_machine_id(b"uninitialized\n"));
        assert!(!needs_machine_id(b"00000000000040008000000000000000\n"));
    }
}
