//! The folders of the machine that are visible in the emulated host, under the same paths.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// A set of folders, none inside another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares(Vec<PathBuf>);

/// Places that the emulated host needs for itself.
const RESERVED: &[&str] = &[
    "/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys",
    "/tmp", "/usr", "/var",
];

impl Shares {
    /// What a command of this project needs: the project, the folder its programs are built in,
    /// the image store, and what `PYRO_HOST_SHARE` (paths separated by `:`) adds.
    ///
    /// # Errors
    /// When a path is of no use as a share.
    pub fn of_project(image_dir: &Path) -> Result<Self> {
        let mut shares = Self::default();
        let cwd = std::env::current_dir()?;
        if let Some(project) = cwd
            .ancestors()
            .find(|folder| folder.join("Cargo.lock").is_file())
        {
            shares.add(project)?;
        }
        let program = std::env::current_exe()?;
        // TARGET/TRIPLE/PROFILE/pyro-smoke: what is built beside it is wanted too.
        if let Some(target) = program
            .ancestors()
            .find(|folder| folder.join(".rustc_info.json").is_file())
        {
            shares.add(target)?;
        } else if let Some(folder) = program.parent() {
            shares.add(folder)?;
        }
        // Shared although nothing may be in it yet: a pull fills it while the host runs.
        std::fs::create_dir_all(image_dir)
            .with_context(|| format!("no image store can be made in {}", image_dir.display()))?;
        shares.add(image_dir)?;
        if let Some(more) = std::env::var_os("PYRO_HOST_SHARE") {
            for path in std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()) {
                shares.add(&path)?;
            }
        }
        Ok(shares)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// When it does not exist, or its path is one that the emulated host needs for itself.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let path = path
            .canonicalize()
            .with_context(|| format!("{} cannot be shared", path.display()))?;
        ensure!(
            path.is_dir(),
            "{} is no folder, so it cannot be shared",
            path.display()
        );
        let reserved = RESERVED.iter().any(|reserved| path == Path::new(reserved));
        ensure!(
            !reserved,
            "{} cannot be shared: the emulated host has its own",
            path.display()
        );
        if !self.covers(&path) {
            self.0.retain(|share| !share.starts_with(&path));
            self.0.push(path);
            self.0.sort();
        }
        Ok(())
    }

    /// Whether `path` is visible inside.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        self.0.iter().any(|share| path.starts_with(share))
    }

    /// Whether everything in `other` is visible.
    #[must_use]
    pub fn cover_all(&self, other: &Self) -> bool {
        other.0.iter().all(|share| self.covers(share))
    }

    /// Both together.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<PathBuf> = self.0.iter().chain(&other.0).cloned().collect();
        all.sort();
        // Sorted, a folder stands before what is inside it.
        let mut shares = Self::default();
        for path in all {
            if !shares.covers(&path) {
                shares.0.push(path);
            }
        }
        shares
    }

    /// Leaves out what does not exist any more.
    pub fn forget_missing(&mut self) {
        self.0.retain(|share| share.is_dir());
    }

    /// The folders.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(paths: &[&str]) -> Shares {
        Shares(paths.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn a_union_has_no_share_inside_another() {
        let both = shares(&["/a/b", "/c"]).union(&shares(&["/a", "/c/d", "/e"]));
        assert_eq!(both, shares(&["/a", "/c", "/e"]));
        assert!(both.cover_all(&shares(&["/a/b/c", "/e"])));
        assert!(!both.cover_all(&shares(&["/ab"])));
    }

    #[test]
    fn adding_a_parent_replaces_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join("child");
        std::fs::create_dir(&child).unwrap();
        let mut shares = Shares::default();
        shares.add(&child).unwrap();
        shares.add(folder.path()).unwrap();
        shares.add(&child).unwrap();
        assert_eq!(shares.paths(), [folder.path().canonicalize().unwrap()]);
    }

    #[test]
    fn the_folders_that_the_system_needs_are_refused() {
        let error = Shares::default().add(Path::new("/usr")).unwrap_err();
        assert!(error.to_string().contains("has its own"), "{error}");
    }
}
