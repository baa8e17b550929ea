//! `pyro env`: list, pull, inspect, prune.

use pyro_engine::environments;
use pyro_engine::paths::Paths;
use pyro_images::pull::Done;
use pyro_images::{Catalogue, State, Summary};
use serde_json::json;

use crate::args::Env;
use crate::environment;
use crate::output::{Colour, Failure, Paint, human_bytes, note, print, print_json};

pub(crate) fn env(command: Env, paths: &Paths) -> Result<u8, Failure> {
    match command {
        Env::List(args) => list(paths, args.json)?,
        Env::Pull(args) => pull(paths, &args.environment, args.json.json)?,
        Env::Inspect(args) => inspect(paths, &args.environment, args.json.json)?,
        Env::Prune(args) => prune(paths, args.json)?,
    }
    Ok(0)
}

fn list(paths: &Paths, json: bool) -> Result<(), Failure> {
    let summaries = environments::list(paths);
    if json {
        print_json(&json!({
            "catalogue_version": Catalogue::builtin().version(),
            "environments": summaries.iter().map(row).collect::<Vec<_>>(),
            "store": paths.images,
        }))?;
        return Ok(());
    }
    let paint = Paint::stdout();
    let mut text = String::new();
    for summary in &summaries {
        let size = if summary.size == 0 {
            "-".to_string()
        } else {
            human_bytes(summary.size)
        };
        let state = format!("{:<8}", state_name(summary.state));
        let state = match summary.state {
            State::Warm => paint.bold(Colour::Green, &state),
            State::Stale => paint.bold(Colour::Yellow, &state),
            State::Damaged => paint.bold(Colour::Red, &state),
            State::Cold => paint.dim(&state),
        };
        let name = summary.name.to_string();
        text.push_str(&format!(
            "{name:<17} {state} {size:>10}  {}\n",
            summary.summary
        ));
    }
    print(&text)?;
    Ok(())
}

/// One environment in a list: what a choice needs, not the whole manifest.
fn row(summary: &Summary) -> serde_json::Value {
    json!({
        "installed_at": summary.manifest.as_ref().map(|manifest| &manifest.created),
        "kernel_release": summary.manifest.as_ref().map(|manifest| &manifest.kernel.release),
        "name": summary.name,
        "problem": summary.problem,
        "size_bytes": summary.size,
        "state": summary.state,
        "summary": summary.summary,
    })
}

fn pull(paths: &Paths, name: &str, json: bool) -> Result<(), Failure> {
    let recipe = environments::recipe(name)?;
    let outcome = environment::pull(paths, recipe)?;
    let manifest = &outcome.manifest;
    if json {
        print_json(&json!({
            "done": outcome.done,
            "kernel_release": manifest.kernel.release,
            "manifest": manifest,
            "name": recipe.name,
            "size_bytes": manifest.size(),
            "state": State::Warm,
        }))?;
        return Ok(());
    }
    let what = match outcome.done {
        Done::Nothing => "is installed, current and verified",
        Done::Repaired => "is repaired",
        Done::Installed => "is installed",
    };
    let size = human_bytes(manifest.size());
    note(&format!(
        "{name} {what}: {size}, Linux {}",
        manifest.kernel.release
    ));
    Ok(())
}

fn inspect(paths: &Paths, name: &str, json: bool) -> Result<(), Failure> {
    let recipe = environments::recipe(name)?;
    let summary = environments::store(paths).inspect(recipe);
    if json {
        print_json(&json!({
            "manifest": summary.manifest,
            "name": summary.name,
            "problem": summary.problem,
            "recipe": recipe,
            "recipe_digest": recipe.digest(),
            "size_bytes": summary.size,
            "state": summary.state,
            "summary": summary.summary,
        }))?;
        return Ok(());
    }
    let mut lines = vec![
        ("environment", format!("{name}: {}", summary.summary)),
        ("state", state_name(summary.state).to_string()),
        ("suite", recipe.suite.clone()),
        ("packages", recipe.packages.join(" ")),
    ];
    if let Some(problem) = &summary.problem {
        lines.push(("problem", problem.clone()));
    }
    if let Some(manifest) = &summary.manifest {
        lines.push(("installed", manifest.created.clone()));
        lines.push(("size", human_bytes(summary.size)));
        lines.push((
            "kernel",
            format!(
                "Linux {} ({})",
                manifest.kernel.release, manifest.kernel.package
            ),
        ));
        for layer in &manifest.layers {
            lines.push((
                "layer",
                format!("{} inodes, {}", layer.inodes, human_bytes(layer.data.size)),
            ));
        }
        for (part, artefact) in manifest.artefacts() {
            lines.push(("artefact", format!("{} {}", artefact.sha256, part.label())));
        }
        for archive in &manifest.archives {
            lines.push((
                "archive",
                format!("{} of {} {}", archive.codename, archive.date, archive.uri),
            ));
        }
    }
    if summary.state != State::Warm {
        lines.push(("next", format!("pyro env pull {name}")));
    }
    let mut text = String::new();
    for (label, value) in lines {
        text.push_str(&format!("{label:<12} {value}\n"));
    }
    print(&text)?;
    Ok(())
}

fn prune(paths: &Paths, json: bool) -> Result<(), Failure> {
    let pruned = environments::prune(paths)?;
    if json {
        print_json(&pruned)?;
        return Ok(());
    }
    for name in &pruned.environments {
        note(&format!("removed {name}, which is not in the catalogue"));
    }
    note(&format!(
        "{} freed, {} file(s)",
        human_bytes(pruned.bytes),
        pruned.artefacts
    ));
    Ok(())
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Cold => "cold",
        State::Warm => "warm",
        State::Stale => "stale",
        State::Damaged => "damaged",
    }
}
