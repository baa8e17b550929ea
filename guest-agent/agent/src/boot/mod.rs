//! From the kernel's first process to an agent that serves: as little as possible before the host
//! hears of us, since everybody waits for that.
//!
//! 1. Load the modules that the root and vsock need.
//! 2. Mount the root and make it `/`.
//! 3. Listen, connect to the host and say [`Hello`].
//! 4. While the host answers: the other mounts, loopback, limits.
//! 5. Take name, time, entropy and network from the [`Welcome`]. From here on programs may run.
//! 6. In a child, without haste: the other modules, and what transactions of a guest that was cut
//!    off have left is deleted. The initramfs' memory is given back.

mod greeting;
mod identity;
mod modules;
mod mounts;
mod network;
mod settings;

use std::os::fd::OwnedFd;

use pyro_agent_protocol::AGENT_PORT;
use rustix::io::Errno;

use crate::files::apply::StagingArea;
use crate::sys::{spawn, vsock};

/// What a boot leaves to serve with.
#[derive(Debug)]
pub(crate) struct Booted {
    /// Where the host's operations arrive.
    pub(crate) listener: OwnedFd,
    /// The stream to the host's ready port, open for the life of the VM.
    pub(crate) host: OwnedFd,
    /// Where transactions stage.
    pub(crate) staging: StagingArea,
}

/// Why the guest cannot be brought up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("cannot mount the root that the host shares under the tag \"root\"")]
    Root(#[source] Errno),
    #[error("cannot make the shared root the file system's root")]
    SwitchRoot(#[source] Errno),
    #[error("cannot listen for the host on vsock port {AGENT_PORT}")]
    Listen(#[source] Errno),
    #[error("cannot reach the host to say that the guest is up")]
    Greet(#[source] greeting::GreetingError),
}

/// Brings the guest up. Must be called by PID 1, once.
pub(crate) fn boot() -> Result<Booted, BootError> {
    let modules = modules::load_needed();
    let network_modules = modules::of_network();
    let initramfs = mounts::enter_root()?;

    let listener = vsock::listen(AGENT_PORT).map_err(BootError::Listen)?;
    let mut greeting = greeting::Greeting::connect().map_err(BootError::Greet)?;
    greeting.say_hello().map_err(BootError::Greet)?;

    mounts::mount_the_rest();
    settings::apply();
    let welcome = greeting.welcome().map_err(BootError::Greet)?;
    identity::take_on(&welcome);
    if let Some(network) = &welcome.network {
        network::set_up(network, &network_modules);
    }

    let staging = StagingArea::new("/");
    let postponed = spawn::detached(|| {
        let _ = rustix::process::nice(19);
        modules.load_the_rest();
        staging.remove_leftovers();
    });
    if let Err(errno) = postponed {
        crate::log::warning(format_args!("cannot load the other modules: {errno}"));
    }
    mounts::free(initramfs);
    Ok(Booted {
        listener,
        host: greeting.into_stream(),
        staging,
    })
}
