//! The real binary on this host: usage, errors, exit statuses and JSON. Needs no guest.

#![allow(clippy::unwrap_used)] // nothing but tests

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use support::{Host, code, json, stderr, stdout};

/// Fails with `expected` and says so in words and in JSON; nothing is made.
fn assert_fails(host: &Host, args: &[&str], status: i32, expected: &str) {
    let output = host.run(args);
    assert_eq!(code(&output), status, "{args:?}: {output:?}");
    assert_eq!(stdout(&output), "", "{args:?}");
    let words = stderr(&output);
    assert!(
        words.starts_with(&format!("error[{expected}]: ")),
        "{args:?}: {words}"
    );
    assert!(words.contains("\n  fix: "), "{args:?}: {words}");

    let mut with_json = args.to_vec();
    with_json.insert(
        args.iter()
            .position(|arg| *arg == "--")
            .unwrap_or(args.len()),
        "--json",
    );
    let output = host.run(&with_json);
    assert_eq!(code(&output), status, "{with_json:?}: {output:?}");
    let error = &json(&output)["error"];
    assert_eq!(error["code"], expected, "{with_json:?}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert!(!error["remedy"].as_str().unwrap().is_empty());
    assert!(host.is_untouched(), "{args:?} made something");
}

#[test]
fn command_lines_that_make_no_sense_exit_2() {
    let host = Host::new();
    for args in [
        &["nonsense"][..],
        &["run"],
        &["run", "debian:12"],
        &["run", "debian:12", "--"],
        &["run", "debian:12", "git"],
        &["run", "debian:12", "--vcpu-count", "many", "--", "true"],
        &["run", "debian:12", "--network", "everything", "--", "true"],
        &["env", "pull"],
        &["doctor", "extra"],
    ] {
        let output = host.run(args);
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(
            stderr(&output).contains("--help"),
            "{args:?}: {}",
            stderr(&output)
        );
    }
    assert!(host.is_untouched());
}

#[test]
fn a_run_without_dashes_is_told_where_they_go() {
    let host = Host::new();
    for args in [
        &["run", "debian:12", "git"][..],
        &["run", "debian:12", "git", "--version"],
        &["run", "debian:12"],
    ] {
        let words = stderr(&host.run(args));
        assert!(words.contains("after `--`"), "{args:?}: {words}");
        let error = json(&host.run(&[args, &["--json"]].concat()));
        let remedy = error["error"]["remedy"].as_str().unwrap().to_string();
        assert!(remedy.contains("after `--`"), "{args:?}: {error}");
    }
    let words = stderr(&host.run(&["run", "debian:12", "--vcpu-count", "-1", "--", "git"]));
    assert!(words.contains("invalid value '-1'"), "{words}");
}

#[test]
fn an_error_whose_document_cannot_be_written_is_told_in_words() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Host::new().command(&["env", "list", "--json"]);
    let output = command.stdout(full).stderr(Stdio::piped()).output();
    let output = output.unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("error[io]: "), "{output:?}");
}

#[test]
fn a_usage_error_with_json_is_a_document() {
    let output = Host::new().run(&["run", "--json", "--nonsense"]);
    assert_eq!(code(&output), 2);
    assert_eq!(json(&output)["error"]["code"], "usage");
    // After the dashes everything is the guest's.
    let output = Host::new().run(&["run", "--nonsense", "--", "--json"]);
    assert_eq!(stdout(&output), "");
}

#[test]
fn zero_and_absurd_sizes_are_usage_errors_with_a_code_of_their_own() {
    let host = Host::new();
    let cases = [
        ("--vcpu-count", "0", "vcpu_count_out_of_range"),
        ("--vcpu-count", "4096", "vcpu_count_out_of_range"),
        ("--mem-mib", "0", "memory_out_of_range"),
        ("--mem-mib", "127", "memory_out_of_range"),
        ("--mem-mib", "99999999999", "memory_out_of_range"),
        ("--timeout-seconds", "0", "time_out_of_range"),
        ("--ttl-seconds", "0", "time_out_of_range"),
    ];
    for (flag, value, expected) in cases {
        assert_fails(
            &host,
            &["run", "debian:12", flag, value, "--", "true"],
            2,
            expected,
        );
    }
}

#[test]
fn an_unknown_environment_is_answered_with_the_nearest_names() {
    let host = Host::new();
    assert_fails(
        &host,
        &["run", "debain:12", "--", "true"],
        125,
        "unknown_environment",
    );
    assert_fails(
        &host,
        &["env", "pull", "debain:12"],
        1,
        "unknown_environment",
    );
    assert_fails(
        &host,
        &["env", "inspect", "ubuntu"],
        1,
        "unknown_environment",
    );
    assert_fails(
        &host,
        &["doctor", "--environment", "debain:12"],
        1,
        "unknown_environment",
    );
    let words = stderr(&host.run(&["run", "debain:12", "--", "true"]));
    assert!(words.contains("debian:12"), "{words}");
}

#[test]
fn no_kvm_and_no_kvm_for_this_user_are_told_apart() {
    let host = Host::new();
    assert_fails(
        &host,
        &["run", "debian:12", "--", "true"],
        125,
        "kvm_missing",
    );
    let mut command = host.command(&["demo"]);
    assert_eq!(command.output().unwrap().status.code(), Some(125));

    let forbidden = host.path("kvm");
    fs::write(&forbidden, "").unwrap();
    fs::set_permissions(&forbidden, PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = host.command(&["run", "debian:12", "--json", "--", "true"]);
    command.env("PYRO_KVM", &forbidden);
    let error = json(&command.output().unwrap())["error"]["code"].clone();
    // Root may open everything, and then it is no device.
    let is_root = fs::File::open(&forbidden).is_ok();
    assert_eq!(
        error,
        if is_root {
            "kvm_unavailable"
        } else {
            "kvm_permission"
        }
    );
}

#[test]
fn a_missing_helper_is_named() {
    let host = Host::new();
    for name in ["pyro-vmm", "pyro-agent"] {
        let moved = host.path("moved");
        fs::rename(host.path(name), &moved).unwrap();
        assert_fails(
            &host,
            &["run", "debian:12", "--", "true"],
            125,
            "helper_missing",
        );
        fs::rename(&moved, host.path(name)).unwrap();
    }
}

#[test]
fn an_unknown_network_policy_is_a_usage_error_that_lists_the_known_ones() {
    let args = ["run", "debian:12", "--network", "lan", "--", "true"];
    let output = Host::new().command(&args).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("egress+published-ports"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn arguments_that_are_no_text_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let mut command = Host::new().command(&["run", "debian:12", "--"]);
    let output = command.arg(OsStr::from_bytes(b"\xff")).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("invalid_command"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn env_list_shows_the_catalogue_of_an_empty_store_and_makes_nothing() {
    let host = Host::new();
    let output = host.run(&["env", "list", "--json"]);
    assert_eq!(code(&output), 0);
    let document = json(&output);
    let environments = document["environments"].as_array().unwrap();
    let names: Vec<_> = environments
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    let expected = [
        "debian:12",
        "debian:12-base",
        "debian:12-build",
        "debian:13",
        "debian:13-base",
        "debian:13-build",
    ];
    assert_eq!(names, expected);
    assert!(environments.iter().all(|e| e["state"] == "cold"));
    // Two spaces, sorted keys, one document, nothing else.
    let text = stdout(&output);
    assert!(text.starts_with("{\n  \"catalogue_version\""), "{text}");
    assert!(text.ends_with("}\n"));

    let words = stdout(&host.run(&["env", "list"]));
    assert!(words.lines().all(|line| line.contains("cold")), "{words}");
    assert_eq!(words.lines().count(), 6);
    assert!(host.is_untouched());
}

#[test]
fn env_inspect_of_a_cold_environment_says_what_to_do() {
    let host = Host::new();
    let document = json(&host.run(&["env", "inspect", "debian:12", "--json"]));
    assert_eq!(document["state"], "cold");
    assert_eq!(document["manifest"], Value::Null);
    assert!(
        document["recipe"]["packages"]
            .as_array()
            .unwrap()
            .contains(&"git".into())
    );
    let words = stdout(&host.run(&["env", "inspect", "debian:12"]));
    assert!(words.contains("pyro env pull debian:12"), "{words}");
    assert!(host.is_untouched());
}

#[test]
fn a_store_that_cannot_be_made_is_a_failure_with_a_remedy() {
    let host = Host::new();
    fs::write(host.path("file"), "").unwrap();
    let mut command = host.command(&["env", "pull", "debian:12", "--json"]);
    let output = command
        .env("PYRO_IMAGE_DIR", host.path("file/images"))
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert_eq!(json(&output)["error"]["code"], "image_store");
}

#[test]
fn a_manifest_that_is_nonsense_is_damage_and_not_a_crash() {
    let host = Host::new();
    let folder = host.path("images/environments/debian-12");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("manifest.json"), "{").unwrap();

    let document = json(&host.run(&["env", "inspect", "debian:12", "--json"]));
    assert_eq!(document["state"], "damaged");
    let report = host.run(&["doctor", "--environment", "debian:12", "--json"]);
    assert_eq!(code(&report), 1);
    let check = check(&json(&report), "environment");
    assert_eq!(check["status"], "FAIL");
    assert!(
        check["remedy"]
            .as_str()
            .unwrap()
            .contains("pyro env pull debian:12")
    );
}

fn check(report: &Value, id: &str) -> Value {
    let checks = report["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|check| check["id"] == id)
        .unwrap_or_else(|| panic!("{report}"))
        .clone()
}

#[test]
fn doctor_fails_without_kvm_and_gives_a_remedy_for_all_that_does_not_pass() {
    let host = Host::new();
    let output = host.run(&["doctor", "--json"]);
    assert_eq!(code(&output), 1);
    let report = json(&output);
    assert_eq!(report["status"], "FAIL");
    assert_eq!(check(&report, "kvm")["status"], "FAIL");
    for check in report["checks"].as_array().unwrap() {
        let passed = check["status"] == "PASS";
        assert_eq!(check["remedy"].is_null(), passed, "{check}");
    }
    let words = stdout(&host.run(&["doctor"]));
    assert!(words.contains("FAIL  kvm "), "{words}");
    assert!(host.is_untouched());
}

#[test]
fn doctor_says_whether_an_environment_is_cold() {
    let host = Host::new();
    let report = json(&host.run(&["doctor", "--environment", "debian:13-base", "--json"]));
    let check = check(&report, "environment");
    assert_eq!(check["status"], "WARN");
    assert!(check["summary"].as_str().unwrap().contains("cold"));
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let host = Host::new();
    for args in [
        &["env", "list"][..],
        &["--help"],
        &["env", "list", "--json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = host.command(args);
        let output = command
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!([0, 141].contains(&code(&output)), "{args:?}: {output:?}");
        assert!(!stderr(&output).contains("panicked"), "{args:?}");
    }
}

#[test]
fn no_colour_and_no_control_sequence_reaches_a_pipe() {
    let host = Host::new();
    for args in [
        &["doctor"][..],
        &["env", "list"],
        &["run", "nope", "--", "true"],
        &["--help"],
    ] {
        let output = host.run(args);
        assert!(
            !output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b),
            "{args:?}"
        );
    }
}

#[test]
fn help_and_version_succeed_and_teach() {
    let host = Host::new();
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["env", "pull", "--help"],
        &["help", "run"],
    ] {
        let output = host.run(args);
        assert_eq!(code(&output), 0, "{args:?}");
        assert!(stdout(&output).contains("Examples:"), "{args:?}");
    }
    assert_eq!(
        stdout(&host.run(&["--version"])),
        concat!("pyro ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn the_helpers_are_found_beside_the_program() {
    let host = Host::new();
    let program = host.path("pyro");
    let status = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_pyro"))
        .arg(&program)
        .status();
    assert!(status.unwrap().success());
    let report = |program: &Path| {
        let mut command = Command::new(program);
        command
            .args(["doctor", "--json"])
            .env_clear()
            .env("HOME", host.path("home"));
        json(&command.env("PYRO_KVM", "/nonexistent").output().unwrap())
    };
    assert_eq!(check(&report(&program), "monitor")["status"], "PASS");
    fs::create_dir_all(host.path("libexec/pyro")).unwrap();
    fs::create_dir(host.path("bin")).unwrap();
    fs::rename(&program, host.path("bin/pyro")).unwrap();
    for name in ["pyro-vmm", "pyro-agent"] {
        fs::rename(host.path(name), host.path("libexec/pyro").join(name)).unwrap();
    }
    assert_eq!(
        check(&report(&host.path("bin/pyro")), "agent")["status"],
        "PASS"
    );
}
