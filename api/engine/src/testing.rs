//! What tests of several modules share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use jiff::Timestamp;
use pyro_client::types::{ExecRecord, ExecState, NetworkPolicy, Seed, SeedKind};
use pyro_rootfs::pack::{Metadata, PackLimits, PackedWriter};
use sha2::{Digest, Sha256};

use crate::records::{Disk, Phase, Pinned, Record, WorkspaceId};

/// Makes an image store with a `debian:12` whose root has two files, and no kernel that anything
/// could boot.
pub(crate) fn install_environment(store: &Path) {
    let write = |bytes: &[u8]| {
        let digest = format!("{:x}", Sha256::digest(bytes));
        let folder = store.join("artefacts/sha256");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join(&digest), bytes).expect("written");
        serde_json::json!({"sha256": digest, "size": bytes.len()})
    };
    let (mut index, mut data) = (
        tempfile::tempfile().expect("a file"),
        tempfile::tempfile().expect("a file"),
    );
    let mut pack = PackedWriter::new(&index, &data, PackLimits::default()).expect("a layer");
    let meta = Metadata {
        mode: 0o755,
        ..Metadata::default()
    };
    pack.add_directory(b"etc", meta.clone()).expect("added");
    pack.add_file(b"etc/hostname", meta, &mut &b"pyro\n"[..], 5)
        .expect("added");
    pack.finish().expect("packed");
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().expect("rewound");
        file.read_to_end(&mut bytes).expect("read");
        write(&bytes)
    };
    let (index, data) = (read(&mut index), read(&mut data));
    let mut manifest = serde_json::to_value(record().environment.manifest).expect("plain data");
    manifest["layers"] = serde_json::json!([{"index": index, "data": data, "inodes": 3}]);
    manifest["kernel"]["vmlinux"] = write(b"vmlinux");
    manifest["kernel"]["modules"] = write(b"modules");
    manifest["packages"] = write(b"packages");
    let folder = store.join("environments/debian-12");
    std::fs::create_dir_all(&folder).expect("made");
    let text = serde_json::to_vec(&manifest).expect("plain data");
    std::fs::write(folder.join("manifest.json"), text).expect("written");
}

/// A stopped workspace.
pub(crate) fn record() -> Record {
    let now = Timestamp::now();
    let hex = "ab".repeat(32);
    let artefact = serde_json::json!({"sha256": hex, "size": 1});
    let recipe = serde_json::to_value(
        pyro_images::Catalogue::builtin()
            .recipe("debian:12")
            .expect("known"),
    )
    .expect("plain data");
    let manifest = serde_json::from_value(serde_json::json!({
        "format": 1,
        "catalogue_version": env!("CARGO_PKG_VERSION"),
        "recipe": recipe,
        "recipe_digest": hex,
        "created": "2026-01-01T00:00:00Z",
        "kernel": {"release": "6.1", "package": "p", "vmlinux": artefact, "modules": artefact},
        "layers": [{"index": artefact, "data": artefact, "inodes": 1}],
        "packages": artefact,
        "archives": [],
    }))
    .expect("a manifest");
    Record {
        format: 1,
        workspace_id: WorkspaceId::random().expect("random"),
        name: None,
        labels: BTreeMap::new(),
        environment: Pinned {
            name: "debian:12".into(),
            manifest,
        },
        vcpu_count: 1,
        mem_mib: 1024,
        network_policy: NetworkPolicy::Off,
        ttl_seconds: 600,
        created_at: now,
        last_activity_at: now,
        seed: Seed {
            kind: SeedKind::Empty,
            path: None,
            entries: 0,
            bytes: 0,
            skipped: Vec::new(),
            skipped_count: 0,
        },
        secrets: Vec::new(),
        reset_count: 0,
        last_reset_at: None,
        phase: Phase::Stopped,
        disk: Disk::default(),
    }
}

/// A command that ended well.
pub(crate) fn exec_record(sequence: u64) -> ExecRecord {
    ExecRecord {
        sequence,
        workspace_id: "ws-aaaaaaaaaaaa".into(),
        command: vec!["true".into()],
        cwd: "/workspace".into(),
        state: ExecState::Exited,
        exit_code: Some(0),
        signal: None,
        stdout: String::new(),
        stderr: String::new(),
        stdout_bytes: 0,
        stderr_bytes: 0,
        stdout_truncated: false,
        stderr_truncated: false,
        started_at: Timestamp::UNIX_EPOCH,
        duration_ms: Some(1.0),
        error: None,
    }
}
