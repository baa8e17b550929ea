//! The machine's own Debian mirror, as apt knows it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A Debian release and where this machine gets it from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The release's code name.
    pub suite: String,
    /// Lines as in a `sources.list`.
    pub sources: Vec<String>,
}

/// What apt is asked for each index: creator, address, suite, code name, component.
const FORMAT: &str = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)";

impl Mirror {
    /// Reads the machine's release and apt's configuration.
    ///
    /// # Errors
    /// When this is no Debian machine, or apt knows no archive of its release.
    pub fn of_this_machine() -> Result<Self> {
        let release =
            fs::read_to_string("/etc/os-release").context("/etc/os-release cannot be read")?;
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .map(|name| name.trim_matches('"').to_owned())
            .context(
                "/etc/os-release names no release: the emulated host is built on Debian machines",
            )?;
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", FORMAT])
            .output()
            .context("apt-get cannot be run: the emulated host is built on Debian machines")?;
        if !output.status.success() {
            bail!(
                "apt-get indextargets failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let sources = sources(&String::from_utf8_lossy(&output.stdout), &suite);
        if sources.is_empty() {
            bail!(
                "apt knows no Debian archive of {suite}; add one to /etc/apt and run `apt-get update`"
            );
        }
        Ok(Self { suite, sources })
    }
}

/// The archives of `suite` among apt's indexes, one line each.
fn sources(targets: &str, suite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for target in targets.lines() {
        let [creator, address, release, codename, component] =
            target.split('|').collect::<Vec<_>>()[..]
        else {
            continue;
        };
        let ours = codename == suite
            || codename
                .strip_prefix(suite)
                .is_some_and(|rest| rest.starts_with('-'));
        let line = format!("deb {address} {release} {component}");
        if creator == "Packages"
            && ours
            && component == "main"
            && !release.contains("backports")
            && !lines.contains(&line)
        {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archives_of_the_release_are_taken_and_strangers_are_not() {
        let targets = "\
Packages|http://mirror/debian/|bookworm|bookworm|main
DEP-11|http://mirror/debian/|bookworm|bookworm|main
Packages|http://mirror/debian/|bookworm|bookworm|contrib
Packages|http://mirror/security/|bookworm-security|bookworm-security|main
Packages|http://mirror/debian/|bookworm-backports|bookworm-backports|main
Packages|https://elsewhere/|nodistro|nodistro|main
";
        assert_eq!(
            sources(targets, "bookworm"),
            [
                "deb http://mirror/debian/ bookworm main",
                "deb http://mirror/security/ bookworm-security main"
            ]
        );
    }
}
