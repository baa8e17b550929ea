//! What an installed environment consists of, and where it came from.

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::Recipe;

/// The layout of the manifest and of the artefacts that it names.
pub const FORMAT: u32 = 1;

/// One file of the store, named by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// SHA-256 of the content, and so the artefact's name.
    pub sha256: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// The kernel of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// What `uname -r` says.
    pub release: String,
    /// The package's file name, which holds its version.
    pub package: String,
    /// The uncompressed ELF kernel.
    pub vmlinux: Artefact,
    /// The initramfs with the modules that a guest loads.
    pub modules: Artefact,
    /// The initramfs with what a guest with a network loads besides. Installs from before there
    /// was one have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_modules: Option<Artefact>,
}

/// One immutable layer of the root, as `pyro-rootfs` packs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Names, attributes and where contents are.
    pub index: Artefact,
    /// Contents of regular files.
    pub data: Artefact,
    /// Number of inodes.
    pub inodes: u64,
}

/// One archive that packages came from, as its signed release file tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Its address on the machine that pulled, without credentials; empty when not known.
    pub uri: String,
    /// The suite's code name.
    pub codename: String,
    /// The release's version, when it has one.
    pub version: Option<String>,
    /// When it was published, as it says itself.
    pub date: String,
}

/// An installed environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the catalogue that the recipe is from.
    pub catalogue_version: String,
    /// The recipe that was built.
    pub recipe: Recipe,
    /// Its digest: another one in the catalogue makes this install stale.
    pub recipe_digest: Digest,
    /// When it was built, RFC 3339, UTC.
    pub created: String,
    /// The kernel.
    pub kernel: KernelFacts,
    /// The root's immutable layers, lowest first.
    pub layers: Vec<LayerFacts>,
    /// Every installed package: name, version and architecture, one a line.
    pub packages: Artefact,
    /// Where the packages came from.
    pub archives: Vec<Archive>,
}

impl Manifest {
    /// Every artefact that the environment needs, with a name for people.
    pub fn artefacts(&self) -> Vec<(Part, Artefact)> {
        let mut artefacts = vec![
            (Part::Kernel, self.kernel.vmlinux),
            (Part::Modules, self.kernel.modules),
            (Part::Packages, self.packages),
        ];
        if let Some(modules) = self.kernel.network_modules {
            artefacts.push((Part::NetworkModules, modules));
        }
        for layer in &self.layers {
            artefacts.push((Part::Index, layer.index));
            artefacts.push((Part::Data, layer.data));
        }
        artefacts
    }

    /// Bytes of all artefacts.
    pub fn size(&self) -> u64 {
        self.artefacts()
            .iter()
            .map(|(_, artefact)| artefact.size)
            .sum()
    }
}

/// Which part of an environment an artefact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The uncompressed kernel.
    Kernel,
    /// The modules' initramfs.
    Modules,
    /// The network modules' initramfs.
    NetworkModules,
    /// A layer's index.
    Index,
    /// A layer's data.
    Data,
    /// The list of packages.
    Packages,
}

impl Part {
    /// Whether it comes from the kernel package, and not from the root.
    pub(crate) fn of_kernel(self) -> bool {
        matches!(self, Part::Kernel | Part::Modules | Part::NetworkModules)
    }

    /// What a person calls it.
    pub fn label(self) -> &'static str {
        match self {
            Part::Kernel => "the kernel",
            Part::Modules => "the modules' initramfs",
            Part::NetworkModules => "the network modules' initramfs",
            Part::Index => "the root's index",
            Part::Data => "the root's data",
            Part::Packages => "the package list",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    #[test]
    fn a_manifest_from_before_there_were_network_modules_is_understood() {
        let artefact = Artefact {
            sha256: Digest::of(b"content"),
            size: 7,
        };
        let recipe = Catalogue::builtin().recipe("debian:12").unwrap().clone();
        let manifest = Manifest {
            format: FORMAT,
            catalogue_version: env!("CARGO_PKG_VERSION").into(),
            recipe_digest: recipe.digest(),
            recipe,
            created: String::new(),
            kernel: KernelFacts {
                release: "6.1".into(),
                package: "linux.deb".into(),
                vmlinux: artefact,
                modules: artefact,
                network_modules: Some(artefact),
            },
            layers: Vec::new(),
            packages: artefact,
            archives: Vec::new(),
        };
        let mut old = serde_json::to_value(&manifest).unwrap();
        old["kernel"]
            .as_object_mut()
            .unwrap()
            .remove("network_modules");
        old["recipe"]
            .as_object_mut()
            .unwrap()
            .remove("modules_network");

        let read: Manifest = serde_json::from_value(old).unwrap();

        assert_eq!(read.kernel.network_modules, None);
        assert_eq!(read.artefacts().len() + 1, manifest.artefacts().len());
        assert_ne!(read.recipe.digest(), manifest.recipe_digest);
    }
}
