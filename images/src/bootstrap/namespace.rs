//! Namespaces for the bootstrap: its own mounts and processes, and its own root where the user
//! is not root.
//!
//! `unshare --kill-child` makes the kernel kill the first process of the new process namespace
//! when `unshare` dies, and with it everything in there; `setpriv --pdeathsig` does the same to
//! `unshare` when the pull's thread dies. So a `kill -9` of a pull leaves no process and no mount.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

/// Where Debian has system programs; a user's `PATH` often lacks half of it.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The programs that a pull runs, and the packages that have them.
const TOOLS: [(&str, &str); 5] = [
    ("mmdebstrap", "mmdebstrap"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];

/// The program that maps a user's subordinate ids; set-uid, so it must be installed.
const ID_MAPPER: (&str, &str) = ("newuidmap", "uidmap");

/// Makes a user root in a namespace of its own, with its subordinate ids as the other users.
const USER_NAMESPACE: [&str; 3] = ["--user", "--map-root-user", "--map-auto"];

/// Whether this process is root already.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether everything that a pull needs from the machine is there: programs, and for a user who
/// is not root, namespaces. Changes nothing.
///
/// # Errors
/// [`Error::ToolMissing`], [`Error::NoNamespaces`].
pub fn check() -> Result<(), Error> {
    let mapper = (!is_root()).then_some(ID_MAPPER);
    for (program, package) in TOOLS.into_iter().chain(mapper) {
        if find(program).is_none() {
            return Err(Error::ToolMissing { program, package });
        }
    }
    let probe = isolated("true").stdin(Stdio::null()).output();
    match probe {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason = said
                .lines()
                .next()
                .unwrap_or("unshare failed")
                .trim()
                .to_owned();
            Err(Error::NoNamespaces { reason })
        }
        Err(error) => Err(Error::NoNamespaces {
            reason: error.to_string(),
        }),
    }
}

/// A command that runs `program` in the namespaces, and that dies with the calling thread.
pub(crate) fn isolated(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .env("PATH", PATH)
        .args(["--pdeathsig", "KILL", "unshare"]);
    if !is_root() {
        command.args(USER_NAMESPACE);
    }
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
        ])
        .arg(program);
    command
}

/// Removes a tree that a bootstrap made. Files of subordinate users are removed as their root.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_root() => {
            let mut command = Command::new("unshare");
            command.env("PATH", PATH).args(USER_NAMESPACE);
            command
                .args(["rm", "-rf", "--one-file-system", "--"])
                .arg(path);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if command.status()?.success() {
                Ok(())
            } else {
                Err(error)
            }
        }
        result => result,
    }
}

fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}
