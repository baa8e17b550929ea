//! The guest's network, where the host has laid one out: modules, interface, address, route, name
//! servers.
//!
//! Nothing of it touches the disk: the interface is the kernel's, and the name servers' file lies in
//! `/run`, mounted over `/etc/resolv.conf`. What fails is reported and left; a guest without its
//! network boots all the same.

mod netlink;

use std::io;
use std::path::{Component, Path, PathBuf};

use pyro_agent_protocol::{Network, RESOLVERS_MAX};
use rustix::io::Errno;
use rustix::mount::mount_bind;

use self::netlink::Netlink;
use super::modules::Postponed;
use super::mounts::write_setting;

/// The interface, as the kernel names the first one.
const INTERFACE: &str = "eth0";
/// Ours of the name servers' files.
const OURS: &str = "/run/pyro-resolv.conf";
/// The one that programs read.
const THEIRS: &str = "/etc/resolv.conf";

/// Sets the guest's network up.
pub(super) fn set_up(network: &Network, modules: &Postponed) {
    modules.load_the_rest();
    // The network carries IPv4 alone; an address of the other kind would only mean waiting.
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6");
    match write_setting(&ipv6, "1") {
        // A kernel without it needs nothing.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => crate::log::warning(format_args!("cannot set {ipv6}: {errno}")),
    }
    if let Err(errno) = bring_up(network) {
        crate::log::warning(format_args!("cannot set {INTERFACE} up: {errno}"));
    }
    if let Err(error) = name_servers(network) {
        crate::log::warning(format_args!("cannot write {THEIRS}: {error}"));
    }
}

fn bring_up(network: &Network) -> Result<(), Errno> {
    let mut kernel = Netlink::open()?;
    let interface = kernel.index(INTERFACE)?;
    kernel.up(interface, network.mtu)?;
    kernel.add_address(interface, network.address, network.prefix)?;
    kernel.add_default_route(interface, network.gateway)
}

fn name_servers(network: &Network) -> io::Result<()> {
    let text: String = network
        .dns
        .iter()
        .take(RESOLVERS_MAX)
        .map(|address| format!("nameserver {address}\n"))
        .collect();
    let theirs = Path::new(THEIRS);
    match std::fs::read_link(theirs) {
        // A link of some package into /run, which is empty at boot: what it leads to is ours to
        // make, and no disk's.
        Ok(link) if lies_in_run(&link) => {
            let target = from_etc(&link);
            if let Some(directory) = target.parent() {
                std::fs::create_dir_all(directory)?;
            }
            return std::fs::write(target, text);
        }
        // Somebody has deleted it; it comes back empty, to be mounted over.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::write(theirs, "")?;
        }
        _ => {}
    }
    std::fs::write(OURS, text)?;
    Ok(mount_bind(OURS, THEIRS)?)
}

/// What a link in `/etc` leads to, by its words alone.
fn from_etc(link: &Path) -> PathBuf {
    let mut target = PathBuf::from("/etc");
    for component in link.components() {
        match component {
            Component::RootDir => target = PathBuf::from("/"),
            Component::ParentDir => drop(target.pop()),
            Component::Normal(name) => target.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    target
}

fn lies_in_run(link: &Path) -> bool {
    let target = from_etc(link);
    target.starts_with("/run") && target != Path::new("/run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_run_are_told_from_others() {
        for (link, expected) in [
            ("/run/systemd/resolve/stub-resolv.conf", true),
            ("../run/resolvconf/resolv.conf", true),
            ("../../../run/x", true),
            ("/run", false),
            ("/runner/x", false),
            ("/run/../var/resolv.conf", false),
            ("resolv.conf.local", false),
            ("../usr/lib/resolv.conf", false),
        ] {
            assert_eq!(lies_in_run(Path::new(link)), expected, "{link}");
        }
    }
}
