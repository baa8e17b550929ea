//! Where the parts of an environment are built.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::progress::{Phase, Progress};
use crate::bootstrap::command::{self, Wanted};
use crate::bootstrap::mirror::Mirrors;
use crate::bootstrap::run::{self, Context, RootFiles};
use crate::bootstrap::{facts, namespace};
use crate::kernel::KernelError;
use crate::kernel::package::KernelPackage;
use crate::store::Placed;
use crate::store::manifest::{Archive, Artefact, KernelFacts, LayerFacts};
use crate::{Error, Recipe, initramfs};

/// A layer and the list of what is in it.
pub(crate) struct BuiltRoot {
    pub(crate) layer: LayerFacts,
    pub(crate) packages: Artefact,
}

/// What was built: finished files in the work directory, and what they are.
#[derive(Default)]
pub(crate) struct Built {
    pub(crate) files: Vec<Placed>,
    pub(crate) root: Option<BuiltRoot>,
    pub(crate) kernel: Option<KernelFacts>,
    pub(crate) archives: Vec<Archive>,
}

/// Builds parts of environments. The real one bootstraps Debian.
pub(crate) trait Source {
    /// Whether it could build at all on this machine; changes nothing.
    fn check(&self) -> Result<(), Error>;

    /// Builds what is `wanted` of `recipe` in `work`, an empty directory.
    fn build(
        &self,
        recipe: &Recipe,
        wanted: Wanted,
        work: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Built, Error>;
}

/// Debian, from the machine's mirror.
pub(crate) struct Debian;

impl Source for Debian {
    fn check(&self) -> Result<(), Error> {
        namespace::check()?;
        Mirrors::of_machine().map(drop)
    }

    fn build(
        &self,
        recipe: &Recipe,
        wanted: Wanted,
        work: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Built, Error> {
        let sources = Mirrors::of_machine()?.sources(&recipe.suite);
        let (scratch, out) = (work.join("scratch"), work.join("out"));
        for directory in [&scratch, &out, &out.join("kernel"), &out.join("releases")] {
            fs::create_dir(directory).map_err(|error| Error::store("create", directory, error))?;
        }
        let mut built = Built::default();
        let (index, data) = (work.join("index"), work.join("data"));
        let files = match wanted.root {
            true => Some(RootFiles {
                index: create(&index)?,
                data: create(&data)?,
            }),
            false => None,
        };
        progress.phase(Phase::Update);
        let command = command::bootstrap(recipe, &sources, wanted, &scratch, &out);
        let mirror = sources
            .first()
            .map(|source| source.public_uri())
            .unwrap_or_default();
        let context = Context {
            suite: &recipe.suite,
            mirror: &mirror,
            scratch: &scratch,
        };
        let summary = run::run(command, files.as_ref(), &context, progress)?;
        if let Some(summary) = summary {
            let artefact = |sha256: [u8; 32], size| Artefact {
                sha256: sha256.into(),
                size,
            };
            let layer = LayerFacts {
                index: artefact(summary.index_sha256, summary.index_bytes),
                data: artefact(summary.data_sha256, summary.data_bytes),
                inodes: summary.inodes,
            };
            let packages = Placed::hash(out.join("packages"))?;
            built.root = Some(BuiltRoot {
                layer,
                packages: packages.artefact,
            });
            built.files.push(Placed {
                path: index,
                artefact: layer.index,
            });
            built.files.push(Placed {
                path: data,
                artefact: layer.data,
            });
            built.files.push(packages);
        }
        built.archives = facts::archives(&out.join("releases"), &sources);
        if wanted.kernel {
            progress.phase(Phase::Kernel);
            built.kernel = Some(kernel(recipe, &out.join("kernel"), work, &mut built.files)?);
        }
        Ok(built)
    }
}

/// Takes the package in `fetched` apart into a kernel and a modules' initramfs.
fn kernel(
    recipe: &Recipe,
    fetched: &Path,
    work: &Path,
    files: &mut Vec<Placed>,
) -> Result<KernelFacts, Error> {
    let (package_path, package_name) = only_package(fetched)?;
    let package = KernelPackage::unpack(&package_path, &work.join("kernel-package"))?;
    let vmlinux = write(work.join("vmlinux"), &package.vmlinux()?)?;
    let available = package.modules()?;
    let mut loaded = BTreeSet::new();
    let before_root = available.in_order(&recipe.modules_before_root, &mut loaded)?;
    let after_ready = available.in_order(&recipe.modules_after_ready, &mut loaded)?;
    let archive = initramfs::write_modules(Vec::new(), &before_root, &after_ready)
        .map_err(KernelError::Io)?;
    let modules = write(work.join("modules.cpio"), &archive)?;
    let network = available.in_order(&recipe.modules_network, &mut loaded)?;
    let archive =
        initramfs::write_network_modules(Vec::new(), &network).map_err(KernelError::Io)?;
    let network_modules = write(work.join("network-modules.cpio"), &archive)?;
    let facts = KernelFacts {
        release: package.release().to_owned(),
        package: package_name,
        vmlinux: vmlinux.artefact,
        modules: modules.artefact,
        network_modules: Some(network_modules.artefact),
    };
    files.extend([vmlinux, modules, network_modules]);
    Ok(facts)
}

fn only_package(directory: &Path) -> Result<(PathBuf, String), Error> {
    let mut entries = fs::read_dir(directory)
        .map_err(|error| Error::store("read", directory, error))?
        .filter_map(Result::ok);
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok((
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        )),
        _ => Err(KernelError::Package("not exactly one was fetched".to_owned()).into()),
    }
}

fn create(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Error::store("create", path, error))
}

fn write(path: PathBuf, content: &[u8]) -> Result<Placed, Error> {
    create(&path)?
        .write_all(content)
        .map_err(|error| Error::store("write", &path, error))?;
    Placed::hash(path)
}
