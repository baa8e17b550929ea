//! What is made from the definition of the command line.

#![allow(clippy::unwrap_used)] // nothing but tests

mod support;

use std::fs;

use support::{Host, code, stderr, stdout};

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    let host = Host::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = host.run(&["completions", shell]);
        assert_eq!(code(&output), 0, "{shell}");
        let script = stdout(&output);
        for word in ["workspace", "snapshot", "seed-path", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(code(&host.run(&["completions", "tcsh"])), 2);
    assert!(host.is_untouched());
}

#[test]
fn bash_accepts_its_script() {
    let host = Host::new();
    let script = host.path("pyro.bash");
    fs::write(&script, host.run(&["completions", "bash"]).stdout).unwrap();
    let check = std::process::Command::new("bash")
        .arg("-n")
        .arg(&script)
        .output();
    // Where there is no bash, nobody needs the script.
    if let Ok(output) = check {
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn every_command_has_a_page_with_its_examples() {
    let host = Host::new();
    let folder = host.path("share/man1");
    let output = host.run(&["man", "--output", folder.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for page in [
        "pyro.1",
        "pyro-run.1",
        "pyro-workspace.1",
        "pyro-workspace-create.1",
        "pyro-workspace-file-read.1",
        "pyro-workspace-disk-export.1",
    ] {
        let text = fs::read_to_string(folder.join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(text.contains("Examples:"), "{page}");
    }
    assert!(host.is_untouched());

    let file = host.path("file");
    fs::write(&file, "").unwrap();
    let output = host.run(&["man", "--output", file.join("x").to_str().unwrap()]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("error[output_unwritable]"));
}
