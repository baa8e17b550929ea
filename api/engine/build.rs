//! Says whether this machine has a KVM device, so that tests that need one are *ignored* without
//! it, with the reason, and never counted as passed. Nothing but tests asks for it.

use std::fs::File;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(kvm)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=/dev/kvm");
    let usable = File::options().read(true).write(true).open("/dev/kvm");
    if usable.is_ok() {
        println!("cargo::rustc-cfg=kvm");
    }
}
