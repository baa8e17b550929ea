//! Kernel modules from the initramfs, in the order that the image's builder wrote down.
//!
//! `/modules/order` names files of `/modules`, one a line; `#` begins a comment. What is before a
//! line `--` is needed to get to the root and to the host, what is after it can wait.
//! `/modules-net`, of the same shape, is there when the host has laid out a network.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::system::finit_module;

/// The modules of every guest.
const MODULES: &str = "/modules";
/// Those of a guest with a network.
const NETWORK_MODULES: &str = "/modules-net";

/// Modules that are still to be loaded, open, so that the initramfs can go before them.
#[derive(Debug)]
pub(super) struct Postponed {
    modules: Vec<(String, OwnedFd)>,
}

/// Loads what is needed for the root. A module that fails is reported; whether the boot can go on
/// without it shows soon enough.
pub(super) fn load_needed() -> Postponed {
    let order = read_order(MODULES);
    let (needed, later) = parse(&order);
    for name in needed {
        if let Some(file) = open_module(MODULES, name) {
            load(name, &file);
        }
    }
    Postponed::open(MODULES, later)
}

/// What a guest with a network loads; nothing where there is none.
pub(super) fn of_network() -> Postponed {
    let order = read_order(NETWORK_MODULES);
    Postponed::open(NETWORK_MODULES, parse(&order).0)
}

fn read_order(directory: &str) -> String {
    match std::fs::read_to_string(format!("{directory}/order")) {
        Ok(order) => order,
        Err(error) => {
            // A kernel with everything built in needs none.
            if error.kind() != std::io::ErrorKind::NotFound {
                crate::log::warning(format_args!("cannot read {directory}/order: {error}"));
            }
            String::new()
        }
    }
}

impl Postponed {
    fn open(directory: &str, names: Vec<&str>) -> Self {
        let modules = names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), open_module(directory, name)?)))
            .collect();
        Self { modules }
    }

    /// Loads the other modules.
    pub(super) fn load_the_rest(&self) {
        for (name, file) in &self.modules {
            load(name, file);
        }
    }
}

fn open_module(directory: &str, name: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match open(format!("{directory}/{name}"), flags, Mode::empty()) {
        Ok(file) => Some(file),
        Err(errno) => {
            crate::log::warning(format_args!("cannot open the module {name}: {errno}"));
            None
        }
    }
}

fn load(name: &str, file: &OwnedFd) {
    match finit_module(file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => crate::log::warning(format_args!("cannot load the module {name}: {errno}")),
    }
}

/// The names before and after the `--`.
fn parse(order: &str) -> (Vec<&str>, Vec<&str>) {
    let mut names = order
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(name, _)| name).trim())
        .filter(|name| !name.is_empty() && !name.contains('/'));
    let needed = names.by_ref().take_while(|name| *name != "--").collect();
    (needed, names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_dashes() {
        let order =
            "# made by images\nvirtio_ring.ko\n\nvirtio.ko # first user\n--\nvirtio-rng.ko\n";
        let (needed, later) = parse(order);
        assert_eq!(needed, ["virtio_ring.ko", "virtio.ko"]);
        assert_eq!(later, ["virtio-rng.ko"]);
    }

    #[test]
    fn without_dashes_all_are_needed() {
        assert_eq!(parse("a.ko\nb.ko"), (vec!["a.ko", "b.ko"], vec![]));
    }
}
