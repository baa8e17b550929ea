//! The initramfs of the emulated host: this program, a few modules, the configuration.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pyro_images::initramfs::Archive;

use super::system::System;
use crate::inside::{CONFIG_PATH, Config};

/// Writes it to `to`, readable by the user alone: it holds the token. `files` are put in as
/// `config.files` names them.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write(to: &Path, system: &System, config: &Config, files: &[PathBuf]) -> Result<()> {
    let _ = fs::remove_file(to);
    let out = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let mut archive = Archive::new(BufWriter::new(out));
    for folder in ["dev", "proc", "sys", "root", "modules", "files"] {
        archive.directory(folder, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.file(
        "init",
        0o755,
        &fs::read("/proc/self/exe").context("this program cannot be read")?,
    )?;
    archive.file(
        CONFIG_PATH.trim_start_matches('/'),
        0o600,
        &serde_json::to_vec(config)?,
    )?;
    for module in fs::read_dir(system.modules())? {
        let module = module?;
        let name = module
            .file_name()
            .into_string()
            .ok()
            .context("a module's name is not UTF-8")?;
        archive.file(&format!("modules/{name}"), 0o644, &fs::read(module.path())?)?;
    }
    for ((inside, _), file) in config.files.iter().zip(files) {
        let name = inside.to_str().context("a file's name is not UTF-8")?;
        let content =
            fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        archive.file(name.trim_start_matches('/'), 0o755, &content)?;
    }
    archive
        .finish()
        .and_then(|mut out| out.flush())
        .context("the initramfs cannot be written")
}
