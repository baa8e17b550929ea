//! What an exec gives back: status, output, input, environment, user.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use pyro_agent_protocol::{ErrorCode, Event, Exec, ExitStatus, FrameKind, Request};
use sha2::{Digest as _, Sha256};
use support::{Agent, command, shell};

#[test]
fn exit_codes_come_back_as_they_are() {
    let agent = Agent::start_anywhere();
    for code in [0, 1, 7, 127, 255] {
        assert_eq!(agent.shell(&format!("exit {code}")).code(), code);
    }
}

#[test]
fn a_death_by_signal_is_told_from_an_exit() {
    let agent = Agent::start_anywhere();
    for signal in [9, 15, 11] {
        let outcome = agent.shell(&format!("kill -{signal} $$"));
        assert_eq!(outcome.status, ExitStatus::Signal { signal });
    }
}

#[test]
fn output_and_errors_come_apart() {
    let agent = Agent::start_anywhere();
    let outcome = agent.shell("echo out; echo err >&2");
    assert_eq!(
        (&outcome.stdout[..], &outcome.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
}

#[test]
fn a_program_that_is_not_there_is_not_found() {
    let agent = Agent::start_anywhere();
    for program in ["no-such-program", "/no/such/program", "/etc/passwd/x", ""] {
        let (code, message) = agent.failure(command(&[program]));
        assert_eq!(code, ErrorCode::CommandNotFound, "{message}");
    }
}

#[test]
fn a_file_that_is_no_program_is_not_executable() {
    let agent = Agent::start_anywhere();
    for program in ["/etc/passwd", "/etc"] {
        let (code, message) = agent.failure(command(&[program]));
        assert_eq!(code, ErrorCode::CommandNotExecutable, "{message}");
        assert!(message.contains(program), "{message}");
    }
}

#[test]
fn a_denied_file_in_the_path_is_passed_over_for_a_later_one() {
    let agent = Agent::start_anywhere();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("true"), "no program").unwrap();
    let path = |rest: &str| format!("{}{rest}", directory.path().display());
    let mut exec = command(&["true"]);
    exec.env.insert("PATH".into(), path(":/bin"));
    assert_eq!(agent.run(exec.clone()).code(), 0);
    exec.env.insert("PATH".into(), path(""));
    assert_eq!(agent.failure(exec).0, ErrorCode::CommandNotExecutable);
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_the_shell() {
    let agent = Agent::start_anywhere();
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "echo \"$# $1 $2\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = agent.run(command(&[script.to_str().unwrap(), "a b", "c"]));
    assert_eq!(outcome.text(), "2 a b c");
}

#[test]
fn a_working_directory_is_entered_or_refused() {
    let agent = Agent::start_anywhere();
    let mut exec = command(&["pwd"]);
    assert_eq!(agent.run(exec.clone()).text(), "/");
    exec.cwd = Some("/usr/bin/..".into());
    assert_eq!(agent.run(exec.clone()).text(), "/usr");
    for bad in ["/no/such/directory", "/etc/passwd", ""] {
        exec.cwd = Some(bad.into());
        assert_eq!(agent.failure(exec.clone()).0, ErrorCode::BadCwd, "{bad}");
    }
}

#[test]
fn the_environment_is_the_default_one_and_what_was_asked_for() {
    let agent = Agent::start_anywhere();
    let mut exec = command(&["env"]);
    exec.env = BTreeMap::from([
        ("GREETING".to_owned(), "two\nlines = 1".to_owned()),
        ("HOME".to_owned(), "/elsewhere".to_owned()),
    ]);
    let outcome = agent.run(exec);
    let text = outcome.text();
    assert!(text.contains("GREETING=two\nlines = 1\n"), "{text}");
    assert!(text.contains("HOME=/elsewhere\n"), "{text}");
    assert!(text.contains("LANG=C.UTF-8\n"), "{text}");
    assert!(text.contains("/usr/local/bin:"), "{text}");
    assert!(!text.contains("TERM="), "{text}");
    assert!(
        !text.contains("CARGO"),
        "the agent's own environment is not passed on: {text}"
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let agent = Agent::start_anywhere();
    let mut bad_key = command(&["true"]);
    bad_key.env.insert("A=B".into(), "c".into());
    let mut bad_value = command(&["true"]);
    bad_value.env.insert("A".into(), "c\0d".into());
    for exec in [command(&[]), command(&["a\0b"]), bad_key, bad_value] {
        let (code, message) = agent.failure(exec);
        assert_eq!(code, ErrorCode::InvalidRequest, "{message}");
    }
}

#[test]
fn an_argument_longer_than_the_kernel_takes_is_not_executable() {
    let agent = Agent::start_anywhere();
    let (code, _) = agent.failure(command(&["true", &"x".repeat(200 << 10)]));
    assert_eq!(code, ErrorCode::CommandNotExecutable);
}

#[test]
fn a_program_starts_with_clean_signals_and_descriptors() {
    let agent = Agent::start_anywhere();
    let outcome = agent.shell("grep -E '^Sig(Blk|Ign)' /proc/self/status; echo /proc/self/fd/*");
    let mut lines = outcome.text().lines();
    for name in ["SigBlk:", "SigIgn:"] {
        let set = lines.next().unwrap().strip_prefix(name).unwrap().trim();
        // Above 31 are the C library's own and real-time signals.
        assert_eq!(
            u64::from_str_radix(set, 16).unwrap() & 0x7fff_ffff,
            0,
            "{name} {set}"
        );
    }
    let open = lines.next().unwrap().replace("/proc/self/fd/", "");
    assert_eq!(
        open, "0 1 2 3",
        "descriptor 3 is the shell's own, to list the others"
    );
}

#[test]
fn a_user_is_taken_on_with_groups_and_home() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let agent = Agent::start_anywhere();
    let run = |user: &str| {
        let mut exec =
            shell("id -u; id -g; id -G; echo $HOME $USER; grep ^CapEff /proc/self/status");
        exec.user = Some(user.into());
        agent.run(exec)
    };
    let by_name = run("nobody");
    let text = by_name.text();
    assert!(text.starts_with("65534\n65534\n65534\n"), "{text}");
    assert!(text.contains("nobody\n"), "{text}");
    assert!(
        text.ends_with("0000000000000000"),
        "no capability is left: {text}"
    );
    assert_eq!(run("65534").stdout, by_name.stdout);

    let mut exec = command(&["true"]);
    for nobody in ["no-such-user", "4000000001", "4294967295", "-1", ""] {
        exec.user = Some(nobody.into());
        assert_eq!(
            agent.failure(exec.clone()).0,
            ErrorCode::UnknownUser,
            "{nobody}"
        );
    }
}

#[test]
fn without_input_a_program_reads_nothing() {
    let agent = Agent::start_anywhere();
    assert_eq!(agent.run(command(&["cat"])).stdout, b"");
}

#[test]
fn megabytes_of_input_come_back() {
    let agent = Agent::start_anywhere();
    let mut stream = agent.exec(Exec {
        stdin: true,
        ..command(&["cat"])
    });
    let bytes: Vec<u8> = (0..5_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut writer = support::Stream::new(stream.socket.try_clone().unwrap());
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        for piece in sent.chunks(100_000) {
            writer.stdin(piece);
        }
        writer.stdin(b"");
    });
    let outcome = stream.outcome();
    sender.join().unwrap();
    assert_eq!(outcome.code(), 0);
    assert!(
        outcome.stdout == bytes,
        "{} bytes came back",
        outcome.stdout.len()
    );
}

#[test]
fn input_is_answered_as_it_comes() {
    let agent = Agent::start_anywhere();
    let mut stream = agent.exec(Exec {
        stdin: true,
        ..command(&["cat"])
    });
    for word in ["one", "two"] {
        stream.stdin(word.as_bytes());
        assert_eq!(stream.output(), word.as_bytes());
    }
    stream.stdin(b"");
    assert_eq!(stream.outcome().code(), 0);
}

#[test]
fn fifty_megabytes_of_binary_output_are_whole() {
    let agent = Agent::start_anywhere();
    let script = "head -c 50000000 /dev/urandom | tee /dev/fd/3 3>&1 >&2 | cat";
    let mut stream = agent.exec(shell(script));
    let (mut out, mut err) = (Sha256::new(), Sha256::new());
    let mut length = 0;
    loop {
        let frame = stream.frame().unwrap();
        match frame.kind {
            FrameKind::Stdout => {
                length += frame.payload.len();
                out.update(&frame.payload);
            }
            FrameKind::Stderr => err.update(&frame.payload),
            _ => break,
        }
    }
    assert_eq!(length, 50_000_000);
    assert_eq!(out.finalize(), err.finalize());
}

#[test]
fn a_hundred_programs_run_at_once() {
    let agent = Agent::start_anywhere();
    let mut streams: Vec<_> = (0..120)
        .map(|_| {
            agent.exec(Exec {
                stdin: true,
                ..shell("read line; echo $line; exit 3")
            })
        })
        .collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.stdin(format!("line {number}\n").as_bytes());
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let outcome = stream.outcome();
        assert_eq!(
            (outcome.code(), outcome.text()),
            (3, &*format!("line {number}"))
        );
    }
    support::wait_until("all descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn the_agent_on_an_inherited_stream_serves_it_and_ends() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&theirs).to_string();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_pyro-agent"))
        .args(["--stream-fd", &number])
        .spawn()
        .unwrap();
    drop(theirs);
    let mut stream = support::Stream::new(ours);
    stream.send(&pyro_agent_protocol::encode_message(&Request::Exec(shell("exit 4"))).unwrap());
    assert!(matches!(stream.event(), Event::Started { .. }));
    assert_eq!(stream.outcome().code(), 4);
    assert!(child.wait().unwrap().success());
}
