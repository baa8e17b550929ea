//! The curated environments, as data.
//!
//! `catalogue.json` beside the crate's manifest lists them. It is part of the binary: a recipe
//! can be looked up without a store and without a network. A recipe's digest covers everything
//! that decides what a pull builds, so a changed recipe makes an installed environment *stale*.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::store::digest::Digest;

/// What the builder itself contributes to an image, as a number: raised whenever the same recipe
/// would be built differently, so that what older builders made shows as stale.
const BUILDER: u32 = 2;

/// How many names an unknown one is answered with.
const SUGGESTIONS: usize = 3;

/// The name of a curated environment, such as `debian:12`. It is in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EnvironmentName(String);

impl EnvironmentName {
    /// The name as a person writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one path component: `:` is not welcome everywhere.
    pub(crate) fn component(&self) -> String {
        self.0.replace(':', "-")
    }
}

impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that decides what a pull builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The environment's name.
    pub name: EnvironmentName,
    /// One line for a person.
    pub summary: String,
    /// The Debian suite by code name, such as `bookworm`.
    pub suite: String,
    /// Packages on top of the suite's required ones.
    pub packages: Vec<String>,
    /// The package whose dependency is the kernel.
    pub kernel_package: String,
    /// Modules that the agent loads before it mounts the root, without their dependencies.
    pub modules_before_root: Vec<String>,
    /// Modules that the agent loads once it is ready, without their dependencies.
    pub modules_after_ready: Vec<String>,
    /// Modules that only a guest with a network loads, without their dependencies. Installs from
    /// before there were any name none.
    #[serde(default)]
    pub modules_network: Vec<String>,
    /// Whether the bootstrap must merge `/usr` itself (suites whose own packages do it by a
    /// conversion in place, which costs Perl and time).
    pub merge_usr_hook: bool,
    /// Free space a pull needs at its peak, in MiB.
    pub work_space_mib: u64,
}

impl Recipe {
    /// A digest over what the recipe makes: the summary and the estimate of space are not part.
    pub fn digest(&self) -> Digest {
        let essence = serde_json::json!({
            "builder": BUILDER,
            "kernel_package": self.kernel_package,
            "merge_usr_hook": self.merge_usr_hook,
            "modules_after_ready": self.modules_after_ready,
            "modules_before_root": self.modules_before_root,
            "modules_network": self.modules_network,
            "packages": self.packages,
            "suite": self.suite,
        });
        Digest::of(essence.to_string().as_bytes())
    }
}

/// The list of curated environments.
#[derive(Clone, Debug)]
pub struct Catalogue {
    version: String,
    recipes: BTreeMap<EnvironmentName, Recipe>,
}

impl Catalogue {
    /// The catalogue that this version of the product carries.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| {
            let data: Data = serde_json::from_str(include_str!("../catalogue.json"))
                .expect("catalogue.json is well formed: a unit test reads it");
            data.resolve()
                .expect("catalogue.json names only what it defines: a unit test reads it")
        });
        &BUILTIN
    }

    /// The catalogue's version, which is the package's.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All recipes, by name.
    pub fn recipes(&self) -> impl Iterator<Item = &Recipe> {
        self.recipes.values()
    }

    /// The recipe of `name`; an unknown name is refused with the nearest known ones.
    pub fn recipe(&self, name: &str) -> Result<&Recipe, Error> {
        self.recipes
            .get(&EnvironmentName(name.to_owned()))
            .ok_or_else(|| Error::UnknownEnvironment {
                name: name.to_owned(),
                nearest: self.nearest(name),
            })
    }

    fn nearest(&self, name: &str) -> Vec<String> {
        let name = name.to_lowercase();
        let mut ranked: Vec<(f64, &str)> = self
            .recipes
            .keys()
            .map(|known| (strsim::jaro_winkler(&name, known.as_str()), known.as_str()))
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        ranked
            .into_iter()
            .take(SUGGESTIONS)
            .map(|(_, known)| known.to_owned())
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    version: String,
    suites: BTreeMap<String, Suite>,
    modules: Modules,
    packages: BTreeMap<String, Vec<String>>,
    environments: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    kernel_package: String,
    merge_usr_hook: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Modules {
    before_root: Vec<String>,
    after_ready: Vec<String>,
    network: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    summary: String,
    suite: String,
    packages: Vec<String>,
    work_space_mib: u64,
}

impl Data {
    /// Spells groups out. `None` when an entry names a suite or a group that is not there.
    fn resolve(self) -> Option<Catalogue> {
        let mut recipes = BTreeMap::new();
        for entry in &self.environments {
            let suite = self.suites.get(&entry.suite)?;
            let mut packages = Vec::new();
            for group in &entry.packages {
                packages.extend(self.packages.get(group)?.iter().cloned());
            }
            packages.sort();
            packages.dedup();
            let name = EnvironmentName(entry.name.clone());
            let recipe = Recipe {
                name: name.clone(),
                summary: entry.summary.clone(),
                suite: entry.suite.clone(),
                packages,
                kernel_package: suite.kernel_package.clone(),
                modules_before_root: self.modules.before_root.clone(),
                modules_after_ready: self.modules.after_ready.clone(),
                modules_network: self.modules.network.clone(),
                merge_usr_hook: suite.merge_usr_hook,
                work_space_mib: entry.work_space_mib,
            };
            recipes.insert(name, recipe);
        }
        Some(Catalogue {
            version: self.version,
            recipes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_catalogue_holds_the_contract_s_environments() {
        let names: Vec<_> = Catalogue::builtin()
            .recipes()
            .map(|recipe| recipe.name.to_string())
            .collect();

        let expected = [
            "debian:12",
            "debian:12-base",
            "debian:12-build",
            "debian:13",
            "debian:13-base",
            "debian:13-build",
        ];
        assert_eq!(names, expected);
        assert_eq!(Catalogue::builtin().version(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_ones() {
        let error = Catalogue::builtin().recipe("debain:12").unwrap_err();

        let Error::UnknownEnvironment { name, nearest } = error else {
            panic!("{error:?}")
        };
        assert_eq!(name, "debain:12");
        assert_eq!(nearest[0], "debian:12");
    }

    #[test]
    fn a_digest_changes_with_the_packages_and_not_with_the_summary() {
        let recipe = Catalogue::builtin().recipe("debian:12").unwrap().clone();

        let reworded = Recipe {
            summary: "other words".into(),
            ..recipe.clone()
        };
        let mut grown = recipe.clone();
        grown.packages.push("hello".into());

        assert_eq!(reworded.digest(), recipe.digest());
        assert_ne!(grown.digest(), recipe.digest());
    }
}
