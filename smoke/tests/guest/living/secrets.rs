//! Secrets: files that only root can read, a variable on request, and never a value in what is said.

use super::leaks;
use crate::daemon::Daemon;
use crate::pyro::{code, text};

/// The secret TOKEN, in two pieces: commands are written down as they are given.
pub(super) const LITERAL: [&str; 2] = ["tok-S3c", "r3tV4lue99"];
/// The secret CERT.
pub(super) const FILE: [&str; 2] = ["line one of a cert\nline ", "two-XyZzY of it\n"];
/// What stands in the place of a value.
pub(super) const REDACTED: &str = "[REDACTED]";

pub(super) fn test(daemon: &Daemon, id: &str) {
    are_there(daemon, id);
    // In two chunks, in a variable, and in what the product itself says.
    let script = format!(
        "echo $T >&2; printf {}; sleep 0.3; printf {}",
        LITERAL[0], LITERAL[1]
    );
    let mapped = [
        "exec",
        id,
        "--secret-env",
        "TOKEN=T",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let output = daemon.output(&mapped);
    let said = (text(&output.stdout), text(&output.stderr));
    assert_eq!(said, (REDACTED.into(), format!("{REDACTED}\n")));
    let copied = daemon.sh(id, "cat /run/pyro-secrets/CERT");
    assert_eq!(copied.trim_end(), REDACTED);
    let command = "$(cat /run/pyro-secrets/TOKEN)";
    let output = daemon.output(&["exec", id, "--", "sh", "-c", command]);
    assert!(text(&output.stderr).contains(REDACTED), "{output:?}");
    assert_eq!(code(&output), 127);
    let unknown = ["exec", id, "--secret-env", "NONE", "--", "true"];
    assert_eq!(daemon.error(&unknown), "secret_not_found");
    assert_eq!(daemon.json(&["diff", id])["changed"], false);
    leaks::none(daemon, id);
}

/// The files, as after every start.
pub(super) fn are_there(daemon: &Daemon, id: &str) {
    let script = "cd /run/pyro-secrets; stat -c '%a %u %s' TOKEN CERT; stat -fc %T .; ls | wc -l";
    let [literal, file] = [LITERAL, FILE].map(|halves| halves.concat().len());
    assert_eq!(
        daemon.sh(id, script),
        format!("400 0 {literal}\n400 0 {file}\ntmpfs\n2\n")
    );
}
