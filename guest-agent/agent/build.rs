//! Makes the release agent small: it is unpacked into memory at every boot.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-changed=build.rs");
    // Other profiles unwind.
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    for argument in [
        // Relocations of a static, position-independent program as a bitmap: 3 KiB, not 96.
        "-Wl,-z,pack-relative-relocs",
        "-Wl,--no-eh-frame-hdr",
        &format!("-Wl,-T,{directory}/link.ld"),
    ] {
        println!("cargo::rustc-link-arg-bin=pyro-agent={argument}");
    }
}
