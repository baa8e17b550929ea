//! The monitor's process; see the library.

use std::os::fd::FromRawFd;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "probe") {
        let fd: i32 = arguments.get(2).and_then(|a| a.parse().ok()).unwrap_or(3);
        // SAFETY: early.
        #[allow(unsafe_code)]
        let kvm = unsafe { kvm_ioctls::Kvm::from_raw_fd(fd) };
        let v = pyro_vmm::probe::probe(&kvm, pyro_vmm::probe::DEFAULT_TIMEOUT);
        println!("{}", serde_json::to_string(&v).expect("plain data"));
    }
}
