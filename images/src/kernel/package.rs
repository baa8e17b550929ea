//! A kernel's `.deb`, unpacked as far as it is needed.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use super::{KernelError, bzimage, modules::Modules, vmlinux};

/// A kernel package unpacked below a work directory.
pub struct KernelPackage {
    root: PathBuf,
    release: String,
}

impl KernelPackage {
    /// Unpacks the kernel image and the modules of `package` below `root`, an empty directory.
    /// Nothing else of the package is written, and nothing outside `root`.
    ///
    /// # Errors
    /// When it is not a package, or one without exactly one kernel.
    pub fn unpack(package: &Path, root: &Path) -> Result<KernelPackage, KernelError> {
        let mut tool = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(package)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stream = tool.stdout.take().expect("stdout was asked for as a pipe");
        let unpacked = unpack_files(stream, root);
        let status = tool.wait()?;
        unpacked?;
        if !status.success() {
            return Err(KernelError::Package("dpkg-deb cannot read it".to_owned()));
        }
        let release = only_kernel(&root.join("boot"))?;
        Ok(KernelPackage {
            root: root.to_owned(),
            release,
        })
    }

    /// The kernel's release, as `uname -r` says it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The uncompressed kernel, checked for what the monitor needs.
    pub fn vmlinux(&self) -> Result<Vec<u8>, KernelError> {
        let image = fs::read(
            self.root
                .join("boot")
                .join(format!("vmlinuz-{}", self.release)),
        )?;
        let mut kernel = bzimage::unpack(&image)?;
        let length = vmlinux::check(&kernel)?;
        kernel.truncate(length);
        Ok(kernel)
    }

    /// The package's modules.
    pub fn modules(&self) -> Result<Modules, KernelError> {
        Modules::read(&self.root.join("modules").join(&self.release))
    }
}

/// Takes `boot/vmlinuz-*` and `lib/modules/` (or `usr/lib/modules/`) out of a tar stream.
fn unpack_files(stream: impl Read, root: &Path) -> Result<(), KernelError> {
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(target) = wanted(&entry.path()?) else {
            continue;
        };
        let target = root.join(target);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = fs::File::create_new(target)?;
        io::copy(&mut entry, &mut file)?;
    }
    Ok(())
}

/// Where a member goes; `None` for one that is not needed or not to be trusted.
fn wanted(member: &Path) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for component in member.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            _ => return None,
        }
    }
    match parts.as_slice() {
        ["boot", file] if file.starts_with("vmlinuz-") => Some(Path::new("boot").join(file)),
        ["lib", "modules", rest @ ..] | ["usr", "lib", "modules", rest @ ..]
            if !rest.is_empty() =>
        {
            Some(Path::new("modules").join(rest.iter().collect::<PathBuf>()))
        }
        _ => None,
    }
}

fn only_kernel(boot: &Path) -> Result<String, KernelError> {
    let mut releases = Vec::new();
    if boot.is_dir() {
        for entry in fs::read_dir(boot)? {
            let name = entry?.file_name();
            releases.extend(
                name.to_str()
                    .and_then(|n| n.strip_prefix("vmlinuz-"))
                    .map(str::to_owned),
            );
        }
    }
    match <[String; 1]>::try_from(releases) {
        Ok([release]) => Ok(release),
        Err(found) => Err(KernelError::Package(format!(
            "it holds {} kernels",
            found.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_and_its_modules_are_taken() {
        let taken = |path: &str| wanted(Path::new(path)).map(|path| path.display().to_string());

        assert_eq!(
            taken("./boot/vmlinuz-6.1").as_deref(),
            Some("boot/vmlinuz-6.1")
        );
        assert_eq!(
            taken("./lib/modules/6.1/a.ko").as_deref(),
            Some("modules/6.1/a.ko")
        );
        assert_eq!(
            taken("./usr/lib/modules/6.12/k/a.ko").as_deref(),
            Some("modules/6.12/k/a.ko")
        );
        for refused in [
            "./boot/config-6.1",
            "/boot/vmlinuz-6.1",
            "lib/modules/../../../etc/passwd",
            "./lib/modules",
        ] {
            assert_eq!(taken(refused), None, "{refused}");
        }
    }

    #[test]
    fn a_package_that_is_none_is_refused() {
        let work = tempfile::tempdir().unwrap();
        let package = work.path().join("not.deb");
        fs::write(&package, b"!<arch>\nbut not really").unwrap();

        assert!(KernelPackage::unpack(&package, &work.path().join("root")).is_err());
    }
}
