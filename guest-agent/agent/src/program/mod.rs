//! From a request to a running program: whom it runs as, where it is found, what it is given, and
//! the group in which everything that it starts is held.

pub(crate) mod group;
mod path;
mod stdio;
pub(crate) mod terminal;
mod users;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use pyro_agent_protocol::{ErrorCode, Exec};
use rustix::io::Errno;
use rustix::process::Pid;

use self::group::{Group, Groups};
pub(crate) use self::stdio::Wiring;
use self::stdio::{Stdio, Theirs};
use self::terminal::Terminal;
use crate::sys::spawn::{Plan, SpawnError, Step, spawn};

/// What a terminal understands, unless the request says otherwise.
const TERM: &str = "xterm-256color";
/// Where programs are looked for unless the request says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("the request names no program")]
    NoProgram,
    #[error("{what} contains a NUL byte")]
    Nul { what: &'static str },
    #[error("{name:?} cannot be the name of an environment variable")]
    BadVariable { name: String },
    #[error("the guest has no user {user:?}")]
    UnknownUser { user: String },
    #[error("cannot read the guest's {file}")]
    Users {
        file: &'static str,
        #[source]
        source: Errno,
    },
    #[error("{program:?} was not found in the guest")]
    NotFound { program: String },
    #[error("{program:?} cannot be executed")]
    NotExecutable {
        program: String,
        #[source]
        source: Errno,
    },
    #[error("cannot enter the directory {cwd:?}")]
    BadCwd {
        cwd: String,
        #[source]
        source: Errno,
    },
    #[error("the guest has run out of processes, descriptors or memory")]
    Resources(#[source] Errno),
    #[error("cannot start a program in the guest")]
    System(#[source] Errno),
}

impl ProgramError {
    /// The protocol's name for this kind of failure.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::NoProgram | Self::Nul { .. } | Self::BadVariable { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::UnknownUser { .. } => ErrorCode::UnknownUser,
            Self::NotFound { .. } => ErrorCode::CommandNotFound,
            Self::NotExecutable { .. } => ErrorCode::CommandNotExecutable,
            Self::BadCwd { .. } => ErrorCode::BadCwd,
            Self::Resources(_) => ErrorCode::OutOfResources,
            Self::Users { .. } | Self::System(_) => ErrorCode::Internal,
        }
    }

    /// For errors of making processes, descriptors and cgroups.
    fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC => {
                Self::Resources(errno)
            }
            other => Self::System(other),
        }
    }
}

/// A program that runs, and our ends of its pipes or its terminal (non-blocking).
#[derive(Debug)]
pub(crate) struct Program {
    /// Leader of its own session and process group.
    pub(crate) pid: Pid,
    pub(crate) group: Group,
    /// Absent when its input is `/dev/null`.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    /// Absent where it is one with standard output.
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) terminal: Option<Terminal>,
}

/// Starts what `exec` asks for.
pub(crate) fn start(
    exec: &Exec,
    wiring: Wiring,
    groups: &mut Groups,
) -> Result<Program, ProgramError> {
    let name = exec.argv.first().ok_or(ProgramError::NoProgram)?;
    let argv = exec
        .argv
        .iter()
        .map(|argument| c_string(argument, "an argument"))
        .collect::<Result<Vec<_>, _>>()?;
    let cwd = exec.cwd.as_deref().unwrap_or("/");
    let user = exec.user.as_deref().map(users::find).transpose()?;
    let mut variables = defaults(user.as_ref());
    if matches!(wiring, Wiring::Terminal(_)) {
        variables.insert("TERM", TERM);
    }
    for (key, value) in &exec.env {
        if key.is_empty() || key.contains('=') {
            return Err(ProgramError::BadVariable { name: key.clone() });
        }
        variables.insert(key, value);
    }
    let search = variables.get("PATH").copied().unwrap_or(PATH);
    let candidates = path::candidates(name, search)?;

    let group = groups.create().map_err(ProgramError::from_errno)?;
    let marker = group.marker();
    if let Some((key, value)) = &marker {
        variables.insert(key, value);
    }
    let envp = variables
        .iter()
        .map(|(key, value)| c_string(&format!("{key}={value}"), "an environment variable"))
        .collect::<Result<Vec<_>, _>>();
    let cwd_c = c_string(cwd, "the working directory");
    let started = envp.and_then(|envp| {
        let owner = user.as_ref().map(|user| user.credentials.uid);
        let stdio = Stdio::new(wiring, exec.stdin, owner).map_err(ProgramError::from_errno)?;
        let plan = Plan {
            candidates: &candidates,
            argv: &argv,
            envp: &envp,
            cwd: &cwd_c?,
            credentials: user.as_ref().map(|user| &user.credentials),
            stdio: stdio.theirs.descriptors(),
            terminal: matches!(stdio.theirs, Theirs::Terminal(_)),
            cgroup: group.directory(),
        };
        let pid = spawn(&plan).map_err(|error| describe(error, name, cwd))?;
        Ok((pid, stdio))
    });
    match started {
        Ok((pid, stdio)) => Ok(Program {
            pid,
            group: group.led_by(pid),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.theirs.into_terminal(),
        }),
        Err(error) => {
            group.remove();
            Err(error)
        }
    }
}

/// The environment every program starts with.
fn defaults(user: Option<&users::User>) -> BTreeMap<&str, &str> {
    let (name, home) = user.map_or(("root", "/root"), |user| (&user.name, &user.home));
    BTreeMap::from([
        ("HOME", home),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", name),
        ("PATH", PATH),
        ("USER", name),
    ])
}

fn c_string(text: &str, what: &'static str) -> Result<CString, ProgramError> {
    CString::new(text).map_err(|_| ProgramError::Nul { what })
}

/// What a failed start means to the one who asked for it.
fn describe(error: SpawnError, program: &str, cwd: &str) -> ProgramError {
    match error {
        SpawnError::Clone(errno) => ProgramError::from_errno(errno),
        SpawnError::Child {
            step: Step::Cwd,
            errno,
        } => ProgramError::BadCwd {
            cwd: cwd.to_owned(),
            source: errno,
        },
        SpawnError::Child {
            step: Step::Exec,
            errno,
        } => match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => ProgramError::NotFound {
                program: program.to_owned(),
            },
            Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE => {
                ProgramError::Resources(errno)
            }
            errno => ProgramError::NotExecutable {
                program: program.to_owned(),
                source: errno,
            },
        },
        SpawnError::Child { errno, .. } => ProgramError::from_errno(errno),
    }
}
