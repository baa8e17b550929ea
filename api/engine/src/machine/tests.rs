use super::*;
use crate::limits::{Host, Limits, Wanted};

fn spec<'a>(runs: &Path, monitor: &'a Path, agent: &'a Path) -> Spec<'a> {
    let null = || File::open("/dev/null").expect("open");
    let host = Host {
        cpus: 1,
        memory_mib: 4096,
    };
    Spec {
        limits: Limits::check(&Wanted::default(), &host).expect("in range"),
        kvm: null(),
        monitor,
        agent,
        artefacts: Artefacts {
            network_modules: None,
            kernel: null(),
            modules: null(),
            layers: vec![(null(), null())],
        },
        net: None,
        run: RunDir::create(runs).expect("created"),
        hostname: "pyro".into(),
        operations: 1,
        debug_console: false,
    }
}

fn runs_left(runs: &Path) -> usize {
    std::fs::read_dir(runs)
        .expect("readable")
        .filter(|entry| entry.as_ref().expect("entry").file_name() != ".lock")
        .count()
}

fn script(folder: &Path, text: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("monitor");
    // Written by another process: a descriptor of ours, open for writing, could be inherited by a
    // child that another test is just starting, and the kernel then refuses to execute the file.
    let status = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\"",
            "sh",
            text,
        ])
        .arg(&path)
        .status()
        .expect("started");
    assert!(status.success());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
    path
}

#[tokio::test]
async fn a_monitor_that_dies_is_reported_with_its_words_and_leaves_nothing() {
    let state = tempfile::tempdir().expect("temporary folder");
    let monitor = script(state.path(), "echo it hurts >&2; exit 3");
    let runs = state.path().join("runs");
    let mut machine =
        Machine::spawn(spec(&runs, &monitor, Path::new("/bin/true"))).expect("started");

    let error = machine
        .wait_ready(Duration::from_secs(20))
        .await
        .expect_err("it died");
    let finished = machine.finish().await;

    assert_eq!(error.code(), Code::MonitorFailed);
    assert_eq!(finished.ended, Ended::Silently);
    assert_eq!(finished.monitor.and_then(|status| status.code()), Some(3));
    assert_eq!(finished.stderr, "it hurts");
    finished.removed.expect("removed");
    assert_eq!(runs_left(&runs), 0);
}

#[tokio::test]
async fn a_monitor_that_never_answers_is_killed() {
    let state = tempfile::tempdir().expect("temporary folder");
    let monitor = script(state.path(), "exec sleep 1000");
    let runs = state.path().join("runs");
    let mut machine =
        Machine::spawn(spec(&runs, &monitor, Path::new("/bin/true"))).expect("started");
    let pid = machine.monitor_pid().expect("it runs");

    let error = machine
        .wait_ready(Duration::from_millis(50))
        .await
        .expect_err("never ready");
    machine.finish().await.removed.expect("removed");

    assert_eq!(error.code(), Code::BootFailed);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(runs_left(&runs), 0);
}

#[tokio::test]
async fn a_monitor_that_cannot_be_started_leaves_nothing() {
    let state = tempfile::tempdir().expect("temporary folder");
    let runs = state.path().join("runs");

    let error = Machine::spawn(spec(
        &runs,
        Path::new("/nonexistent"),
        Path::new("/bin/true"),
    ))
    .expect_err("must fail");

    assert_eq!(error.code(), Code::MonitorStart);
    assert_eq!(runs_left(&runs), 0);
}

#[tokio::test]
async fn the_monitor_gets_a_configuration_whose_descriptors_are_open() {
    let state = tempfile::tempdir().expect("temporary folder");
    let copy = state.path().join("copy");
    let open = state.path().join("open");
    let text = format!(
        "cat /proc/self/fd/$2 >{}; ls /proc/$$/fd >{}; exit 0",
        copy.display(),
        open.display()
    );
    let monitor = script(state.path(), &text);
    let runs = state.path().join("runs");
    let mut machine =
        Machine::spawn(spec(&runs, &monitor, Path::new("/bin/true"))).expect("started");
    machine
        .wait_ready(Duration::from_secs(20))
        .await
        .expect_err("it ended");
    machine.finish().await;

    let config: pyro_vmm::config::Config =
        serde_json::from_slice(&std::fs::read(copy).expect("read")).expect("a configuration");
    let open = std::fs::read_to_string(open).expect("read");
    let open: Vec<i32> = open
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    let mut named = vec![config.kvm_fd, config.kernel_fd, config.control_fd];
    named.push(config.root.writable_fd);
    named.extend(&config.initramfs_fds);
    named.extend(
        config
            .root
            .layers
            .iter()
            .flat_map(|layer| [layer.index_fd, layer.data_fd]),
    );
    named.extend(&config.vsock.stream_fds);
    named.extend(config.vsock.host_ports.iter().map(|port| port.acceptor_fd));
    for fd in &named {
        assert!(open.contains(fd), "{fd} of {open:?}");
    }
    // Standard streams, the configuration itself, and the shell's own two: script and redirection.
    assert!(open.len() <= named.len() + 6, "{named:?} of {open:?}");
    assert_eq!(config.initramfs_fds.len(), 2);
}
