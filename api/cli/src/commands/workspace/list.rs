//! `pyro workspace list`.

use jiff::Timestamp;
use pyro_client::types::{Workspace, WorkspaceList};

use super::state;
use crate::daemon;
use crate::output::{Cell, Column, Failure, Table, escape, hint, human, note, print, print_json};

pub(super) async fn list(json: bool) -> Result<(), Failure> {
    let list = daemon::client().await?.list().await?;
    if json {
        print_json(&list)?;
        return Ok(());
    }
    if list.workspaces.is_empty() {
        note("pyro: there are no workspaces");
        hint("pyro workspace create debian:12");
    } else {
        print(&table(&list.workspaces, Timestamp::now()).for_stdout())?;
    }
    note_unreadable(&list);
    Ok(())
}

fn table(workspaces: &[Workspace], now: Timestamp) -> Table<7> {
    let mut table = Table::new([
        Column::fixed("WORKSPACE", 0),
        Column::flexible("NAME", 0),
        Column::fixed("STATE", 0),
        Column::fixed("ACTIVE", 1),
        Column::fixed("ENVIRONMENT", 2),
        Column::fixed("EXPIRES", 3),
        Column::flexible("LABELS", 4),
    ]);
    for one in workspaces {
        let (state, colour) = state(one.state);
        table.row([
            one.workspace_id.as_str().into(),
            one.name.as_deref().unwrap_or("-").into(),
            Cell::coloured(state, colour),
            human::ago(one.last_activity_at, now).into(),
            one.environment.as_str().into(),
            Cell::dim(&human::until(one.expires_at, now)),
            Cell::dim(&labels(one)),
        ]);
    }
    table
}

/// All labels in one line.
pub(super) fn labels(workspace: &Workspace) -> String {
    let labels: Vec<_> = workspace
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(", ")
}

fn note_unreadable(list: &WorkspaceList) {
    for record in &list.unreadable {
        note(&format!(
            "pyro: the record of {} in {} cannot be read: {}; {}",
            escape::line(&record.workspace_id),
            escape::line(&record.path),
            escape::line(&record.error.message),
            escape::line(&record.error.remedy)
        ));
    }
}

#[cfg(test)]
mod tests {
    use pyro_client::types::WorkspaceState;

    use super::super::tests::workspace;
    use super::*;
    use crate::output::Paint;

    #[test]
    fn the_newest_is_first_as_the_daemon_gave_it_and_narrow_terminals_lose_labels_first() {
        let now = Timestamp::from_second(1000).unwrap();
        let mut one = workspace("ws-aaaaaaaaaaaa", Some("fix the parser"));
        one.last_activity_at = Timestamp::from_second(820).unwrap();
        one.expires_at = Timestamp::from_second(1420).unwrap();
        one.labels.insert("issue".into(), "42".into());
        let mut two = workspace("ws-bbbbbbbbbbbb", None);
        two.state = WorkspaceState::Failed;
        let table = table(&[one, two], now);

        let wide = table.render(Some(200), Paint::fixed(false));
        let lines: Vec<Vec<_>> = wide
            .lines()
            .map(|line| line.split("  ").collect())
            .collect();
        assert!(lines[1].contains(&"ws-aaaaaaaaaaaa"), "{wide}");
        assert!(
            wide.contains("3 min ago") && wide.contains("in 7 min"),
            "{wide}"
        );
        assert!(
            wide.contains("issue=42") && wide.contains("failed"),
            "{wide}"
        );

        let narrow = table.render(Some(40), Paint::fixed(false));
        assert!(narrow.contains("ws-aaaaaaaaaaaa") && narrow.contains("running"));
        assert!(!narrow.contains("issue=42"), "{narrow}");
    }
}
