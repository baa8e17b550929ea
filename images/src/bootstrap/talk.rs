//! What the bootstrap says while it works, as progress.

use crate::pull::progress::{Phase, Progress};

/// Follows the bootstrap's standard error.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    packages: u64,
    fetched: u64,
    set_up: u64,
}

impl Talk {
    /// Tells `progress` what `line` means, if anything.
    pub(crate) fn hear(&mut self, line: &str, progress: &mut dyn Progress) {
        if line.starts_with("I: running apt-get update") {
            progress.phase(Phase::Update);
        } else if line.starts_with("I: downloading packages") {
            progress.phase(Phase::Download);
        } else if line.starts_with("I: extracting archives") {
            progress.phase(Phase::Install);
        } else if line.starts_with("I: installing remaining packages") {
            // Downloads and installs what comes on top; both are counted on.
            progress.phase(Phase::Install);
        } else if line == "pyro: kernel" {
            progress.phase(Phase::FetchKernel);
        } else if line.starts_with("I: creating tarball") {
            progress.phase(Phase::Pack);
        } else if let Some(count) = newly_installed(line) {
            self.packages += count;
        } else if line.starts_with("Get:") {
            self.fetched += 1;
            if self.set_up == 0 && self.packages > 0 {
                progress.advance(self.fetched.min(self.packages), Some(self.packages));
            }
        } else if line.starts_with("Setting up ") {
            self.set_up += 1;
            progress.advance(self.set_up, Some(self.packages.max(self.set_up)));
        } else if line.starts_with("I: downloading") || line.starts_with("Fetched ") {
            self.fetched = 0;
        }
    }
}

/// apt-get(8)'s summary: "0 upgraded, 89 newly installed, 0 to remove and 0 not upgraded."
fn newly_installed(line: &str) -> Option<u64> {
    line.split(", ")
        .find_map(|part| part.strip_suffix(" newly installed"))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Vec<String>);

    impl Progress for Heard {
        fn phase(&mut self, phase: Phase) {
            self.0.push(format!("{phase:?}"));
        }

        fn advance(&mut self, done: u64, total: Option<u64>) {
            self.0.push(format!("{done}/{}", total.unwrap_or(0)));
        }
    }

    #[test]
    fn phases_and_counts_are_heard() {
        let said = "I: running apt-get update...\nGet:1 http://m a [1 B]\nFetched 1 B in 1s\n\
                    I: downloading packages with apt...\n\
                    0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.\n\
                    Get:1 http://m a [1 B]\nGet:2 http://m b [1 B]\nI: extracting archives...\n\
                    Setting up a (1) ...\nSetting up b (1) ...\nI: creating tarball...";
        let (mut talk, mut heard) = (Talk::default(), Heard::default());

        said.lines().for_each(|line| talk.hear(line, &mut heard));

        let expected = [
            "Update", "Download", "1/2", "2/2", "Install", "1/2", "2/2", "Pack",
        ];
        assert_eq!(heard.0, expected);
    }
}
