//! Getting an environment for a command: what is installed, else by pulling it.

use pyro_engine::environments::{self, Opened};
use pyro_engine::paths::Paths;
use pyro_images::pull::Outcome;
use pyro_images::{Recipe, State};

use crate::output::{Failure, note};
use crate::progress::Shown;

/// Opens an environment. One that is not installed is pulled first, with a line that says so.
pub(crate) fn open_or_pull(paths: &Paths, recipe: &Recipe) -> Result<Opened, Failure> {
    let name = &recipe.name;
    if let Some(opened) = environments::open_installed(paths, recipe)? {
        if opened.state == State::Stale {
            note(&format!(
                "pyro: {name} was installed from an older recipe; `pyro env pull {name}` renews it"
            ));
        }
        return Ok(opened);
    }
    note(&format!(
        "pyro: {name} is not installed: pulling it once, which takes a minute or so"
    ));
    pull(paths, recipe)?;
    let opened = environments::store(paths)
        .open(recipe)
        .map_err(pyro_engine::Error::from)?;
    Ok(opened.into())
}

/// Pulls an environment and shows how far that is.
pub(crate) fn pull(paths: &Paths, recipe: &Recipe) -> Result<Outcome, Failure> {
    let mut shown = Shown::start(recipe.name.as_str());
    let outcome = pyro_images::pull(&environments::store(paths), recipe, &mut shown);
    shown.end();
    Ok(outcome.map_err(pyro_engine::Error::from)?)
}
