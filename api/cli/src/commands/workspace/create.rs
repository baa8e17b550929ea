//! `pyro workspace create`.

use std::collections::BTreeMap;

use pyro_client::types::{CreateWorkspace, DeclareSecret, SeedKind, Workspace};
use pyro_engine::environments;
use pyro_engine::paths::Paths;

use super::{called, long, note_skipped};
use crate::args::{Create, Label, SecretFile, SecretValue};
use crate::daemon;
use crate::environment::pulled_when_missing;
use crate::input;
use crate::interrupt::Interrupts;
use crate::output::{Failure, escape, hint, human, print, print_json};

pub(super) async fn create(args: Create, paths: &Paths) -> Result<(), Failure> {
    let request = CreateWorkspace {
        environment: args.environment,
        pull: false,
        vcpu_count: args.vcpu_count,
        mem_mib: args.mem_mib,
        ttl_seconds: args.ttl_seconds,
        network_policy: args.network_policy.into(),
        seed_path: args
            .seed_path
            .as_deref()
            .map(input::host_path)
            .transpose()?,
        name: args.name,
        labels: labels(args.labels)?,
        secrets: secrets(args.secrets, args.secret_files)?,
    };
    let recipe = environments::recipe(&request.environment)?;
    let client = daemon::client().await?;
    let doing = format!("creating a workspace from {}", request.environment);
    let mut interrupts = Interrupts::install()?;
    let create = || long(&doing, client.create(&request));
    let workspace = pulled_when_missing(paths, recipe, &mut interrupts, create).await?;
    if args.json.json {
        print_json(&workspace)?;
    } else if args.id_only {
        print(&format!("{}\n", workspace.workspace_id))?;
    } else {
        print(&words(&workspace))?;
        note_skipped(&workspace.seed.skipped, workspace.seed.skipped_count);
        let id = &workspace.workspace_id;
        hint(&format!("pyro workspace exec {id} -- ls -la"));
        hint(&format!("pyro workspace delete {id}"));
    }
    Ok(())
}

fn words(workspace: &Workspace) -> String {
    let seed = &workspace.seed;
    let with = match seed.kind {
        SeedKind::Empty => String::new(),
        SeedKind::Directory | SeedKind::Tar => format!(
            ", with {} ({}) from {}",
            human::count(seed.entries, "entry"),
            human::bytes(seed.bytes),
            escape::line(seed.path.as_deref().unwrap_or("a seed"))
        ),
    };
    format!(
        "Created {} from {}{with}. It is removed {} after its last activity.\n",
        called(workspace),
        escape::line(&workspace.environment),
        human::seconds(workspace.ttl_seconds)
    )
}

/// Secrets as they are declared; the daemon reads the files.
fn secrets(
    values: Vec<SecretValue>,
    files: Vec<SecretFile>,
) -> Result<Vec<DeclareSecret>, Failure> {
    let values = values
        .into_iter()
        .map(|secret| Ok(DeclareSecret::literal(secret.name, secret.value)));
    let files = files.into_iter().map(|secret| {
        Ok(DeclareSecret::file(
            secret.name,
            input::host_path(&secret.path)?,
        ))
    });
    values.chain(files).collect()
}

/// Labels by key. One that is given twice is a mistake.
pub(super) fn labels(labels: Vec<Label>) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for Label { key, value } in labels {
        if map.insert(key.clone(), value).is_some() {
            return Err(Failure::new(
                "invalid_label",
                format!("the label {} is given twice", escape::quoted(&key)),
                "give each label once",
            ));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_is_given_twice_is_refused() {
        let label = |key: &str, value: &str| Label {
            key: key.into(),
            value: value.into(),
        };
        let map = labels(vec![label("a", "1"), label("b", "")]).unwrap();
        assert_eq!(map.len(), 2);
        assert!(labels(vec![label("a", "1"), label("a", "1")]).is_err());
    }
}
