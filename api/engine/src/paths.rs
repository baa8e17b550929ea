//! Where the product keeps its state and finds its own programs.
//!
//! Decided once, from the environment, and handed around as a value: nothing below reads an
//! environment variable. Nothing here makes a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

/// Every path the engine uses.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Run directories and what is remembered about this host. `PYRO_STATE_DIR`, else
    /// `$XDG_STATE_HOME/pyro`, else `~/.local/state/pyro`.
    pub state: PathBuf,
    /// The image store. `PYRO_IMAGE_DIR`, else `$XDG_DATA_HOME/pyro/images`, else
    /// `~/.local/share/pyro/images`.
    pub images: PathBuf,
    /// The KVM device. `PYRO_KVM`, else `/dev/kvm`.
    pub kvm: PathBuf,
    /// The monitor.
    pub monitor: Helper,
    /// The guest's agent.
    pub agent: Helper,
    /// A guest's network.
    pub net: Helper,
}

/// A program of the product that `pyro` needs besides itself.
#[derive(Debug, Clone)]
pub struct Helper {
    /// Its file name.
    pub name: &'static str,
    /// The environment variable that overrides the search.
    pub variable: &'static str,
    /// The places to look in, best first.
    candidates: Vec<PathBuf>,
}

impl Helper {
    /// The program's path; the first candidate that is a regular file.
    pub fn find(&self) -> Result<&Path> {
        self.candidates
            .iter()
            .find(|path| path.is_file())
            .map(PathBuf::as_path)
            .ok_or_else(|| {
                let places: Vec<_> = self
                    .candidates
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                Error::new(
                    Code::HelperMissing,
                    format!(
                        "the program {} is not in {}",
                        self.name,
                        places.join(" or ")
                    ),
                    format!(
                        "build or install all of pyro's programs together, or set {} to its path",
                        self.variable
                    ),
                )
            })
    }
}

impl Paths {
    /// The paths of this process.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name), std::env::current_exe().ok())
    }

    /// The paths for the given environment and executable. Empty variables count as unset.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        executable: Option<PathBuf>,
    ) -> Self {
        let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = path("HOME").unwrap_or_else(|| PathBuf::from("/"));
        // The XDG base directory specification: relative paths are to be ignored.
        let base = |name: &str, default: &str| {
            path(name)
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| home.join(default))
        };
        let helper = |name: &'static str, variable: &'static str| {
            let candidates = match (path(variable), executable.as_deref().and_then(Path::parent)) {
                (Some(path), _) => vec![path],
                (None, Some(folder)) => {
                    let libexec = folder.parent().unwrap_or(folder).join("libexec/pyro");
                    vec![folder.join(name), libexec.join(name)]
                }
                (None, None) => Vec::new(),
            };
            Helper {
                name,
                variable,
                candidates,
            }
        };
        Self {
            state: path("PYRO_STATE_DIR")
                .unwrap_or_else(|| base("XDG_STATE_HOME", ".local/state").join("pyro")),
            images: path("PYRO_IMAGE_DIR")
                .unwrap_or_else(|| base("XDG_DATA_HOME", ".local/share").join("pyro/images")),
            kvm: path("PYRO_KVM").unwrap_or_else(|| PathBuf::from("/dev/kvm")),
            monitor: helper("pyro-vmm", "PYRO_VMM"),
            agent: helper("pyro-agent", "PYRO_AGENT"),
            net: helper("pyro-net", "PYRO_NET"),
        }
    }

    /// The folder of run directories.
    pub fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(variables: &[(&str, &str)]) -> Paths {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        Paths::from_variables(find, Some(PathBuf::from("/opt/pyro/bin/pyro")))
    }

    #[test]
    fn own_variables_win_over_xdg_and_home() {
        let paths = paths(&[
            ("HOME", "/home/a"),
            ("XDG_STATE_HOME", "/xdg"),
            ("PYRO_STATE_DIR", "/own"),
            ("PYRO_KVM", "/nonexistent"),
        ]);

        assert_eq!(paths.state, Path::new("/own"));
        assert_eq!(paths.images, Path::new("/home/a/.local/share/pyro/images"));
        assert_eq!(paths.kvm, Path::new("/nonexistent"));
    }

    #[test]
    fn relative_and_empty_variables_are_ignored() {
        let paths = paths(&[
            ("HOME", "/h"),
            ("XDG_STATE_HOME", "rel"),
            ("PYRO_IMAGE_DIR", ""),
        ]);

        assert_eq!(paths.state, Path::new("/h/.local/state/pyro"));
        assert_eq!(paths.images, Path::new("/h/.local/share/pyro/images"));
    }

    #[test]
    fn a_missing_helper_says_where_it_was_sought_and_how_to_override() {
        let error = paths(&[]).monitor.find().expect_err("nothing is there");

        assert_eq!(error.code(), Code::HelperMissing);
        assert!(error.message().contains("/opt/pyro/bin/pyro-vmm"));
        assert!(error.message().contains("/opt/pyro/libexec/pyro/pyro-vmm"));
        assert!(error.remedy().contains("PYRO_VMM"));
    }

    #[test]
    fn an_override_is_the_only_candidate() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("vmm");
        std::fs::write(&file, "").expect("write");
        let text = file.to_str().expect("UTF-8");

        assert_eq!(
            paths(&[("PYRO_VMM", text)]).monitor.find().expect("found"),
            file
        );
    }
}
