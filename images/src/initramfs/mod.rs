//! Initramfs archives: what the kernel unpacks into its first root.
//!
//! The kernel takes several archives in a row (Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst). The image's part is built at pull time and holds the modules
//! ([`write_modules`], [`write_network_modules`]); the agent comes in a second archive, made by whoever starts a guest with
//! the same writer ([`Archive`]), so that a new agent does not need a new image.

mod newc;

use std::io::{self, Write};

pub use newc::Archive;

use crate::kernel::modules::Module;

/// The directory of the modules in the first root.
pub const MODULES: &str = "modules";
/// The line of `modules/order` between what loads before the root and what loads after ready.
pub const READY_LINE: &str = "--";

/// The directory of the modules that only a guest with a network loads.
pub const NETWORK_MODULES: &str = "modules-net";

/// Writes the modules' archive: `/modules/NAME.ko` and `/modules/order`, which names them one a
/// line in load order, with a line `--` before those that can wait until the agent is ready.
pub fn write_modules<W: Write>(
    out: W,
    before_root: &[Module],
    after_ready: &[Module],
) -> io::Result<W> {
    write(out, MODULES, &[before_root, after_ready])
}

/// Writes the network modules' archive: the same in `/modules-net`, without such a line. It is an
/// archive of its own so that a guest without a network neither unpacks nor holds it.
pub fn write_network_modules<W: Write>(out: W, modules: &[Module]) -> io::Result<W> {
    write(out, NETWORK_MODULES, &[modules])
}

/// An archive of one directory with groups of modules.
fn write<W: Write>(out: W, directory: &str, groups: &[&[Module]]) -> io::Result<W> {
    let lines = |group: &&[Module]| -> String {
        group
            .iter()
            .map(|module| format!("{}\n", module.file_name))
            .collect()
    };
    let order = groups.iter().map(lines).collect::<Vec<_>>();
    let order = order.join(&format!("{READY_LINE}\n"));
    let mut archive = Archive::new(out);
    archive.directory(directory, 0o755)?;
    archive.file(&format!("{directory}/order"), 0o644, order.as_bytes())?;
    for module in groups.iter().copied().flatten() {
        let name = format!("{directory}/{}", module.file_name);
        archive.file(&name, 0o644, &module.object)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_file_separates_what_can_wait() {
        let module = |name: &str| Module {
            file_name: name.into(),
            object: name.into(),
        };

        let archive = write_modules(
            Vec::new(),
            &[module("a.ko"), module("b.ko")],
            &[module("c.ko")],
        )
        .unwrap();

        let text = String::from_utf8_lossy(&archive);
        assert!(text.contains("a.ko\nb.ko\n--\nc.ko\n"));
        assert!(text.contains("modules/c.ko"));
    }

    #[test]
    fn network_modules_lie_in_a_directory_of_their_own() {
        let module = |name: &str| Module {
            file_name: name.into(),
            object: name.into(),
        };

        let archive = write_network_modules(
            Vec::new(),
            &[module("failover.ko"), module("virtio_net.ko")],
        )
        .unwrap();

        let text = String::from_utf8_lossy(&archive);
        assert!(text.contains("failover.ko\nvirtio_net.ko\n"));
        assert!(text.contains("modules-net/virtio_net.ko"));
        assert!(!text.contains("modules/") && !text.contains("--\n"));
    }
}
