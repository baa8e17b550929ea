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
    // The distribution has tested its ciphers; three quarters of a second at every boot.
    "cryptomgr.notests",
    // A guest has one tenant, to whom its memory belongs anyway: do not clear what the kernel
    // allocates for itself. What user space gets is always cleared.
    "init_on_alloc=0",
    // Initial calls that only cost time here, see below.
    LEFT_OUT,
];

/// What the kernel would do at boot and no workspace needs (docs/benchmarks.md has the times):
/// - a check of the names in a debugging file of ftrace, the names of enumerations in the formats
///   of trace events, and the control files of ftrace, its probes and the block tracer;
/// - functions of the kernel that BPF programs may call by name, and the congestion control
///   "cubic", which offers some: the first to do so parses all of the kernel's type information.
///   Guests use "reno": their connections end in a proxy on this host.
///
/// `perf_event_open`, ptrace, and BPF that calls helpers only, do without.
const LEFT_OUT: &str = "initcall_blacklist=ftrace_check_for_weak_functions,trace_eval_init,\
    tracer_init_tracefs,init_kprobe_trace,init_blk_tracer,\
    cubictcp_register,bpf_rstat_kfunc_init,bpf_key_sig_kfuncs_init,kfunc_init,\
    bpf_tcp_ca_kfunc_init,bpf_prog_test_run_init";

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
