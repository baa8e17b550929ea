//! What tests of several modules share.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pyro_client::types::{ExecRecord, ExecState, NetworkPolicy, Seed, SeedKind};

use crate::records::{Disk, Phase, Pinned, Record, WorkspaceId};

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
        "catalogue_version": "3.6.0",
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
