//! Which modules a guest needs, and in which order they load.
//!
//! A package carries no `modules.dep` (depmod makes it when a kernel is installed), so the
//! dependencies are taken from where depmod takes them: each module's own `.modinfo` section
//! (`depends=virtio_ring,virtio`). Names are compared as the kernel does, with `-` and `_` the
//! same.
//!
//! A module is taken without its signature and without its type information (see [`lighten`]):
//! checking the one and parsing the other took longer than anything else between the kernel's
//! start and the agent's. Here the package's digest vouches for a module, and the image's for what
//! is made of it; the guest notes unsigned modules in its taint flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};

use super::KernelError;

/// No module is larger than this when unpacked.
const MAX_MODULE: u64 = 64 << 20;

/// One module, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its file name, such as `virtio-rng.ko`.
    pub file_name: String,
    /// The ELF object, not compressed, without signature and type information.
    pub object: Vec<u8>,
}

/// The modules of one kernel package.
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Looks through `directory` (`lib/modules/RELEASE`), following no links.
    pub fn read(directory: &Path) -> Result<Modules, KernelError> {
        let mut files = BTreeMap::new();
        let mut pending = vec![directory.to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    pending.push(entry.path());
                } else if kind.is_file()
                    && let Some(name) = entry.file_name().to_str().and_then(module_name)
                {
                    files.insert(name, entry.path());
                }
            }
        }
        let builtin = fs::read_to_string(directory.join("modules.builtin"))?
            .lines()
            .filter_map(|line| module_name(line.rsplit('/').next().unwrap_or(line)))
            .collect();
        Ok(Modules { files, builtin })
    }

    /// `roots` and all they depend on, each after everything that it depends on, without what is
    /// in `loaded` already; what is returned is added there. Built-in ones load themselves.
    pub fn in_order(
        &self,
        roots: &[String],
        loaded: &mut BTreeSet<String>,
    ) -> Result<Vec<Module>, KernelError> {
        let mut order = Vec::new();
        // Depth first, with an explicit stack: a module is emitted when it is met again on the
        // way up. `loaded` stops cycles, which a real kernel does not have.
        let mut stack: Vec<Visit> = roots
            .iter()
            .rev()
            .map(|name| Visit::Down(name.clone()))
            .collect();
        while let Some(visit) = stack.pop() {
            match visit {
                Visit::Down(name) => {
                    let name = canonical(&name);
                    if self.builtin.contains(&name) || !loaded.insert(name.clone()) {
                        continue;
                    }
                    let path = self
                        .files
                        .get(&name)
                        .ok_or(KernelError::MissingModule(name.clone()))?;
                    let module = read_module(path)?;
                    let depends = depends(&module.object)
                        .ok_or_else(|| KernelError::BadModule(module.file_name.clone()))?;
                    stack.push(Visit::Up(module));
                    stack.extend(depends.into_iter().rev().map(Visit::Down));
                }
                Visit::Up(module) => order.push(module),
            }
        }
        Ok(order)
    }
}

enum Visit {
    Down(String),
    Up(Module),
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// `virtio-rng.ko.xz` is `virtio_rng`; a file that is no module has no name.
fn module_name(file_name: &str) -> Option<String> {
    let stem = file_name
        .strip_suffix(".xz")
        .unwrap_or(file_name)
        .strip_suffix(".ko")?;
    Some(canonical(stem))
}

fn read_module(path: &Path) -> Result<Module, KernelError> {
    let file = fs::File::open(path)?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let (file_name, mut reader): (&str, Box<dyn Read>) = match name.strip_suffix(".xz") {
        Some(stem) => (stem, Box::new(liblzma::read::XzDecoder::new(file))),
        None => (name, Box::new(file)),
    };
    let mut object = Vec::new();
    reader
        .by_ref()
        .take(MAX_MODULE + 1)
        .read_to_end(&mut object)?;
    if object.len() as u64 > MAX_MODULE {
        return Err(KernelError::BadModule(file_name.to_owned()));
    }
    lighten(&mut object);
    Ok(Module {
        file_name: file_name.to_owned(),
        object,
    })
}

/// Linux, scripts/sign-file: what a signed module ends with, after a `struct module_signature`
/// whose last field is the length of the signature before it, big-endian.
const SIGNED: &[u8] = b"~Module signature appended~\n";
const SIGNATURE_INFO: usize = 12;

/// Cuts the signature off and takes the section `.BTF` its name, by which alone the kernel finds
/// it. What is not shaped as expected stays as it is: the kernel then does the work.
fn lighten(object: &mut Vec<u8>) {
    if let Some(info) = object.strip_suffix(SIGNED)
        && let Some((rest, length)) = info.split_last_chunk::<4>()
        && let Ok(length) = usize::try_from(u32::from_be_bytes(*length))
        && let Some(end) = (rest.len() + 4)
            .checked_sub(SIGNATURE_INFO)
            .and_then(|end| end.checked_sub(length))
    {
        object.truncate(end);
    }
    if let Some(name) = btf_name_field(object) {
        // The name at 0 is the empty one (System V ABI, "String Table").
        object[name..name + 4].fill(0);
    }
}

/// Where the header of the section `.BTF` holds the offset of its name.
fn btf_name_field(object: &[u8]) -> Option<usize> {
    let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(object).ok()?;
    let index = elf.section_by_name(".BTF")?.index().0;
    let header = elf.elf_header();
    let (table, size) = (
        header.e_shoff.get(elf.endian()),
        header.e_shentsize.get(elf.endian()),
    );
    let field = usize::try_from(table)
        .ok()?
        .checked_add(index.checked_mul(size.into())?)?;
    (field.checked_add(4)? <= object.len()).then_some(field)
}

/// What a module says it depends on; `None` when it is not a module.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    let object = object::read::elf::ElfFile64::<object::Endianness>::parse(module).ok()?;
    let info = object.section_by_name(".modinfo")?.data().ok()?;
    let depends = info
        .split(|&byte| byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .find_map(|entry| entry.strip_prefix("depends="))?;
    Some(
        depends
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The smallest ELF object with a `.modinfo` section.
    fn module(depends: &str) -> Vec<u8> {
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let info_at = 64;
        let names_at = info_at + info.len();
        let table_at = (names_at + names.len()).next_multiple_of(8);
        let mut elf = vec![0; table_at + 3 * 64];
        elf[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        elf[info_at..names_at].copy_from_slice(info.as_bytes());
        elf[names_at..][..names.len()].copy_from_slice(names);
        let mut put = |at: usize, bytes: &[u8]| elf[at..][..bytes.len()].copy_from_slice(bytes);
        put(16, &1_u16.to_le_bytes()); // e_type: ET_REL
        put(18, &62_u16.to_le_bytes());
        put(20, &1_u32.to_le_bytes());
        put(40, &(table_at as u64).to_le_bytes()); // e_shoff
        put(52, &64_u16.to_le_bytes());
        put(58, &64_u16.to_le_bytes()); // e_shentsize
        put(60, &3_u16.to_le_bytes()); // e_shnum
        put(62, &2_u16.to_le_bytes()); // e_shstrndx
        for (index, name, kind, offset, size) in [
            (1, 1_u32, 1_u32, info_at, info.len()),
            (2, 10, 3, names_at, names.len()),
        ] {
            let at = table_at + index * 64;
            put(at, &name.to_le_bytes());
            put(at + 4, &kind.to_le_bytes());
            put(at + 24, &(offset as u64).to_le_bytes());
            put(at + 32, &(size as u64).to_le_bytes());
        }
        elf
    }

    fn package(modules: &[(&str, &str)], builtin: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("kernel/drivers");
        fs::create_dir_all(&nested).unwrap();
        fs::write(directory.path().join("modules.builtin"), builtin).unwrap();
        for (name, depends) in modules {
            let path = nested.join(name);
            let object = module(depends);
            if name.ends_with(".xz") {
                let file = fs::File::create(path).unwrap();
                let mut xz = liblzma::write::XzEncoder::new(file, 1);
                xz.write_all(&object).unwrap();
                xz.finish().unwrap();
            } else {
                fs::write(path, object).unwrap();
            }
        }
        directory
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules
            .iter()
            .map(|module| module.file_name.as_str())
            .collect()
    }

    fn roots(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_module_comes_after_what_it_depends_on_and_once() {
        let package = package(
            &[
                ("virtio.ko", "virtio_ring"),
                ("virtio_ring.ko", ""),
                ("virtio_mmio.ko", "virtio,virtio_ring"),
                ("virtio-rng.ko.xz", "rng-core,virtio"),
                ("rng-core.ko.xz", ""),
                ("unrelated.ko", ""),
            ],
            "",
        );
        let modules = Modules::read(package.path()).unwrap();
        let mut loaded = BTreeSet::new();

        let first = modules
            .in_order(&roots(&["virtio_mmio"]), &mut loaded)
            .unwrap();
        let second = modules
            .in_order(&roots(&["virtio_rng", "virtio"]), &mut loaded)
            .unwrap();

        assert_eq!(
            names(&first),
            ["virtio_ring.ko", "virtio.ko", "virtio_mmio.ko"]
        );
        assert_eq!(names(&second), ["rng-core.ko", "virtio-rng.ko"]);
        assert_eq!(second[1].object, module("rng-core,virtio"));
    }

    #[test]
    fn a_signature_is_cut_off() {
        let plain = module("a");
        let mut signed = plain.clone();
        signed.extend([7; 300]);
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0]);
        signed.extend(300u32.to_be_bytes());
        signed.extend(SIGNED);

        lighten(&mut signed);

        assert!(signed == plain);
    }

    #[test]
    fn a_signature_longer_than_the_file_is_left() {
        let mut object = b"short".to_vec();
        object.extend([0, 0, 2, 0, 0, 0, 0, 0]);
        object.extend(u32::MAX.to_be_bytes());
        object.extend(SIGNED);
        let before = object.clone();

        lighten(&mut object);

        assert!(object == before);
    }

    #[test]
    fn type_information_loses_its_name_and_nothing_else_changes() {
        let mut object = module("a");
        let at = object
            .windows(9)
            .position(|name| name == b".modinfo\0")
            .unwrap();
        object[at..at + 9].copy_from_slice(b".BTF\0\0\0\0\0");
        let before = object.clone();

        lighten(&mut object);

        let parsed = object::read::elf::ElfFile64::<object::Endianness>::parse(&*object).unwrap();
        assert!(parsed.section_by_name(".BTF").is_none());
        let changed = before.iter().zip(&object).filter(|(old, new)| old != new);
        assert_eq!((before.len(), changed.count()), (object.len(), 1));
    }

    #[test]
    fn what_is_built_in_is_not_looked_for() {
        let package = package(&[("virtiofs.ko", "fuse")], "kernel/fs/fuse/fuse.ko\n");
        let modules = Modules::read(package.path()).unwrap();

        let order = modules
            .in_order(&roots(&["virtiofs"]), &mut BTreeSet::new())
            .unwrap();

        assert_eq!(names(&order), ["virtiofs.ko"]);
    }

    #[test]
    fn a_missing_module_is_named() {
        let package = package(&[("virtiofs.ko", "fuse")], "");
        let modules = Modules::read(package.path()).unwrap();

        let error = modules
            .in_order(&roots(&["virtiofs"]), &mut BTreeSet::new())
            .unwrap_err();

        assert!(matches!(error, KernelError::MissingModule(name) if name == "fuse"));
    }

    #[test]
    fn modules_that_depend_on_each_other_do_not_spin() {
        let package = package(&[("a.ko", "b"), ("b.ko", "a")], "");
        let modules = Modules::read(package.path()).unwrap();

        let order = modules
            .in_order(&roots(&["a"]), &mut BTreeSet::new())
            .unwrap();

        assert_eq!(names(&order), ["b.ko", "a.ko"]);
    }

    #[test]
    fn a_file_that_is_no_module_is_refused_by_name() {
        let package = package(&[], "");
        fs::write(package.path().join("odd.ko"), b"\x7fELF but no more").unwrap();
        let modules = Modules::read(package.path()).unwrap();

        let error = modules
            .in_order(&roots(&["odd"]), &mut BTreeSet::new())
            .unwrap_err();

        assert!(matches!(error, KernelError::BadModule(name) if name == "odd.ko"));
    }
}
