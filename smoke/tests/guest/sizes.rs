//! Guests of different sizes and suites, several at once, and one that eats all its memory.

use crate::pyro::{Host, Test, code, text};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("two_processors_and_four_gibibytes_are_seen", large),
        ("a_base_guest_runs_in_128_mebibytes", small),
        ("debian_13_runs", debian_13),
        (
            "a_guest_that_eats_its_memory_loses_the_eater_only",
            out_of_memory,
        ),
        (
            "guests_run_at_the_same_time_without_seeing_each_other",
            concurrent,
        ),
    ]
}

/// Processors and MiB of memory that the guest counts.
fn counted(environment: &str, flags: &[&str]) -> (u64, u64) {
    let script = "nproc; awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo";
    let output = Host::new().run(environment, flags, &["sh", "-c", script]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let words = text(&output.stdout);
    let numbers: Vec<u64> = words
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    (numbers[0], numbers[1])
}

fn large() {
    let (processors, memory) = counted("debian:12", &["--vcpu-count", "2", "--mem-mib", "4096"]);
    assert_eq!(processors, 2);
    assert!((3800..=4096).contains(&memory), "{memory}");
}

fn small() {
    let (processors, memory) = counted("debian:12-base", &["--mem-mib", "128"]);
    assert_eq!(processors, 1);
    assert!((70..=128).contains(&memory), "{memory}");
}

fn debian_13() {
    let script =
        ". /etc/os-release; echo $VERSION_ID; uname -r; touch /root/a && stat -c %U /root/a";
    let output = Host::new().run("debian:13-base", &[], &["sh", "-c", script]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let words = text(&output.stdout);
    assert!(words.starts_with("13\n6.12."), "{words}");
    assert!(words.ends_with("root\n"), "{words}");
}

fn out_of_memory() {
    let host = Host::new();
    // tail keeps a last line that never ends.
    let script = "tail /dev/zero; echo \"status $?\"; echo still here";

    let output = host.run(
        "debian:12-base",
        &["--mem-mib", "192"],
        &["sh", "-c", script],
    );

    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(text(&output.stdout), "status 137\nstill here\n");
    host.assert_clean();
}

fn concurrent() {
    let host = Host::new();
    std::thread::scope(|scope| {
        let guests: Vec<_> = (0..3)
            .map(|number| {
                let host = &host;
                scope.spawn(move || {
                    let script = format!("echo {number} >>/root/file; cat /root/file; ls /root");
                    host.run(
                        "debian:12-base",
                        &["--mem-mib", "256"],
                        &["sh", "-c", &script],
                    )
                })
            })
            .collect();
        for (number, guest) in guests.into_iter().enumerate() {
            let output = guest.join().expect("no panic");
            assert_eq!(
                text(&output.stdout),
                format!("{number}\nfile\n"),
                "{output:?}"
            );
        }
    });
    host.assert_clean();
}
