//! The `newc` form of cpio, written.
//!
//! Linux, Documentation/driver-api/early-userspace/buffer-format.rst: each member is a header of
//! thirteen eight-digit hexadecimal numbers after the magic `070701`, its NUL-ended name, and its
//! data, both padded to four bytes. A member `TRAILER!!!` ends the archive. The same calls make
//! the same bytes: no clock, user or inode number of the host gets in.

use std::io::{self, Write};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// An archive is padded to this, as cpio(1) does, so that another one can follow it.
const BLOCK: u64 = 512;

/// POSIX `sys/stat.h`: the file types.
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Writes one archive. Everything in it belongs to root and has no times.
///
/// Parents must be added before what is in them: the kernel makes no directories by itself.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let mut archive = pyro_images::initramfs::Archive::new(Vec::new());
/// archive.directory("dev", 0o755)?;
/// archive.character_device("dev/console", 0o600, 5, 1)?;
/// archive.file("init", 0o755, b"the agent")?;
/// let bytes = archive.finish()?;
/// # assert_eq!(bytes.len() % 512, 0);
/// # Ok(())
/// # }
/// ```
pub struct Archive<W> {
    out: W,
    written: u64,
    inode: u32,
}

struct Member<'a> {
    name: &'a str,
    mode: u32,
    links: u32,
    device: (u32, u32),
    data: &'a [u8],
}

impl<W: Write> Archive<W> {
    /// An empty archive that is written to `out`.
    pub fn new(out: W) -> Archive<W> {
        Archive {
            out,
            written: 0,
            inode: 0,
        }
    }

    /// Adds a directory. `path` is relative to the root, without a leading `/`.
    pub fn directory(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        self.member(Member {
            name: path,
            mode: S_IFDIR | permissions & 0o7777,
            links: 2,
            device: (0, 0),
            data: &[],
        })
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.member(Member {
            name: path,
            mode: S_IFREG | permissions & 0o7777,
            links: 1,
            device: (0, 0),
            data,
        })
    }

    /// Adds a regular file whose `size` bytes are read from `data`; the kernel moves them when both
    /// ends are files.
    pub fn file_from<R: io::Read>(
        &mut self,
        path: &str,
        permissions: u32,
        size: u32,
        data: R,
    ) -> io::Result<()> {
        self.begin(
            &Member {
                name: path,
                mode: S_IFREG | permissions & 0o7777,
                links: 1,
                device: (0, 0),
                data: &[],
            },
            size,
        )?;
        let copied = io::copy(&mut data.take(size.into()), &mut self.out)?;
        if copied != u64::from(size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.written += copied;
        self.pad(4)
    }

    /// Adds a symbolic link to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.member(Member {
            name: path,
            mode: S_IFLNK | 0o777,
            links: 1,
            device: (0, 0),
            data: target.as_bytes(),
        })
    }

    /// Adds a character device.
    pub fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        self.member(Member {
            name: path,
            mode: S_IFCHR | permissions & 0o7777,
            links: 1,
            device: (major, minor),
            data: &[],
        })
    }

    /// Ends the archive and gives the writer back, not flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header(
            &Member {
                name: TRAILER,
                mode: 0,
                links: 1,
                device: (0, 0),
                data: &[],
            },
            0,
            0,
        )?;
        self.pad(BLOCK)?;
        Ok(self.out)
    }

    fn member(&mut self, member: Member<'_>) -> io::Result<()> {
        let size = u32::try_from(member.data.len())
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.begin(&member, size)?;
        self.write(member.data)?;
        self.pad(4)
    }

    fn begin(&mut self, member: &Member<'_>, size: u32) -> io::Result<()> {
        let invalid = |what: &str| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{:?}: {what}", member.name),
            )
        };
        let relative = !member.name.starts_with('/') && !member.name.contains('\0');
        if member.name.is_empty() || member.name == TRAILER || !relative {
            return Err(invalid("not a member's name"));
        }
        self.inode += 1;
        self.header(member, self.inode, size)
    }

    fn header(&mut self, member: &Member<'_>, inode: u32, size: u32) -> io::Result<()> {
        let name_size = u32::try_from(member.name.len() + 1)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let fields = [
            inode,
            member.mode,
            0, // uid
            0, // gid
            member.links,
            0, // mtime
            size,
            0, // major and minor of the device that holds the file
            0,
            member.device.0,
            member.device.1,
            name_size,
            0, // check sum, unused in this form
        ];
        let mut header = String::from(MAGIC);
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(member.name);
        header.push('\0');
        self.write(header.as_bytes())?;
        self.pad(4)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        let short = (to - self.written % to) % to;
        self.write(&ZEROS[..short as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.directory("d", 0o755).unwrap();
        archive.file("d/f", 0o644, b"hello").unwrap();
        archive.symlink("l", "d/f").unwrap();
        archive.character_device("c", 0o600, 5, 1).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn a_file_is_written_as_the_format_says() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a", 0o644, b"hello").unwrap();
        let bytes = archive.finish().unwrap();

        let expected = concat!(
            "070701",
            "00000001",
            "000081a4",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000005",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000002",
            "00000000",
            "a\0",
            "hello\0\0\0",
            "070701",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "0000000b",
            "00000000",
            "TRAILER!!!\0",
        );
        assert_eq!(
            std::str::from_utf8(&bytes[..expected.len()]).unwrap(),
            expected
        );
        assert!(bytes[expected.len()..].iter().all(|&byte| byte == 0));
        assert_eq!(bytes.len() % BLOCK as usize, 0);
    }

    #[test]
    fn the_same_calls_make_the_same_bytes() {
        assert_eq!(sample(), sample());
    }

    #[test]
    fn a_name_that_would_break_the_archive_is_refused() {
        for name in ["", "/etc", "a\0b", TRAILER] {
            let mut archive = Archive::new(Vec::new());
            assert!(archive.file(name, 0o644, b"").is_err(), "{name:?}");
        }
    }

    #[test]
    fn cpio_lists_what_was_written() {
        let Ok(mut tool) = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("cpio is not installed: what it would say is not compared");
            return;
        };
        tool.stdin.take().unwrap().write_all(&sample()).unwrap();
        let listing = String::from_utf8(tool.wait_with_output().unwrap().stdout).unwrap();

        let modes: Vec<_> = listing.lines().map(|line| &line[..10]).collect();
        assert_eq!(
            modes,
            ["drwxr-xr-x", "-rw-r--r--", "lrwxrwxrwx", "crw-------"]
        );
        assert!(listing.contains("l -> d/f"));
    }
}
