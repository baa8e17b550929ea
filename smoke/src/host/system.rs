//! The small Debian system that the emulated host runs, built once.
//!
//! `mmdebstrap` makes it from the machine's own mirror; two hooks of ours take the release's cloud
//! kernel and fill an ext4 image without root's help: both run wherever mmdebstrap unpacks. The
//! result is kept under the digest of the recipe and published by a rename.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use pyro_images::bootstrap::{mirror::Mirrors, namespace};
use sha2::{Digest, Sha256};

use super::HostDir;
use super::dirs::{make_private, open_lock};

/// Counted up when the recipe changes in a way that nothing below shows.
const RECIPE: u32 = 1;
/// The same on every machine. Its kernel is what the emulated processor was tried with.
const SUITE: &str = "bookworm";
/// Beside mmdebstrap's `minbase`.
const PACKAGES: &str = "e2fsprogs,iproute2,kmod,procps,strace,util-linux";
/// Left out of every package.
const EXCLUDED: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];
/// What the kernel needs to see its root.
const EARLY_MODULES: &str = "virtio_pci virtio_blk";
/// What is loaded from the root, or wanted by the tests that run inside.
const LATER_MODULES: &str =
    "virtiofs virtio_net virtio_console virtio_rng kvm_amd kvm_intel overlay loop tun veth";
/// Size of the root as the system sees it; the image is sparse.
const IMAGE_SIZE: u64 = 24 << 30;
/// The image's file descriptor in the hooks.
const IMAGE_FD: &str = "9";
/// Folder of a build.
const UNFINISHED: &str = "unfinished";
/// How long a system that nobody uses is kept.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);
const SYSTEM_HOOK: &str = include_str!("system.sh");
const IMAGE_HOOK: &str = include_str!("image.sh");

/// A built system.
#[derive(Debug, Clone)]
pub struct System {
    folder: PathBuf,
}

impl System {
    /// The ext4 image of the root; never written to.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join("root.ext4")
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Folder of the modules for the initramfs, to be loaded in the order of their names.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// The system for this machine, built first when it is not there. `say` gets a line per step.
    ///
    /// # Errors
    /// When a tool is missing, the mirror does not answer, or the disk is full.
    pub fn ensure(host: &HostDir, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let folder = host.systems().join(recipe_digest());
        let system = Self { folder };
        if system.folder.is_dir() {
            system.touch();
            return Ok(system);
        }
        make_private(&host.systems())?;
        let lock = open_lock(&host.systems().join("build.lock"))?;
        if lock.try_lock().is_err() {
            say("another process builds the emulated host's system: waiting for it");
            lock.lock()?;
        }
        if system.folder.is_dir() {
            return Ok(system);
        }
        remove_leftovers(&host.systems())?;
        system.build(&host.systems().join(UNFINISHED), say)?;
        Ok(system)
    }

    /// Notes that it is in use.
    fn touch(&self) {
        // Without it, the system is built again some day.
        let _ = File::open(&self.folder).and_then(|folder| folder.set_modified(SystemTime::now()));
    }

    fn build(&self, work: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
        require_tools()?;
        namespace::check().map_err(with_remedy)?;
        let mirrors = Mirrors::of_machine().map_err(with_remedy)?;
        say(&format!(
            "building the emulated host's system (Debian {}, once, about a minute; kept in {})",
            SUITE,
            self.folder.display()
        ));
        fs::create_dir(work)?;
        let image = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(work.join("root.ext4"))?;
        image.set_len(IMAGE_SIZE)?;
        // Without root the hooks run under a subordinate id, which may only what everybody may. The
        // folders above are private.
        image.set_permissions(fs::Permissions::from_mode(0o666))?;
        let work_path = work
            .to_str()
            .context("the cache folder's path is not UTF-8")?;
        let mut command = Command::new("mmdebstrap");
        command.args([
            "--variant=minbase",
            "--format=null",
            &format!("--include={PACKAGES}"),
        ]);
        for pattern in EXCLUDED {
            command.arg(format!("--dpkgopt=path-exclude={pattern}"));
        }
        let settings = format!("root=$1 early='{EARLY_MODULES}' later='{LATER_MODULES}'");
        command
            .arg(format!("--customize-hook={settings}\n{SYSTEM_HOOK}"))
            .arg(format!(
                "--customize-hook=copy-out /boot/pyro {}",
                quote(work_path)
            ))
            .arg(format!("--customize-hook=root=$1\n{IMAGE_HOOK}"))
            .args([SUITE, "/dev/null"]);
        for source in mirrors.sources(SUITE) {
            command.arg(format!("deb {} {} main", source.uri, source.suite));
        }
        // The hooks know the image by its number only: the shell passes it on.
        let image_path = format!("/proc/self/fd/{}", image.as_raw_fd());
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("exec {IMAGE_FD}<>{image_path} && exec \"$@\""))
            .arg("sh");
        shell.arg(command.get_program()).args(command.get_args());
        rustix::io::fcntl_setfd(&image, rustix::io::FdFlags::empty())?;
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        crate::spawn::end_with_parent(&mut shell);
        let mut child = shell.spawn().context("mmdebstrap cannot be started")?;
        let mut log = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).lines() {
                let line = line?;
                if let Some(step) = line.strip_prefix("I: ").filter(|step| is_news(step)) {
                    say(&format!("  {step}"));
                }
                log.push(line);
            }
        }
        let status = child.wait()?;
        if !status.success() {
            bail!(
                "the emulated host's system cannot be built: mmdebstrap failed ({status})\n{}\n\
                 Check that the machine's Debian mirror answers (`apt-get update`) and that the disk has 2 GB free.",
                cause(&log)
            );
        }
        for name in ["vmlinuz", "modules"] {
            fs::rename(work.join("pyro").join(name), work.join(name))
                .context("the kernel was not copied out")?;
        }
        image.set_permissions(fs::Permissions::from_mode(0o600))?;
        image.sync_all()?;
        fs::rename(work, &self.folder)?;
        say("  done");
        Ok(())
    }
}

/// Whether a line of mmdebstrap's is one that a person waits for.
fn is_news(step: &str) -> bool {
    [
        "running apt-get update",
        "downloading packages",
        "extracting",
        "installing",
    ]
    .iter()
    .any(|word| step.starts_with(word))
}

/// What led to mmdebstrap's first complaint: the complaint itself repeats a whole hook.
fn cause(log: &[String]) -> String {
    let complaint = log
        .iter()
        .position(|line| line.starts_with("E: "))
        .unwrap_or(log.len());
    let first = complaint.saturating_sub(10);
    let last = log.len().min(complaint + 1);
    log[first..last].join("\n")
}

/// One word of a shell's command line, whatever is in it.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn recipe_digest() -> String {
    let mut hash = Sha256::new();
    for part in [
        SUITE,
        PACKAGES,
        EARLY_MODULES,
        LATER_MODULES,
        SYSTEM_HOOK,
        IMAGE_HOOK,
        &RECIPE.to_string(),
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    for pattern in EXCLUDED {
        hash.update(pattern.as_bytes());
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn with_remedy(error: pyro_images::Error) -> anyhow::Error {
    let remedy = error.remedy();
    anyhow::anyhow!("the emulated host's system cannot be built: {error}\n  fix: {remedy}")
}

/// Removes what a killed build left, and systems of other recipes that nobody has used for long.
fn remove_leftovers(systems: &Path) -> Result<()> {
    for entry in fs::read_dir(systems)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let unused = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if entry.file_name() == UNFINISHED || unused > KEPT {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("{} cannot be removed", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Tells which programs are missing, and the packages that hold them.
///
/// # Errors
/// When any is missing.
pub fn require_tools() -> Result<()> {
    let tools = [
        ("mmdebstrap", "mmdebstrap"),
        ("mke2fs", "e2fsprogs"),
        ("qemu-system-x86_64", "qemu-system-x86"),
        (super::machine::VIRTIOFSD, "qemu-system-common"),
    ];
    let missing: Vec<_> = tools
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    bail!(
        "the emulated host needs {}, missing here\n  fix: apt-get install {} (or `make deps`)",
        programs.join(", "),
        packages.join(" ")
    )
}

fn find_program(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_stays_one_word() {
        let odd = "a b'c$(d)\n";
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", quote(odd)))
            .output()
            .unwrap();
        assert_eq!(output.stdout, odd.as_bytes());
    }
}
