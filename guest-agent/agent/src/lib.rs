//! The agent: the first process of every guest, and the host's hands in it.
//!
//! As PID 1 it brings the guest up (`boot`), then serves what the host asks for over vsock
//! (`serve`) until it is told to turn the power off (`power`). It is one static binary, one loop with
//! a few threads beside it for work on files (`files`), needs nothing of the image it runs in — no shell, no interpreter, no name service — and
//! holds little memory.
//!
//! It trusts the host, and nothing in the guest: programs there may be hostile and may be root.
//! What they can do to the guest they can do to the agent's work as well, but not to the host,
//! which treats every byte from here as hostile.
//!
//! Not as PID 1 it serves the same operations to a Unix socket or on an inherited stream, without
//! touching the machine. That is how it is tested.

mod boot;
mod files;
mod log;
mod power;
mod procfs;
mod program;
mod serve;
mod sys;

use std::fmt::Display;
use std::os::fd::OwnedFd;

use pyro_agent_protocol::SECRETS_DIRECTORY;
use rustix::io::Errno;

use crate::files::apply::StagingArea;
use crate::files::secrets::SecretsArea;
use crate::program::group::Groups;
use crate::serve::{Finished, Peers, Server};
use crate::sys::{signals, spawn};

const USAGE: &str = "\
usage: pyro-agent --listen-unix PATH [--cgroup DIR] [--staging DIR] [--secrets DIR]
       pyro-agent --stream-fd NUMBER [--cgroup DIR] [--staging DIR] [--secrets DIR]

Serves the guest agent's operations on this machine, for tests. In a guest it is /init and takes
no arguments.

  --listen-unix PATH   accept operations on a Unix socket at PATH, until SIGTERM
  --stream-fd NUMBER   serve one operation on this inherited, connected socket
  --cgroup DIR         hold programs in cgroups below this cgroup v2 directory
  --staging DIR        stage changes to files in this directory (/)
  --secrets DIR        keep secrets in this directory (pyro-secrets)";

/// The agent's whole life. Gives the process's exit code; as PID 1 it does not return.
#[must_use]
pub fn run(arguments: impl Iterator<Item = String>) -> i32 {
    spawn::occupy_standard_descriptors();
    if rustix::process::getpid().is_init() {
        run_as_init()
    }
    match run_on_a_host(arguments) {
        Ok(()) => 0,
        Err(Trouble::Usage(reason)) => {
            eprintln!("pyro-agent: {reason}\n{USAGE}");
            2
        }
        Err(Trouble::Failed(reason)) => {
            eprintln!("pyro-agent: {reason}");
            1
        }
    }
}

/// The whole life of a guest.
fn run_as_init() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        log::fatal(format_args!("{panic}"));
        power::reset()
    }));
    // The host's stream stays open to the very end: its end says that the guest is gone.
    let boot::Booted {
        listener,
        host: _host,
        staging,
    } = match boot::boot() {
        Ok(booted) => booted,
        Err(error) => {
            log::fatal(format_args!("{}", log::chain(&error)));
            power::reset()
        }
    };
    let mut server = match serve_guest(listener, staging) {
        Ok(server) => server,
        Err(errno) => {
            log::fatal(format_args!("the agent cannot serve: {errno}"));
            power::reset()
        }
    };
    match server.run() {
        Ok(Finished::PowerOff(farewell)) => power::off(server, farewell),
        Ok(Finished::Ended) => log::fatal(format_args!("the agent has nothing to serve any more")),
        Err(errno) => log::fatal(format_args!("the agent cannot go on: {errno}")),
    }
    power::reset()
}

fn serve_guest(listener: OwnedFd, staging: StagingArea) -> Result<Server, Errno> {
    let groups = Groups::new(Some("/sys/fs/cgroup"));
    let secrets = SecretsArea::new(SECRETS_DIRECTORY, true);
    let mut server = Server::new(signals::watch()?, groups, staging, secrets)?;
    server.listen(listener, Peers::VsockHost)?;
    Ok(server)
}

/// Why an agent that is not PID 1 ends.
enum Trouble {
    Usage(String),
    Failed(String),
}

/// Serves operations without being a guest's first process.
fn run_on_a_host(arguments: impl Iterator<Item = String>) -> Result<(), Trouble> {
    let mut arguments = arguments;
    let (mut listen, mut stream, mut cgroup) = (None, None, None);
    let mut staging = "/".to_owned();
    let mut secrets = "pyro-secrets".to_owned();
    while let Some(option) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| Trouble::Usage(format!("{option} needs a value")))
        };
        match &*option {
            "--listen-unix" => listen = Some(value()?),
            "--stream-fd" => stream = Some(value()?),
            "--cgroup" => cgroup = Some(value()?),
            "--staging" => staging = value()?,
            "--secrets" => secrets = value()?,
            _ => return Err(Trouble::Usage(format!("unknown option {option:?}"))),
        }
    }
    // Orphans of what is run here become ours, as they do in a guest.
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(failed("cannot adopt orphans"))?;
    let signals = signals::watch().map_err(failed("cannot watch signals"))?;
    let staging = StagingArea::new(&staging);
    staging.remove_leftovers();
    let groups = Groups::new(cgroup.as_deref());
    let secrets = SecretsArea::new(&secrets, false);
    let mut server = Server::new(signals, groups, staging, secrets)
        .map_err(failed("cannot make an event loop"))?;
    match (listen, stream) {
        (Some(path), None) => {
            let socket = std::os::unix::net::UnixListener::bind(&path)
                .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
                .map_err(failed("cannot listen on the Unix socket"))?;
            server
                .listen(OwnedFd::from(socket), Peers::Unix)
                .map_err(failed("cannot listen"))?;
        }
        (None, Some(number)) => {
            let number = number
                .parse()
                .map_err(|_| Trouble::Usage(format!("{number:?} is no descriptor's number")))?;
            let socket = spawn::adopt(number)
                .and_then(|socket| rustix::io::ioctl_fionbio(&socket, true).map(|()| socket))
                .map_err(failed("cannot use the descriptor"))?;
            server
                .serve(socket)
                .map_err(failed("cannot serve the stream"))?;
        }
        _ => return Err(Trouble::Usage("say where to serve".to_owned())),
    }
    match server.run().map_err(failed("the event loop failed"))? {
        Finished::PowerOff(farewell) => {
            power::end_all_processes(&mut server);
            farewell.done();
        }
        Finished::Ended => server.kill_all(),
    }
    Ok(())
}

fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> Trouble {
    move |error| Trouble::Failed(format!("{what}: {error}"))
}
