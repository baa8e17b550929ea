//! A command in the host looks to its caller like one that runs here.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use pyro_smoke::host::HostDir;
use pyro_smoke::wire::{self, Exec, GENERATION, Hello, Request};
use rustix::process::Signal;

use crate::support::{Test, eventually, exec, kill, noise, printed, program, shell};

pub(crate) const TESTS: &[Test] = &[
    ("every_exit_code_comes_back", every_exit_code_comes_back),
    (
        "a_death_by_signal_is_one_here",
        a_death_by_signal_is_one_here,
    ),
    (
        "what_cannot_be_run_gives_the_codes_of_a_shell",
        what_cannot_be_run_gives_the_codes_of_a_shell,
    ),
    ("binary_output_is_whole", binary_output_is_whole),
    (
        "standard_input_is_whole_and_ends",
        standard_input_is_whole_and_ends,
    ),
    ("output_and_error_stay_apart", output_and_error_stay_apart),
    (
        "arguments_environment_and_folder_are_as_given",
        arguments_environment_and_folder_are_as_given,
    ),
    ("many_commands_run_at_once", many_commands_run_at_once),
    (
        "a_command_dies_with_its_client",
        a_command_dies_with_its_client,
    ),
    ("a_signal_reaches_the_command", a_signal_reaches_the_command),
    (
        "a_second_request_to_end_kills",
        a_second_request_to_end_kills,
    ),
    (
        "a_reader_that_leaves_ends_the_writer",
        a_reader_that_leaves_ends_the_writer,
    ),
    (
        "a_background_child_is_not_waited_for",
        a_background_child_is_not_waited_for,
    ),
    (
        "a_command_that_never_reads_can_still_be_ended",
        a_command_that_never_reads_can_still_be_ended,
    ),
    (
        "a_shell_has_a_terminal_of_the_users_size",
        a_shell_has_a_terminal_of_the_users_size,
    ),
    ("kvm_is_there", kvm_is_there),
    (
        "a_replaced_program_is_never_run_from_a_cache",
        a_replaced_program_is_never_run_from_a_cache,
    ),
    ("shares_cannot_be_written", shares_cannot_be_written),
    (
        "without_the_token_nothing_runs",
        without_the_token_nothing_runs,
    ),
    (
        "run_says_in_one_line_that_the_host_is_used",
        run_says_in_one_line_that_the_host_is_used,
    ),
];

fn every_exit_code_comes_back() {
    let codes: Vec<u8> = (0..=255).collect();
    thread::scope(|scope| {
        for some in codes.chunks(64) {
            scope.spawn(move || {
                for code in some {
                    let output = shell(&format!("exit {code}"));
                    assert_eq!(output.status.code(), Some(i32::from(*code)), "{output:?}");
                }
            });
        }
    });
}

fn a_death_by_signal_is_one_here() {
    for signal in [1, 2, 3, 6, 9, 11, 13, 14, 15] {
        let output = shell(&format!("kill -{signal} $$"));
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
    }
}

fn what_cannot_be_run_gives_the_codes_of_a_shell() {
    let missing = exec(["no-such-program"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    let text = exec(["/etc/passwd"]).output().unwrap();
    assert_eq!(text.status.code(), Some(126));
    let nowhere = program()
        .args(["host", "exec", "--cwd", "/no/such", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&nowhere.stderr).contains("no folder /no/such"),
        "{nowhere:?}"
    );
}

fn binary_output_is_whole() {
    const LENGTH: usize = 24 << 20;
    let script =
        format!("yes import | tr 'import' '\\000\\377\\012\\015\\001\\200' | head -c {LENGTH}");
    let output = shell(&script);
    assert!(output.status.success(), "{:?}", output.status);
    let line = [0o000, 0o377, 0o012, 0o015, 0o001, 0o200, b'\n'];
    assert_eq!(output.stdout.len(), LENGTH);
    let wrong = output
        .stdout
        .iter()
        .zip(line.iter().cycle())
        .position(|(got, want)| got != want);
    assert_eq!(wrong, None);
}

fn standard_input_is_whole_and_ends() {
    let sent = noise(12 << 20);
    let mut child = exec(["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&sent).unwrap();
            drop(stdin);
        });
        child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    });
    assert!(child.wait().unwrap().success());
    assert!(
        back == sent,
        "{} bytes came back of {}",
        back.len(),
        sent.len()
    );
}

fn output_and_error_stay_apart() {
    let output = shell("echo out; echo error >&2; echo out again");
    assert_eq!(output.stdout, b"out\nout again\n");
    assert_eq!(output.stderr, b"error\n");
}

fn arguments_environment_and_folder_are_as_given() {
    let odd: Vec<OsString> = vec![
        "a b".into(),
        "".into(),
        "'\"$x\\".into(),
        "two\nlines".into(),
        OsString::from_vec(vec![0xff, 0xfe]),
    ];
    let mut expected = Vec::new();
    for word in &odd {
        expected.extend_from_slice(word.as_encoded_bytes());
        expected.push(0);
    }
    let mut command = exec(["printf", "%s\\0"]);
    let output = command.args(&odd).output().unwrap();
    assert_eq!(output.stdout, expected);

    let script = "printf '%s|%s|%s' \"$PWD\" \"$A\" \"$HOME\"";
    let output = program()
        .args([
            "host", "exec", "--env", "A=x=y z", "--cwd", "/usr/bin", "--", "sh", "-c", script,
        ])
        .output()
        .unwrap();
    assert_eq!(printed(&output), "/usr/bin|x=y z|/root");
}

fn many_commands_run_at_once() {
    // Each waits until all have started, so they really are at once.
    const MANY: usize = 24;
    let place = format!("/tmp/at-once-{}", std::process::id());
    let script = format!(
        "mkdir -p {place}; : >{place}/$0; until [ $(ls {place} | wc -l) -ge {MANY} ]; do sleep 0.1; done; echo $0"
    );
    let seen: BTreeSet<String> = thread::scope(|scope| {
        let script = &script;
        let all: Vec<_> = (0..MANY)
            .map(|number| {
                scope.spawn(move || {
                    printed(
                        &exec(["sh", "-c", script, &number.to_string()])
                            .output()
                            .unwrap(),
                    )
                })
            })
            .collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(seen.len(), MANY);
}

fn is_alive(pid: &str) -> bool {
    shell(&format!("kill -0 {pid}")).status.success()
}

fn a_command_dies_with_its_client() {
    let script = "setsid sleep 1000 & echo $! $$; exec sleep 1000";
    let mut client = exec(["sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pids: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(pids.len(), 2, "{line}");
    assert!(pids.iter().all(|pid| is_alive(pid)));
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("both processes are gone", || {
        !pids.iter().any(|pid| is_alive(pid))
    });
}

fn a_signal_reaches_the_command() {
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::USR1, "USR1"),
    ] {
        let script =
            format!("trap 'echo caught; exit 3' {name}; echo ready; while :; do sleep 0.1; done");
        let mut client = exec(["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(client.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill(i32::try_from(client.id()).unwrap(), signal);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "caught\n");
        assert_eq!(client.wait().unwrap().code(), Some(3));
    }
}

fn a_second_request_to_end_kills() {
    let script = "trap '' TERM INT; echo ready; while :; do sleep 0.1; done";
    let mut client = exec(["sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pid = i32::try_from(client.id()).unwrap();
    kill(pid, Signal::TERM);
    kill(pid, Signal::INT);
    assert_eq!(client.wait().unwrap().signal(), Some(9));
}

fn a_reader_that_leaves_ends_the_writer() {
    let mut client = exec(["yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 10];
    client.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(&some, b"y\ny\ny\ny\ny\n");
    assert_eq!(client.wait().unwrap().signal(), Some(13));
}

fn a_background_child_is_not_waited_for() {
    let output = shell("sleep 1000 & echo $!");
    let pid = printed(&output);
    assert!(is_alive(&pid), "a command's daemons outlive it");
    assert!(shell(&format!("kill {pid}")).status.success());
}

fn a_command_that_never_reads_can_still_be_ended() {
    let mut client = exec(["sh", "-c", "echo ready; exec sleep 1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let _ = stdin.write_all(&noise(8 << 20)); // far more than all buffers hold
    });
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    kill(i32::try_from(client.id()).unwrap(), Signal::TERM);
    assert_eq!(client.wait().unwrap().signal(), Some(15));
    writer.join().unwrap();
}

fn a_shell_has_a_terminal_of_the_users_size() {
    // util-linux's script(1) gives the program a terminal, as a person has one.
    let command = format!(
        "stty cols 91 rows 17; exec {} host shell",
        env!("CARGO_BIN_EXE_pyro-smoke")
    );
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = script.stdin.take().unwrap();
    // The sum keeps the echo of what is typed from looking like an answer.
    stdin
        .write_all(b"echo size $(stty size) $((40 + 2)); exit 5\n")
        .unwrap();
    let mut shown = String::new();
    script
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut shown)
        .unwrap();
    assert!(shown.contains("size 17 91 42"), "{shown:?}");
    assert_eq!(script.wait().unwrap().code(), Some(5));
    drop(stdin);
}

fn kvm_is_there() {
    let output = shell("test -c /dev/kvm && cat /sys/module/kvm_amd/parameters/npt");
    assert_eq!(printed(&output), "Y");
}

/// A folder that the host shares.
fn shared_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn write_script(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\necho {text}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, path).unwrap();
}

fn a_replaced_program_is_never_run_from_a_cache() {
    let folder = shared_folder();
    let script = folder.path().join("script");
    for round in 0..15 {
        write_script(&script, &format!("round {round}"));
        assert_eq!(
            printed(&exec([&script]).output().unwrap()),
            format!("round {round}")
        );
    }
    // Written over in place, with the same length.
    for round in ["aa", "bb", "cc"] {
        fs::write(&script, format!("#!/bin/sh\necho {round}\n")).unwrap();
        assert_eq!(printed(&exec([&script]).output().unwrap()), round);
    }
}

fn shares_cannot_be_written() {
    let folder = shared_folder();
    let file = folder.path().join("file");
    let script = format!(
        "mount -o remount,rw $(findmnt -no TARGET -T {0}) 2>/dev/null; echo x >{0}",
        file.display()
    );
    assert!(!shell(&script).status.success());
    assert!(!file.exists());
}

fn without_the_token_nothing_runs() {
    assert!(shell("true").status.success()); // it runs
    let state = HostDir::from_environment().unwrap().state().unwrap();
    let mark = format!("/tmp/intruder-{}", std::process::id());
    let exec = Exec {
        argv: vec!["touch".into(), mark.clone().into()],
        ..Exec::default()
    };
    let hello = Hello {
        generation: GENERATION,
        token: "0".repeat(64),
        request: Request::Exec(exec),
    };
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, state.port)).unwrap();
    wire::write_message(&mut connection, &hello).unwrap();
    let answer = wire::read_frame(&mut connection);
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    assert_eq!(shell(&format!("test -e {mark}")).status.code(), Some(1));
}

fn run_says_in_one_line_that_the_host_is_used() {
    let output = program()
        .args(["run", "--", "sh", "-c", "echo here; exit 4"])
        .env("PYRO_KVM", "/no/such/device")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(output.stdout, b"here\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("emulated") && said.contains("slow"), "{said}");
}
