//! Says whether this machine lets tests make network namespaces and TAP devices, so that tests that
//! need them are *ignored* without, with the reason, and never counted as passed. Nothing but
//! tests asks for it.

use std::fs::File;
use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(lab)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=/dev/net/tun");
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let namespaces = Command::new("unshare")
        .args(["--net", "--mount", "ip", "link", "add", "type", "veth"])
        .output()
        .is_ok_and(|output| output.status.success());
    if tun.is_ok() && namespaces {
        println!("cargo::rustc-cfg=lab");
    }
}
