//! Showing that something goes on: a live line on a terminal. A pull says its phases elsewhere, too,
//! one plain line each.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pyro_images::Progress;
use pyro_images::pull::Phase;

use crate::output::{escape, note};

/// How often the live line moves on its own.
const TICK: Duration = Duration::from_millis(120);

/// The progress of one pull on standard error.
#[derive(Debug)]
pub(crate) struct Shown {
    name: String,
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
}

impl Shown {
    /// Shows nothing until the first phase.
    pub(crate) fn start(name: &str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_prefix(name.to_string());
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            name: name.to_string(),
            bar,
            phase: None,
        }
    }

    /// Removes the live line.
    pub(crate) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A live line, on a terminal only, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Working(Option<ProgressBar>);

impl Working {
    /// Says what is being done, such as `starting parser`.
    pub(crate) fn start(doing: &str) -> Self {
        Self(io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {msg} {elapsed}"));
            bar.set_message(escape::line(doing).into_owned());
            bar.enable_steady_tick(TICK);
            bar
        }))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Shown {
    fn phase(&mut self, phase: Phase) {
        if self.phase.replace(phase) == Some(phase) {
            return;
        }
        match &self.bar {
            None => note(&format!("{}: {}", self.name, phase.label())),
            Some(bar) => {
                bar.unset_length();
                bar.set_position(0);
                bar.set_style(style("{spinner} {prefix}: {msg}"));
                bar.set_message(phase.label());
            }
        }
    }

    fn advance(&mut self, done: u64, total: Option<u64>) {
        let (Some(bar), Some(phase)) = (&self.bar, self.phase) else {
            return;
        };
        if let Some(total) = total
            && bar.length() != Some(total)
        {
            bar.set_length(total);
        }
        bar.set_style(style(match (total.is_some(), phase.counts_bytes()) {
            (true, true) => "{spinner} {prefix}: {msg} [{bar:24}] {bytes}/{total_bytes}",
            (true, false) => "{spinner} {prefix}: {msg} [{bar:24}] {pos}/{len}",
            (false, true) => "{spinner} {prefix}: {msg} {bytes}",
            (false, false) => "{spinner} {prefix}: {msg} {pos}",
        }));
        bar.set_position(done);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are constants that a test reads")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_can_be_shown_live() {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let mut shown = Shown {
            name: "debian:12".into(),
            bar: Some(bar),
            phase: None,
        };
        for phase in [Phase::Waiting, Phase::Download, Phase::Pack, Phase::Publish] {
            shown.phase(phase);
            shown.advance(1, None);
            shown.advance(2, Some(3));
        }
        shown.end();
    }
}
