//! The agent's part of the initial RAM file system.
//!
//! The environment brings an archive with the kernel's modules; this one is laid behind it and
//! brings `/init`. So a new agent needs no new environment.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::Path;

use pyro_images::initramfs::Archive;

use super::sockets::memory_file;
use crate::error::{Code, Error, Result};

/// Largest agent that is believed to be one: far above what it takes.
const MAX_AGENT_BYTES: u64 = 64 << 20;

/// An archive that holds the agent as `/init`, in memory.
pub(super) fn agent_archive(agent: &Path) -> Result<File> {
    let failed = |e: io::Error| {
        Error::new(
            Code::HelperMissing,
            format!("cannot use the agent {}", agent.display()),
            "build or install all of pyro's programs together, or set PYRO_AGENT to its path",
        )
        .caused_by(e)
    };
    let size = fs::metadata(agent).map_err(failed)?.len();
    if size == 0 || size > MAX_AGENT_BYTES {
        return Err(failed(io::Error::other(format!(
            "{size} bytes are no agent"
        ))));
    }
    let build = || {
        let size = u32::try_from(size).map_err(io::Error::other)?;
        // Straight from file to file: the program is not read into our own memory.
        let mut archive = Archive::new(memory_file("pyro-agent", &[])?);
        archive.file_from("init", 0o755, size, File::open(agent)?)?;
        let mut file = archive.finish()?;
        file.rewind()?;
        Ok(file)
    };
    build().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_archive_starts_with_an_executable_init() {
        let mut file = agent_archive(Path::new("/bin/true")).expect("an archive");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("read");

        // newc: magic, inode, mode, each 8 hexadecimal digits after the 6 of the magic.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22].to_ascii_lowercase(), b"000081ed");
        assert_eq!(&bytes[110..115], b"init\0");
    }

    #[test]
    fn a_missing_or_empty_agent_is_refused() {
        let empty = tempfile::NamedTempFile::new().expect("temporary file");
        for path in [Path::new("/nonexistent"), empty.path()] {
            assert_eq!(
                agent_archive(path).expect_err("refused").code(),
                Code::HelperMissing
            );
        }
    }
}
