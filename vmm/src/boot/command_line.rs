//! The kernel's command line: ours alone, no word of it from a user.

/// What every guest gets. Each word earns its place:
const COMMON: &[&str] = &[
    // The agent is the first process.
    "rdinit=/init",
    // There is no PCI bus; do not look for one.
    "pci=off",
    // Restart and panic end in our reset register, at once, so that the exit reason is "reset".
    "reboot=acpi",
    "panic=-1",
    // The host's RDRAND seeds the generator; waiting for entropy would cost the boot.
    "random.trust_cpu=on",
    // KVM keeps the time-stamp counter in step; neither calibrate nor watch it.
    "tsc=reliable",
    "no_timer_check",
];

/// A silent boot: warnings and worse, and panics, go through the early console, which costs
/// nothing while it is silent; no serial driver probes.
const SILENT: &[&str] = &[
    "quiet",
    "earlycon=uart8250,io,0x3f8",
    "keep_bootcon",
    "8250.nr_uarts=0",
];

/// Everything the kernel says, through the serial driver; slow.
const DEBUG: &[&str] = &[
    "console=ttyS0",
    "earlycon=uart8250,io,0x3f8",
    "8250.nr_uarts=1",
];

/// Builds the command line.
pub fn build(debug_console: bool) -> String {
    let console = if debug_console { DEBUG } else { SILENT };
    [COMMON, console].concat().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::COMMAND_LINE_MAX;

    #[test]
    fn it_fits_with_its_terminating_zero() {
        assert!(build(true).len() < COMMAND_LINE_MAX);
        assert!(build(false).len() < COMMAND_LINE_MAX);
    }
}
