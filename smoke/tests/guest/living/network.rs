//! The network: what a guest can reach, and what not.

use std::net::Ipv4Addr;

use super::SECONDS;
use super::resolver::{NAME, Resolver};
use crate::daemon::Daemon;
use crate::pyro::{code, text};

/// This host (as the guest sees it, and one that nobody has), private ones, carriers', metadata,
/// unspecified, benchmarking, reserved.
const FORBIDDEN: &str = "10.0.2.2 10.1.2.3 172.16.0.1 192.168.1.1 100.64.0.1 169.254.169.254 \
    0.0.0.0 198.18.0.1 240.0.0.1";

pub(super) fn test(daemon: &Daemon, id: &str, resolver: Option<&Resolver>) {
    assert_eq!(daemon.sh(id, "ls /sys/class/net"), "eth0\nlo\n");
    let tried = FORBIDDEN.replace(' ', "', '");
    assert_eq!(reached(daemon, id, &tried), "");
    assert_eq!(daemon.json(&["diff", id])["changed"], false);
    if let Some(resolver) = resolver {
        a_name_that_moves(daemon, id, resolver);
        packages(daemon, id);
    }
}

/// Those of some hosts where a connection to port 80 is not refused, with what happened.
fn reached(daemon: &Daemon, id: &str, hosts: &str) -> String {
    let script = format!(
        "import socket
for host in ['{hosts}']:
    try:
        socket.create_connection((host, 80), 60)
        print(host, 'connected')
    except ConnectionRefusedError:
        pass
    except Exception as error:
        print(host, error)
"
    );
    let words = ["--timeout-seconds", SECONDS, "--", "python3", "-c", &script];
    let output = daemon.output(&[&["exec", id][..], &words].concat());
    assert_eq!(code(&output), 0, "{output:?}");
    text(&output.stdout)
}

/// What counts is where a name leads when it is used.
fn a_name_that_moves(daemon: &Daemon, id: &str, resolver: &Resolver) {
    resolver.set(resolver.world);
    assert_eq!(reached(daemon, id, NAME), format!("{NAME} connected\n"));
    for forbidden in [[192, 168, 77, 1], [169, 254, 169, 254]] {
        resolver.set(Ipv4Addr::from(forbidden));
        assert_eq!(reached(daemon, id, NAME), "");
    }
}

/// A package, as anybody would install it. Of the lists it takes the smallest, which tzdata is always
/// in: the large ones take minutes on an emulated host.
fn packages(daemon: &Daemon, id: &str) {
    let sources = "deb http://deb.debian.org/debian bookworm-updates main";
    let script = format!(
        "exec >&2; echo '{sources}' >/tmp/updates.list
        only='-o Dir::Etc::SourceList=/tmp/updates.list -o Dir::Etc::SourceParts=-'
        export DEBIAN_FRONTEND=noninteractive
        apt-get $only -o APT::Update::Error-Mode=any -q update
        apt-get $only -q install -y --no-install-recommends tzdata
        dpkg --verify tzdata"
    );
    assert_eq!(daemon.sh(id, &script), "");
}
