//! Kernel modules from the initramfs, in the order that the image's builder wrote down.
//!
//! `/modules/order` names files of `/modules`, one a line; `#` begins a comment. What is before a
//! line `--` is needed to get to the root and to the host, what is after it can wait.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::system::finit_module;

/// Modules that are still to be loaded, open, so that the initramfs can go before them.
#[derive(Debug)]
pub(super) struct Postponed {
    modules: Vec<(String, OwnedFd)>,
}

/// Loads what is needed for the root. A module that fails is reported; whether the boot can go on
/// without it shows soon enough.
pub(super) fn load_needed() -> Postponed {
    let order = match std::fs::read_to_string("/modules/order") {
        Ok(order) => order,
        Err(error) => {
            // A kernel with everything built in needs none.
            if error.kind() != std::io::ErrorKind::NotFound {
                crate::log::warning(format_args!("cannot read /modules/order: {error}"));
            }
            String::new()
        }
    };
    let (needed, later) = parse(&order);
    for name in needed {
        if let Some(file) = open_module(name) {
            load(name, &file);
        }
    }
    let modules = later
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), open_module(name)?)))
        .collect();
    Postponed { modules }
}

impl Postponed {
    /// Loads the other modules.
    pub(super) fn load_the_rest(&self) {
        for (name, file) in &self.modules {
            load(name, file);
        }
    }
}

fn open_module(name: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match open(format!("/modules/{name}"), flags, Mode::empty()) {
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
