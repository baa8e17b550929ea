//! The image store and what is in it.

use pyro_images::{State, Summary};

use super::Check;
use super::host::writable;
use crate::environments;
use crate::error::Result;
use crate::paths::Paths;

pub(super) fn store_folder(paths: &Paths) -> Check {
    let shown = paths.images.display();
    if writable(&paths.images) {
        return Check::pass("images", format!("the image store {shown} can be written"));
    }
    // Running works from a store that another user fills.
    Check::warn(
        "images",
        format!("the image store {shown} cannot be written: environments cannot be pulled into it"),
        "make it writable for this user, or set PYRO_IMAGE_DIR to another folder",
    )
}

/// One environment's state, or that of all in a sentence.
pub(super) fn check(paths: &Paths, name: Option<&str>) -> Result<Check> {
    const ID: &str = "environment";
    if let Some(name) = name {
        let recipe = environments::recipe(name)?;
        return Ok(one(&environments::store(paths).inspect(recipe)));
    }
    let all = environments::list(paths);
    let in_state = |state: State| {
        let names = all
            .iter()
            .filter(|e| e.state == state)
            .map(|e| e.name.to_string());
        names.collect::<Vec<_>>()
    };
    let damaged = in_state(State::Damaged);
    if let Some(first) = damaged.first() {
        return Ok(Check::warn(
            ID,
            format!("damaged: {}", damaged.join(", ")),
            format!("run `pyro env pull {first}`"),
        ));
    }
    let installed = [in_state(State::Warm), in_state(State::Stale)].concat();
    if installed.is_empty() {
        return Ok(Check::warn(
            ID,
            "no environment is installed yet",
            "run `pyro env pull debian:12`; `pyro run` does it when it is needed",
        ));
    }
    Ok(Check::pass(
        ID,
        format!("installed: {}", installed.join(", ")),
    ))
}

fn one(summary: &Summary) -> Check {
    const ID: &str = "environment";
    let name = &summary.name;
    let pull = format!("run `pyro env pull {name}`");
    match summary.state {
        State::Warm => Check::pass(ID, format!("{name} is warm: installed and verified")),
        State::Cold => Check::warn(ID, format!("{name} is cold: not installed"), pull),
        State::Stale => Check::warn(
            ID,
            format!("{name} is stale: installed from an older recipe"),
            pull,
        ),
        State::Damaged => {
            let problem = summary.problem.as_deref().unwrap_or("it does not verify");
            Check::fail(ID, format!("{name} is damaged: {problem}"), pull)
        }
    }
}
