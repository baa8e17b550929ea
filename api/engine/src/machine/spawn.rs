#![allow(
    unsafe_code,
    reason = "what a child inherits is decided between fork and exec"
)]
//! What a child process gets from us: its three standard streams and the descriptors that it is
//! meant to have, whatever else is open here or was inherited from our own parent.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;

use tokio::process::Command;

/// Makes the child inherit exactly `keep` besides its standard streams, under the same numbers;
/// makes it die with the thread that starts it, and puts it into a process group of its own, so
/// that a terminal's Ctrl-C reaches us and not it.
///
/// The descriptors must stay open until the child is started.
pub(crate) fn inherit_only(command: &mut Command, keep: &[RawFd]) {
    command.process_group(0);
    let mark = mark_inherited(keep);
    // SAFETY: the closure runs in the child between fork and exec. It makes only system calls
    // that are async-signal-safe, and touches only memory that was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            mark()?;
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Makes the child inherit exactly `keep` besides its standard streams, under the same numbers;
/// puts it into a session of its own, in which it outlives us; and makes it write its line of
/// `/proc/self/stat` into `identity` before it is executed, so that whoever sees that it may
/// exist also sees which process it is.
///
/// The descriptors must stay open until the child is started.
pub(crate) fn outlive_us(command: &mut std::process::Command, keep: &[RawFd], identity: File) {
    let mark = mark_inherited(keep);
    // SAFETY: as above; the buffer is on the child's stack.
    unsafe {
        command.pre_exec(move || {
            mark()?;
            if libc::setsid() == -1 {
                return Err(io::Error::last_os_error());
            }
            let stat = libc::open(
                c"/proc/self/stat".as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
            );
            let mut line = [0u8; 1024];
            let read = libc::read(stat, line.as_mut_ptr().cast(), line.len());
            let Ok(length) = usize::try_from(read) else {
                return Err(io::Error::last_os_error());
            };
            let written = libc::write(identity.as_raw_fd(), line.as_ptr().cast(), length);
            if written != read {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// What marks the descriptors, to be called between fork and exec.
fn mark_inherited(keep: &[RawFd]) -> impl Fn() -> io::Result<()> + Send + Sync + 'static {
    let keep = keep.to_vec();
    move || {
        // It closes nothing: descriptors are marked close-on-exec, so the standard library's own
        // error pipe keeps working.
        let first: libc::c_uint = 3;
        let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
        // SAFETY: neither call touches memory; both are async-signal-safe.
        unsafe {
            if libc::close_range(first, libc::c_uint::MAX, flags) != 0 {
                return Err(io::Error::last_os_error());
            }
            for fd in &keep {
                if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[tokio::test]
    async fn the_child_has_the_kept_descriptor_and_no_other() {
        let kept = File::open("/dev/null").expect("open");
        let other = File::open("/dev/null").expect("open");
        // As if our own parent had leaked it to us.
        rustix::io::fcntl_setfd(&other, rustix::io::FdFlags::empty()).expect("set");
        let mut command = Command::new("/bin/sh");
        // readlink's own folder descriptor does not count: list numbers that are still open.
        let script = format!(
            "for fd in {} {}; do [ -e /proc/self/fd/$fd ] && echo $fd; done; true",
            kept.as_raw_fd(),
            other.as_raw_fd()
        );
        command
            .args(["-c", &script])
            .stdin(std::process::Stdio::null());
        inherit_only(&mut command, &[kept.as_raw_fd()]);

        let output = command.output().await.expect("runs");

        assert!(output.status.success());
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{}\n", kept.as_raw_fd())
        );
    }

    #[tokio::test]
    async fn the_child_leads_its_own_process_group() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$; cut -d' ' -f5 /proc/$$/stat"]);
        inherit_only(&mut command, &[]);

        let output = command.output().await.expect("runs");

        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], lines[1]);
    }
}
