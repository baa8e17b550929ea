//! The initramfs of the emulated host: this program, a few modules, the configuration.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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
    let mut archive = Archive {
        out: BufWriter::new(out),
        inode: 0,
    };
    for folder in ["dev", "proc", "sys", "root", "modules", "files"] {
        archive.folder(folder)?;
    }
    archive.console()?;
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
    archive.finish().context("the initramfs cannot be written")
}

/// A newc archive being written.
struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn folder(&mut self, name: &str) -> io::Result<()> {
        self.member(name, 0o040_755, (0, 0), &[])
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.member(name, 0o100_000 | mode, (0, 0), content)
    }

    fn console(&mut self) -> io::Result<()> {
        self.member("dev/console", 0o020_600, (5, 1), &[])
    }

    fn finish(mut self) -> io::Result<()> {
        self.member("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn member(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is too large"))
        })?;
        self.inode += 1;
        let name_size = name.len() as u32 + 1;
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.pad(110 + name.len(), 1)?;
        self.out.write_all(content)?;
        self.pad(content.len(), 0)
    }

    /// Fills up to four bytes, with at least `least` zeros.
    fn pad(&mut self, length: usize, least: usize) -> io::Result<()> {
        let zeros = least + (4 - (length + least) % 4) % 4;
        self.out.write_all(&[0; 8][..zeros])
    }
}
