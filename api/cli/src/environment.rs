//! Environments that are not installed: they are pulled here, where progress can be shown.

use pyro_engine::environments;
use pyro_engine::paths::Paths;
use pyro_images::Recipe;
use pyro_images::pull::Outcome;

use crate::interrupt::Interrupts;
use crate::output::{Failure, note};
use crate::progress::Shown;

/// Asks the daemon for something that needs an environment, and must say in the request that it is
/// not to be pulled. When it is missing, it is pulled, and the daemon asked again.
pub(crate) async fn pulled_when_missing<T, C>(
    paths: &Paths,
    recipe: &'static Recipe,
    interrupts: &mut Interrupts,
    call: impl Fn() -> C,
) -> Result<T, Failure>
where
    C: Future<Output = Result<T, Failure>>,
{
    match call().await {
        Err(Failure::Told(error)) if is_missing(&error.code) => {}
        answered => return answered,
    }
    note(&format!(
        "pyro: {} is not installed: pulling it once, which takes a minute or so",
        recipe.name
    ));
    let paths = paths.clone();
    let pulling = tokio::task::spawn_blocking(move || pull(&paths, recipe));
    tokio::select! {
        pulled = pulling => pulled.map_err(std::io::Error::other)??,
        // It leaves nothing half installed, wherever it ends.
        signal = interrupts.wait() => return Err(Failure::PullInterrupted(signal)),
    };
    call().await
}

fn is_missing(code: &str) -> bool {
    matches!(code, "environment_cold" | "environment_stale")
}

/// Pulls an environment and shows how far that is. Blocks.
pub(crate) fn pull(paths: &Paths, recipe: &Recipe) -> Result<Outcome, Failure> {
    let mut shown = Shown::start(recipe.name.as_str());
    let outcome = pyro_images::pull(&environments::store(paths), recipe, &mut shown);
    shown.end();
    Ok(outcome.map_err(pyro_engine::Error::from)?)
}
