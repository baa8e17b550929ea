//! Deterministic time: the same run takes the same time.

use std::process::Stdio;

use crate::support::{Test, program};

pub(crate) const TESTS: &[Test] = &[(
    "the_same_work_takes_the_same_virtual_time",
    the_same_work_takes_the_same_virtual_time,
)];

/// Counts, and prints how many nanoseconds that took; then fails with a code of its own.
const SCRIPT: &str = r#"
date >/dev/null
s=$(date +%s%N); i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; e=$(date +%s%N)
s=$(date +%s%N); i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; e=$(date +%s%N)
echo $((e-s))
echo complaint >&2
exit 9
"#;

fn measure() -> u64 {
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&script, SCRIPT).unwrap();
    let output = program()
        .args(["host", "bench", "--mem-mib", "1024", "--file"])
        .arg(format!("{}=/tmp/script", script.path().display()))
        .args(["--", "sh", "/tmp/script"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().last(), Some("complaint"), "{said}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn the_same_work_takes_the_same_virtual_time() {
    let (first, second) = (measure(), measure());
    // An interrupt more or less may fall into it: a part in a thousand, where real time has many.
    assert!(
        first.abs_diff(second) * 500 <= first,
        "{first} and {second} ns"
    );
}
