//! Whether KVM is there, may be used, and is up to a stock guest kernel.

use std::fs;

use super::Check;
use crate::kvm;
use crate::paths::Paths;

/// The checks of KVM. A failed one leaves those behind it out: they would say the same.
pub(super) async fn checks(paths: &Paths) -> Vec<Check> {
    let device = match kvm::open(&paths.kvm) {
        Ok(device) => device,
        Err(error) => return vec![Check::failed("kvm", &error)],
    };
    let shown = paths.kvm.display();
    let open = Check::pass(
        "kvm",
        format!("{shown} can be read and written ({})", providers()),
    );
    let Ok(monitor) = paths.monitor.find() else {
        let guest = Check::warn(
            "kvm-guest",
            "whether KVM can run a stock guest kernel is not known without the monitor",
            "see the check of the monitor",
        );
        return vec![open, guest];
    };
    let guest = match kvm::probe(&device, monitor).await {
        Err(error) => Check::failed("kvm-guest", &error),
        Ok(verdict) => match kvm::refuse_unusable(&paths.kvm, &verdict) {
            Ok(()) => Check::pass(
                "kvm-guest",
                "a trial guest ran: a stock guest kernel can run",
            ),
            Err(error) => Check::failed("kvm-guest", &error),
        },
    };
    vec![open, guest]
}

/// The kernel modules that provide KVM, for a person's information: nothing is decided by names.
fn providers() -> String {
    let mut names: Vec<String> = fs::read_dir("/sys/module")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("kvm_"))
        .collect();
    names.sort();
    if names.is_empty() {
        "module unknown".to_string()
    } else {
        names.join(", ")
    }
}
