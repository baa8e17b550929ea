//! How much of the product a model is shown.

use std::fmt;
use std::str::FromStr;

/// A choice of tools, and of their arguments. Each has all that the one before it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// One command in a VM that is gone afterwards.
    VmRun,
    /// Workspaces: what most work in a chat needs.
    #[default]
    WorkspaceCore,
    /// Everything, with networks, secrets, services, shells, snapshots and disks.
    WorkspaceFull,
}

impl Profile {
    /// All of them, the narrowest first.
    pub const ALL: [Self; 3] = [Self::VmRun, Self::WorkspaceCore, Self::WorkspaceFull];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VmRun => "vm-run",
            Self::WorkspaceCore => "workspace-core",
            Self::WorkspaceFull => "workspace-full",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no profile {name:?}; the profiles are vm-run, workspace-core and workspace-full")]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == name);
        found.ok_or_else(|| UnknownProfile { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_and_others_refused_with_the_known_ones() {
        for profile in Profile::ALL {
            assert_eq!(profile.as_str().parse(), Ok(profile));
        }
        let error = "full".parse::<Profile>().unwrap_err().to_string();
        for profile in Profile::ALL {
            assert!(error.contains(profile.as_str()), "{error}");
        }
    }
}
