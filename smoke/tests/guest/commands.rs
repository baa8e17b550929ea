//! What comes back from a command: statuses, streams, errors.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::pyro::{Host, Test, code, text};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        (
            "a_status_and_both_streams_come_back_from_a_well_set_up_process",
            status_and_streams,
        ),
        ("a_signal_death_is_told", signal_death),
        (
            "a_missing_command_is_127_and_one_that_is_no_program_126",
            not_started,
        ),
        ("a_timeout_kills_all_and_leaves_nothing", timeout),
        (
            "fifty_megabytes_of_binary_output_come_back_whole",
            binary_output,
        ),
        ("standard_input_reaches_the_command_whole", standard_input),
        ("doctor_and_demo_succeed_where_guests_run", doctor_and_demo),
        (
            "a_damaged_environment_is_refused_before_a_boot",
            damaged_environment,
        ),
    ]
}

fn status_and_streams() {
    let script = r#"
        echo "cwd=$PWD home=$HOME user=$(id -un) host=$(hostname)"
        echo "path=$PATH"
        echo "cloexec=$(ls /proc/self/fd | wc -l)"
        sleep 1000 &
        echo problem >&2
        exit 7"#;
    let host = Host::new();

    let result = host.run_json("debian:12", &[], &["sh", "-c", script]);

    assert_eq!(result["exit_code"], 7, "{result}");
    assert_eq!(result["signal"], serde_json::Value::Null);
    assert_eq!(result["timed_out"], false);
    assert_eq!(result["stderr"], "problem\n");
    let stdout = result["stdout"].as_str().expect("text");
    assert!(
        stdout.contains("cwd=/ home=/root user=root host=pyro\n"),
        "{stdout}"
    );
    assert!(
        stdout.contains("path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"),
        "{stdout}"
    );
    // Three streams, and the folder that ls reads.
    assert!(stdout.contains("cloexec=4\n"), "{stdout}");
    assert!(
        result["boot_ms"].as_f64().is_some_and(|ms| ms > 0.0),
        "{result}"
    );
    assert!(
        result["kernel_release"]
            .as_str()
            .is_some_and(|r| r.starts_with("6.1.")),
        "{result}"
    );
    host.assert_clean();
}

fn signal_death() {
    let output = Host::new().run("debian:12-base", &[], &["sh", "-c", "kill -SEGV $$"]);
    assert_eq!(code(&output), 139, "{output:?}");
}

fn not_started() {
    let host = Host::new();
    let output = host.run("debian:12-base", &[], &["no-such-program"]);
    assert_eq!(code(&output), 127, "{output:?}");
    assert!(
        text(&output.stderr).contains("no-such-program"),
        "{output:?}"
    );

    let result = host.run_json("debian:12-base", &[], &["/etc/passwd"]);
    assert_eq!(result["exit_code"], 126, "{result}");
    assert_eq!(result["error"]["code"], "command_not_executable");
    host.assert_clean();
}

fn timeout() {
    let host = Host::new();
    let script = "setsid sh -c 'trap \"\" TERM; sleep 1000' & echo before; sleep 1000";

    let result = host.run_json(
        "debian:12-base",
        &["--timeout-seconds", "3"],
        &["sh", "-c", script],
    );

    assert_eq!(result["exit_code"], 124, "{result}");
    assert_eq!(result["timed_out"], true);
    assert_eq!(result["stdout"], "before\n");
    host.assert_clean();
}

fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(bytes)
        .expect("written");
    let output = child.wait_with_output().expect("it ends");
    text(&output.stdout)[..64].to_string()
}

fn binary_output() {
    let script = "head -c 50000000 /dev/urandom >/root/noise
        sha256sum /root/noise >&2
        cat /root/noise";

    let output = Host::new().run("debian:12-base", &[], &["sh", "-c", script]);

    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), 50_000_000);
    assert_eq!(text(&output.stderr)[..64], sha256(&output.stdout));
}

fn standard_input() {
    let input: Vec<u8> = (0..8_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let host = Host::new();
    let args = [
        "run",
        "debian:12-base",
        "--timeout-seconds",
        "240",
        "--",
        "sh",
        "-c",
        "sha256sum; echo end",
    ];
    let mut child = host
        .command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("pyro starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(&input)
        .expect("written");

    let output: Output = child.wait_with_output().expect("it ends");

    assert_eq!(code(&output), 0);
    assert_eq!(
        text(&output.stdout),
        format!("{}  -\nend\n", sha256(&input))
    );
}

fn doctor_and_demo() {
    let host = Host::new();
    let doctor = host.output(&["doctor", "--environment", "debian:12"]);
    assert_eq!(code(&doctor), 0, "{}", text(&doctor.stdout));
    assert!(
        text(&doctor.stdout).contains("debian:12 is warm"),
        "{}",
        text(&doctor.stdout)
    );

    let demo = host.output(&["demo"]);
    assert_eq!(code(&demo), 0, "{}", text(&demo.stderr));
    let words = text(&demo.stdout);
    assert!(words.contains("git version 2."), "{words}");
    assert!(words.contains("Linux 6.1."), "{words}");
    host.assert_clean();
}

fn damaged_environment() {
    let host = Host::new();
    let folder = host.path("images/environments/debian-12");
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("manifest.json"), "{\"format\": 1}").expect("written");

    let mut command = host.command(&["run", "debian:12", "--", "true"]);
    let output = command
        .env("PYRO_IMAGE_DIR", host.path("images"))
        .output()
        .expect("starts");

    assert_eq!(code(&output), 125, "{output:?}");
    let words = text(&output.stderr);
    assert!(words.starts_with("error[environment_damaged]: "), "{words}");
    assert!(
        words.contains("fix: run `pyro env pull debian:12`"),
        "{words}"
    );
    host.assert_clean();
}
