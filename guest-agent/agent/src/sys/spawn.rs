//! Starting a program: clone3(2) straight into its cgroup, then everything up to execve(2).
//!
//! The agent may have other threads, of which the child has no copy, so the child makes system
//! calls only and allocates nothing: what it needs is laid out in [`Plan`] before. The parent
//! waits (`CLONE_VFORK`) until the program runs or has failed to, so a `Pid` that [`spawn`] gives
//! leads its own session and process group already.

#![allow(unsafe_code)] // clone3 and execve have no safe form.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Uid};

use super::{check, signals};

/// clone3(2): put the child into the cgroup whose directory is open at `cgroup`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// close_range(2): mark the descriptors instead of closing them.
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Whom the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
}

/// All that the child needs, ready to be used without allocating.
pub(crate) struct Plan<'a> {
    /// Paths to try in turn, as execvp(3) does.
    pub(crate) candidates: &'a [CString],
    pub(crate) argv: &'a [CString],
    pub(crate) envp: &'a [CString],
    pub(crate) cwd: &'a CStr,
    /// Unchanged when absent.
    pub(crate) credentials: Option<&'a Credentials>,
    /// What becomes descriptors 0, 1 and 2. None of them may be below 3.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether they are a terminal that is to control the program's session.
    pub(crate) terminal: bool,
    /// The directory of the cgroup to start in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// Session, descriptors.
    Setup = 0,
    /// Taking on user and groups.
    Credentials = 1,
    /// Entering the working directory.
    Cwd = 2,
    /// Running the program.
    Exec = 3,
}

/// Why no program runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// There is no child.
    #[error("cannot make a process")]
    Clone(#[source] Errno),
    /// The child could not become the program. It is gone and reaped.
    #[error("cannot start the program ({step:?})")]
    Child {
        step: Step,
        #[source]
        errno: Errno,
    },
}

/// Starts the program. Returns when it runs.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Pid, SpawnError> {
    let (report, report_in_child) = pipe_with(PipeFlags::CLOEXEC).map_err(SpawnError::Clone)?;
    let argv = pointers(plan.argv);
    let envp = pointers(plan.envp);
    // execvp's way to run a script without an interpreter line: `sh PATH ARG…`.
    let mut script = pointers(plan.argv);
    script.insert(1, ptr::null());
    let mut vectors = Vectors { argv, envp, script };

    let pid = match clone(plan.cgroup) {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            let Err((step, errno)) = become_program(plan, &mut vectors);
            let mut word = [0; 5];
            word[0] = step as u8;
            word[1..].copy_from_slice(&errno.raw_os_error().to_ne_bytes());
            let _ = rustix::io::write(&report_in_child, &word);
            // SAFETY: _exit ends the process and touches nothing of the parent.
            unsafe { libc::_exit(127) }
        }
        Err(errno) => return Err(SpawnError::Clone(errno)),
    };
    drop(report_in_child);

    let mut word = [0; 5];
    match rustix::io::retry_on_intr(|| rustix::io::read(&report, &mut word)) {
        Ok(5) => {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let step = match word[0] {
                1 => Step::Credentials,
                2 => Step::Cwd,
                3 => Step::Exec,
                _ => Step::Setup,
            };
            let errno = i32::from_ne_bytes([word[1], word[2], word[3], word[4]]);
            Err(SpawnError::Child {
                step,
                errno: Errno::from_raw_os_error(errno),
            })
        }
        // End of file: execve closed the pipe. (Or the child was killed before: its end tells.)
        _ => Ok(pid),
    }
}

/// Makes a child that runs `work` on a copy of this process and then ends. Only while the agent has
/// one thread, which is so until it serves.
pub(crate) fn detached(work: impl FnOnce()) -> Result<(), Errno> {
    // SAFETY: the agent has one thread yet, so the child's copy of every lock is free.
    match check(unsafe { libc::fork() })? {
        0 => {
            work();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

struct Vectors {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    script: Vec<*const libc::c_char>,
}

/// A null-terminated array for execve.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// `Some` in the parent, `None` in the child.
fn clone(cgroup: Option<BorrowedFd<'_>>) -> Result<Option<Pid>, Errno> {
    let flags = u64::from(libc::CLONE_VFORK.cast_unsigned());
    let (flags, cgroup) = match cgroup {
        Some(fd) => (
            flags | CLONE_INTO_CGROUP,
            u64::from(fd.as_raw_fd().cast_unsigned()),
        ),
        None => (flags, 0),
    };
    let arguments = libc::clone_args {
        flags,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: without CLONE_VM this is fork: the child has its own copy of all memory. It makes
    // only system calls before it execs or exits.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match i32::try_from(result) {
        Ok(0) => Ok(None),
        Ok(raw) if raw > 0 => Ok(Pid::from_raw(raw)),
        _ => Err(super::last_error()),
    }
}

/// In the child: everything up to and including execve.
fn become_program(plan: &Plan<'_>, vectors: &mut Vectors) -> Result<Infallible, (Step, Errno)> {
    let at = |step: Step| move |errno: Errno| (step, errno);
    rustix::process::setsid().map_err(at(Step::Setup))?;
    // The agent is exempt from the OOM killer; what it runs is not. In a container or a test this
    // may be read-only, and then there is nothing to undo either.
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(&file, b"0");
    }
    for (fd, target) in plan.stdio.iter().zip(0..) {
        // SAFETY: duplicates onto 0, 1 and 2, which nothing in this child owns any more.
        check(unsafe { libc::dup2(fd.as_raw_fd(), target) }).map_err(at(Step::Setup))?;
    }
    if plan.terminal {
        rustix::process::ioctl_tiocsctty(plan.stdio[0]).map_err(at(Step::Setup))?;
    }
    // All of the agent's descriptors close on exec; whoever started it may have left others open.
    // SAFETY: marks descriptors of this child only; what is marked is still usable until exec.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(credentials) = plan.credentials {
        let Credentials { uid, gid, groups } = credentials;
        rustix::thread::set_thread_groups(groups).map_err(at(Step::Credentials))?;
        rustix::thread::set_thread_res_gid(*gid, *gid, *gid).map_err(at(Step::Credentials))?;
        rustix::thread::set_thread_res_uid(*uid, *uid, *uid).map_err(at(Step::Credentials))?;
    }
    rustix::process::chdir(plan.cwd).map_err(at(Step::Cwd))?;
    signals::unblock_in_child();
    Err((Step::Exec, exec(plan.candidates, vectors)))
}

/// Tries the candidates as execvp(3) does. Returns only when none could be run.
fn exec(candidates: &[CString], vectors: &mut Vectors) -> Errno {
    let mut denied = false;
    for path in candidates {
        // SAFETY: the path and both arrays are null-terminated and outlive the call.
        unsafe { libc::execve(path.as_ptr(), vectors.argv.as_ptr(), vectors.envp.as_ptr()) };
        let mut errno = super::last_error();
        if errno == Errno::NOEXEC {
            let shell = c"/bin/sh";
            if let [first, second, ..] = &mut vectors.script[..] {
                *first = shell.as_ptr();
                *second = path.as_ptr();
            }
            // SAFETY: as above; `script` has the shell and the path before argv's other arguments.
            unsafe {
                libc::execve(
                    shell.as_ptr(),
                    vectors.script.as_ptr(),
                    vectors.envp.as_ptr(),
                );
            }
            errno = Errno::NOEXEC;
        }
        match errno {
            Errno::ACCESS => denied = true,
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::STALE => {}
            other => return other,
        }
    }
    if denied { Errno::ACCESS } else { Errno::NOENT }
}

/// Makes sure that descriptors 0, 1 and 2 are taken, so that no pipe or socket of ours ever gets
/// one of these numbers.
pub(crate) fn occupy_standard_descriptors() {
    loop {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let opened = open(c"/dev/console", flags, Mode::empty())
            .or_else(|_| open(c"/dev/null", flags, Mode::empty()))
            .or_else(|_| rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()));
        match opened {
            Ok(fd) if fd.as_raw_fd() <= 2 => {
                let _ = fd.into_raw_fd();
            }
            _ => return,
        }
    }
}

/// Takes over a descriptor that whoever started the agent passed by number.
pub(crate) fn adopt(number: i32) -> Result<OwnedFd, Errno> {
    if number < 3 {
        return Err(Errno::BADF);
    }
    // SAFETY: called once, at start, before the agent opens anything of its own, so nobody else
    // here owns the number; fcntl on a number that is not open fails and harms nothing.
    let fd = unsafe {
        check(libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC))?;
        OwnedFd::from_raw_fd(number)
    };
    Ok(fd)
}
