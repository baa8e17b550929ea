//! What lives in a workspace: services and their ports, shells, secrets and the network.
//!
//! One guest for nearly all of it, since a boot costs seconds; each part leaves to the next what it
//! found, and the endings come last: a killed daemon, network and monitor, a stop, a reset, a deletion.
//! `PYRO_TEST_PORT_MIB` says how many MiB go through a published port (64).

mod attach;
mod endings;
mod leaks;
mod limits;
mod network;
mod ports;
mod resolver;
mod secrets;
mod services;
mod shells;

use crate::daemon::Daemon;
use crate::pyro::Test;
use resolver::Resolver;

/// Most seconds of a start or a command; hosts may be emulated.
const SECONDS: &str = "240";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("what_lives_in_a_workspace_is_as_it_is_told", living),
        ("without_a_network_there_is_no_device", off),
    ]
}

fn living() {
    let daemon = Daemon::new();
    let resolver = Resolver::new(&daemon);
    let file = daemon.path("certificate");
    std::fs::write(&file, secrets::FILE.concat()).expect("a file");
    let literal = format!("TOKEN={}", secrets::LITERAL.concat());
    let file = format!("CERT={}", file.display());
    let id = daemon.said(&[
        "create",
        "debian:12",
        "--mem-mib",
        "512",
        "--network-policy",
        "egress+published-ports",
        "--secret",
        &literal,
        "--secret-file",
        &file,
        "--id-only",
    ]);
    std::fs::remove_file(daemon.path("certificate")).expect("there");
    let id = id.trim();
    step("secrets", || secrets::test(&daemon, id));
    step("network", || network::test(&daemon, id, resolver.as_ref()));
    step("services", || services::test(&daemon, id));
    step("ports", || ports::test(&daemon, id));
    step("shells", || shells::test(&daemon, id));
    step("attach", || attach::test(&daemon, id));
    step("endings", || endings::test(&daemon, id));
}

/// Says how long a part took: the whole is minutes on an emulated host.
fn step(what: &str, test: impl FnOnce()) {
    let began = std::time::Instant::now();
    test();
    eprintln!("living: {what}: {} s", began.elapsed().as_secs());
}

fn off() {
    let daemon = Daemon::new();
    let id = daemon.said(&["create", "debian:12-base", "--mem-mib", "256", "--id-only"]);
    let id = id.trim();
    assert_eq!(daemon.sh(id, "ls /sys/class/net"), "lo\n");
    let script =
        "apt-get -o Acquire::Retries=0 -o APT::Update::Error-Mode=any update >&2 || echo $?";
    assert_eq!(daemon.sh(id, script), "100\n");
    let published = ["service", "start", id, "s", "--publish", "80", "--", "true"];
    assert_eq!(daemon.error(&published), "network_unavailable");
    assert_eq!(daemon.pids("pyro-net"), Vec::<u32>::new());
    daemon.said(&["delete", id]);
}
