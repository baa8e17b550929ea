//! `pyro workspace status`.

use jiff::Timestamp;
use pyro_client::types::{NetworkPolicy, SeedKind, Workspace};

use super::list::labels;
use super::{show, state};
use crate::args::Of;
use crate::daemon;
use crate::output::{Failure, Fields, Paint, human};

pub(super) async fn status(of: &Of) -> Result<(), Failure> {
    let record = daemon::client().await?.get(&of.workspace).await?;
    show(of.json.json, &record, |record| {
        words(record, Timestamp::now(), Paint::stdout())
    })
}

fn words(record: &Workspace, now: Timestamp, paint: Paint) -> String {
    let mut fields = Fields::default();
    fields.add("workspace", &record.workspace_id);
    fields.add("name", record.name.as_deref().unwrap_or("-"));
    fields.add("state", state(record.state).0);
    if let Some(failure) = &record.failure {
        fields.add("failure", format!("{}: {}", failure.code, failure.message));
        fields.add("fix", &failure.remedy);
    }
    if let Some(failure) = &record.network_failure {
        fields.add("network", &failure.message);
        fields.add("fix", &failure.remedy);
    }
    fields.add("environment", &record.environment);
    fields.add("labels", dash(&labels(record)));
    fields.add(
        "machine",
        format!(
            "{}, {} MiB of memory, network {}",
            human::count(record.vcpu_count, "CPU"),
            record.mem_mib,
            policy(record.network_policy)
        ),
    );
    fields.add(
        "created",
        at(record.created_at, human::ago(record.created_at, now)),
    );
    let active = record.last_activity_at;
    fields.add("active", at(active, human::ago(active, now)));
    fields.add(
        "expires",
        format!(
            "{}; {} after the last activity",
            at(record.expires_at, human::until(record.expires_at, now)),
            human::seconds(record.ttl_seconds)
        ),
    );
    fields.add("files", &record.workspace_path);
    fields.add("seed", seed(record));
    if !record.secrets.is_empty() {
        let names: Vec<_> = record.secrets.iter().map(|one| one.name.as_str()).collect();
        fields.add("secrets", names.join(", "));
    }
    if record.service_count > 0 {
        let running = human::count(record.service_count, "service");
        fields.add("services", format!("{running} running"));
    }
    if record.shell_count > 0 {
        fields.add("shells", record.shell_count.to_string());
    }
    fields.add("commands", record.command_count.to_string());
    fields.add("snapshots", record.snapshot_count.to_string());
    if let Some(then) = record.last_reset_at {
        let times = human::count(record.reset_count, "time");
        fields.add("reset", format!("{times}, last {}", human::ago(then, now)));
    }
    fields.render(paint)
}

fn at(time: Timestamp, relative: String) -> String {
    format!("{time:.0} ({relative})")
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn policy(policy: NetworkPolicy) -> &'static str {
    match policy {
        NetworkPolicy::Off => "off",
        NetworkPolicy::Egress => "egress",
        NetworkPolicy::EgressPublishedPorts => "egress+published-ports",
    }
}

fn seed(record: &Workspace) -> String {
    let seed = &record.seed;
    let kind = match seed.kind {
        SeedKind::Empty => return "nothing".to_string(),
        SeedKind::Directory => "directory",
        SeedKind::Tar => "archive",
    };
    let mut text = format!(
        "{kind} {}: {}, {}",
        seed.path.as_deref().unwrap_or("-"),
        human::count(seed.entries, "entry"),
        human::bytes(seed.bytes)
    );
    if seed.skipped_count > 0 {
        text.push_str(&format!(
            "; {} stayed behind",
            human::count(seed.skipped_count, "path")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use pyro_client::types::{ApiError, WorkspaceState};

    use super::super::tests::workspace;
    use super::*;

    #[test]
    fn a_failed_workspace_says_why_and_what_to_do_and_forges_nothing() {
        let mut record = workspace("ws-aaaaaaaaaaaa", Some("a\x1b[2Jb\u{202e}"));
        record.state = WorkspaceState::Failed;
        record.failure = Some(ApiError {
            code: "guest_crashed".into(),
            message: "the kernel said\n\x1b[1mBUG".into(),
            remedy: "start it again".into(),
            detail: None,
        });
        let text = words(&record, record.created_at, Paint::fixed(false));
        assert!(text.contains(r"a\x1b[2Jb\u{202e}"), "{text}");
        assert!(
            text.contains(r"guest_crashed: the kernel said\n\x1b[1mBUG"),
            "{text}"
        );
        assert!(text.contains("start it again"));
        assert!(!text.contains('\x1b'));
    }
}
