//! Initramfs archives: what the kernel unpacks into its first root.
//!
//! The kernel takes several archives in a row (Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst). The image's part is built at pull time and holds the modules
//! ([`write_modules`]); the agent comes in a second archive, made by whoever starts a guest with
//! the same writer ([`Archive`]), so that a new agent does not need a new image.

mod newc;

use std::io::{self, Write};

pub use newc::Archive;

use crate::kernel::modules::Module;

/// The directory of the modules in the first root.
pub const MODULES: &str = "modules";
/// The line of `modules/order` between what loads before the root and what loads after ready.
pub const READY_LINE: &str = "--";

/// Writes the modules' archive: `/modules/NAME.ko` and `/modules/order`, which names them one a
/// line in load order, with a line `--` before those that can wait until the agent is ready.
pub fn write_modules<W: Write>(
    out: W,
    before_root: &[Module],
    after_ready: &[Module],
) -> io::Result<W> {
    let mut order = String::new();
    for module in before_root {
        order.push_str(&module.file_name);
        order.push('\n');
    }
    order.push_str(READY_LINE);
    order.push('\n');
    for module in after_ready {
        order.push_str(&module.file_name);
        order.push('\n');
    }
    let mut archive = Archive::new(out);
    archive.directory(MODULES, 0o755)?;
    archive.file(&format!("{MODULES}/order"), 0o644, order.as_bytes())?;
    for module in before_root.iter().chain(after_ready) {
        archive.file(
            &format!("{MODULES}/{}", module.file_name),
            0o644,
            &module.object,
        )?;
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
}
