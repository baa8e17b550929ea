//! `pyro serve`.

use std::path::Path;

use pyro_engine::Cidr;
use pyro_engine::paths::Paths;
use pyro_server::Options;

use crate::args::Serve;
use crate::output::{Failure, escape, note};

/// Runs the daemon. Outside any runtime: it has one of its own.
pub(crate) fn serve(args: &Serve, paths: Paths) -> Result<u8, Failure> {
    let mut options = Options {
        on_demand: args.on_demand,
        log: std::env::var("PYRO_LOG").ok().filter(|log| !log.is_empty()),
        engine: pyro_engine::Options {
            debug_console: std::env::var_os("PYRO_DEBUG_CONSOLE").is_some_and(|v| !v.is_empty()),
            egress_allow: egress_allow()?,
            ..pyro_engine::Options::default()
        },
        ..Options::default()
    };
    if !args.on_demand {
        // Somebody wants it to be there.
        options.idle = None;
        options.ready = Some(Box::new(|socket: &Path| {
            note(&format!(
                "pyro: listening on {}; Ctrl-C ends the daemon, workspaces go on running",
                escape::line(&socket.to_string_lossy())
            ));
        }));
    }
    pyro_server::daemon(paths, options)?;
    Ok(0)
}

/// Ranges that guests may reach although they would be refused: `PYRO_EGRESS_ALLOW`, separated by commas.
/// Each opens what is refused for the same reason as its first address.
fn egress_allow() -> Result<Vec<Cidr>, Failure> {
    let text = std::env::var("PYRO_EGRESS_ALLOW").unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
        .map(|range| {
            range.parse::<Cidr>().map_err(|error| {
                Failure::new(
                    "invalid_request",
                    format!("PYRO_EGRESS_ALLOW cannot be understood: {error}"),
                    "pass ranges such as 10.1.0.0/16, separated by commas, or leave it unset",
                )
            })
        })
        .collect()
}
