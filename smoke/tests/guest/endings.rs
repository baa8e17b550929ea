//! Runs that end otherwise than by their command: nothing is left, whatever happened.

use std::process::{Command, Output};

use libtest_mimic::Completion;

use crate::pyro::{ConditionalTest, Host, Test, code, kill, text, wait_until};

const FOREVER: &[&str] = &["sh", "-c", "echo ready; exec sleep 1000"];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("an_interrupt_ends_the_guest_and_leaves_nothing", interrupt),
        (
            "a_termination_ends_the_guest_and_leaves_nothing",
            termination,
        ),
        (
            "a_killed_monitor_is_reported_and_leaves_nothing",
            killed_monitor,
        ),
        ("a_killed_pyro_leaves_nothing", killed_pyro),
        (
            "after_a_killed_daemon_the_next_run_tidies_up",
            killed_daemon,
        ),
        ("a_closed_output_ends_the_guest", closed_output),
        (
            "a_crashed_guest_is_told_from_a_failed_command",
            crashed_guest,
        ),
        ("a_time_to_live_bounds_a_guest", time_to_live),
    ]
}

pub(crate) fn conditional_tests() -> Vec<ConditionalTest> {
    vec![(
        "a_full_disk_is_the_guests_enospc_and_then_an_error",
        full_disk,
    )]
}

fn after_signal(signal: &str) -> (Host, Output) {
    let host = Host::new();
    let running = host.start("debian:12-base", FOREVER);
    kill(signal, running.pids().0);
    let output = running.wait();
    (host, output)
}

fn interrupt() {
    let (host, output) = after_signal("INT");
    assert_eq!(code(&output), 130, "{output:?}");
    host.assert_clean();
}

fn termination() {
    let (host, output) = after_signal("TERM");
    assert_eq!(code(&output), 143, "{output:?}");
    host.assert_clean();
}

fn killed_monitor() {
    let host = Host::new();
    let running = host.start("debian:12-base", FOREVER);
    kill("KILL", running.pids().2);
    let output = running.wait();
    assert_eq!(code(&output), 125, "{output:?}");
    assert!(
        text(&output.stderr).starts_with("error[monitor_failed]: "),
        "{output:?}"
    );
    host.assert_clean();
}

fn killed_pyro() {
    let host = Host::new();
    let running = host.start("debian:12-base", FOREVER);
    kill("KILL", running.pids().0);
    // Waits for the monitor's end too.
    running.wait();
    host.assert_clean();
}

fn killed_daemon() {
    let host = Host::new();
    let running = host.start("debian:12-base", FOREVER);
    kill("KILL", running.pids().1);
    let output = running.wait();
    assert_eq!(code(&output), 125, "{output:?}");
    assert!(
        text(&output.stderr).starts_with("error[daemon_connection_lost]: "),
        "{output:?}"
    );
    assert_eq!(host.leftovers().len(), 1);

    let output = host.run("debian:12-base", &[], &["true"]);

    assert_eq!(code(&output), 0, "{output:?}");
    host.assert_clean();
}

fn closed_output() {
    let host = Host::new();
    let mut running = host.start("debian:12-base", &["sh", "-c", "echo ready; exec yes"]);
    running.close_stdout();
    let output = running.wait();
    assert_eq!(code(&output), 141, "{output:?}");
    assert_eq!(text(&output.stderr), "");
    host.assert_clean();
}

fn crashed_guest() {
    let host = Host::new();
    let script = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000";
    let result = host.run_json("debian:12-base", &[], &["sh", "-c", script]);
    let error = &result["error"];
    assert_eq!(error["code"], "guest_crashed", "{result}");
    assert!(
        error["detail"]
            .as_str()
            .is_some_and(|d| d.contains("Kernel panic")),
        "{result}"
    );
    host.assert_clean();
}

fn time_to_live() {
    let host = Host::new();
    let flags = ["--ttl-seconds", "20", "--timeout-seconds", "1000"];
    let output = host.run("debian:12-base", &flags, &["sleep", "1000"]);
    // The command's time is cut to the guest's; a host too slow to boot in that time says so.
    let words = text(&output.stderr);
    match code(&output) {
        124 => assert!(words.contains("(--ttl-seconds)"), "{words}"),
        125 => assert!(words.contains("error[ttl_expired]: "), "{words}"),
        _ => panic!("{output:?}"),
    }
    host.assert_clean();
}

/// A file system of a given size that is unmounted when dropped.
struct Small<'a> {
    /// Its state folder is in the small one.
    host: &'a Host,
}

impl Small<'_> {
    fn mount<'a>(host: &'a Host, size: &str) -> Option<Small<'a>> {
        std::fs::create_dir(host.path("state")).expect("made");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", size, "tmpfs"])
            .arg(host.path("state"))
            .status();
        status
            .is_ok_and(|status| status.success())
            // Lazily: one that is dropped unmounts.
            .then(|| Small { host })
    }

    fn run(&self, script: &str) -> Output {
        self.host.run("debian:12-base", &[], &["sh", "-c", script])
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        if let Some(daemon) = self.host.daemon() {
            kill("KILL", daemon);
        }
        let path = self.host.path("state");
        wait_until("nothing uses the small disk any more", || {
            Command::new("umount")
                .arg(&path)
                .status()
                .is_ok_and(|status| status.success())
        });
    }
}

fn full_disk() -> Completion {
    let host = Host::new();
    let Some(small) = Small::mount(&host, "size=160m,mode=0700") else {
        return Completion::ignored_with("mounting a small disk needs root");
    };
    let script = "dd if=/dev/zero of=/root/big bs=1M count=400 2>&1 | tail -n 3; sync
        rm /root/big && echo more >/root/small && cat /root/small";
    let output = small.run(script);
    assert_eq!(code(&output), 0, "{output:?}");
    let words = text(&output.stdout);
    assert!(words.contains("No space left on device"), "{words}");
    assert!(words.ends_with("more\n"), "{words}");
    host.assert_clean();

    // Now the host itself has no space: nothing is even begun.
    std::fs::write(host.path("state/filler"), vec![1; 110 << 20]).expect("written");
    let output = small.run("true");
    assert_eq!(code(&output), 125, "{output:?}");
    assert!(
        text(&output.stderr).starts_with("error[no_space]: "),
        "{output:?}"
    );
    host.assert_clean();
    Completion::Completed
}
