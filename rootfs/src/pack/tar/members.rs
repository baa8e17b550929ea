//! The members of a tar stream, one after the other, in bounded memory.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::extension::Extension;
use crate::pack::PackError;
use crate::tree::Timestamp;

/// A tar stream is made of blocks of this size (POSIX pax, "ustar Interchange Format").
const BLOCK: usize = 512;

/// The longest extended header or long name that is taken into memory: all extended attributes
/// that Linux allows a file fit.
const EXTENSION_MAX: u64 = 1 << 20;

/// How much may follow the end of the archive; writers pad to full records.
const PADDING_MAX: u64 = 16 << 20;

/// What a member is, without its content.
pub(crate) struct Member {
    pub(crate) header: Header,
    pub(crate) entry_type: EntryType,
    pub(crate) path: Vec<u8>,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    pub(crate) size: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(crate) mtime: Timestamp,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Member {
    pub(crate) fn refuse(&self, reason: &'static str) -> PackError {
        refuse(&self.path, reason)
    }
}

/// Reads members. As a [`Read`] it is the content of the last one.
pub(crate) struct Members<R> {
    source: R,
    /// Of the last member's content.
    left: u64,
    /// Zeros between that and the next header.
    padding: u64,
    /// PAX records for all members.
    global: Extension,
}

impl<R: Read> Members<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            left: 0,
            padding: 0,
            global: Extension::default(),
        }
    }

    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// The next member, or `None` at the end of the archive. Skips what is left of the last.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, PackError> {
        let mut extension = self.global.clone();
        let mut extended = false;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if extended {
                    return Err(damaged("the archive ends after an extended header"));
                }
                return Ok(None);
            };
            let size = header.entry_size().map_err(PackError::Read)?;
            let entry_type = header.entry_type();
            match entry_type {
                EntryType::GNULongName => extension.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => extension.link = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    extension
                        .read_pax(&records)
                        .map_err(|why| refuse_header(&header, why))?;
                }
                EntryType::XGlobalHeader => {
                    let records = self.extension(size)?;
                    self.global
                        .read_pax(&records)
                        .map_err(|why| refuse_header(&header, why))?;
                    extension = self.global.clone();
                }
                _ => return self.member(header, size, extension).map(Some),
            }
            extended = entry_type != EntryType::XGlobalHeader;
        }
    }

    fn member(
        &mut self,
        header: Header,
        header_size: u64,
        extension: Extension,
    ) -> Result<Member, PackError> {
        let number = |number: io::Result<u64>| number.map_err(PackError::Read);
        let size = extension.size.unwrap_or(header_size);
        let member = Member {
            entry_type: header.entry_type(),
            path: extension
                .path
                .unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extension
                .link
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default(),
            size,
            uid: extension.uid.map_or_else(|| number(header.uid()), Ok)?,
            gid: extension.gid.map_or_else(|| number(header.gid()), Ok)?,
            mtime: match extension.mtime {
                Some(mtime) => mtime,
                None => Timestamp {
                    secs: i64::try_from(number(header.mtime())?).unwrap_or(i64::MAX),
                    nanos: 0,
                },
            },
            xattrs: extension.xattrs,
            header,
        };
        // Two readers that believe different sizes see different members; a writer that means
        // well says both, or zero where the old field is too small.
        if size != header_size && header_size != 0 {
            return Err(member.refuse("its two sizes contradict each other"));
        }
        self.begin_content(size).map_err(|why| member.refuse(why))?;
        Ok(member)
    }

    fn begin_content(&mut self, size: u64) -> Result<(), &'static str> {
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .ok_or("its size is absurd")?;
        self.left = size;
        self.padding = padded - size;
        Ok(())
    }

    /// The next header, or `None` for the block of zeros that ends an archive.
    fn header(&mut self) -> Result<Option<Header>, PackError> {
        let mut header = Header::new_old();
        self.source
            .read_exact(header.as_mut_bytes())
            .map_err(PackError::Read)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field, bytes 148 to 155, as spaces.
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(i, &byte)| {
                if (148..156).contains(&i) {
                    32
                } else {
                    u32::from(byte)
                }
            })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(damaged("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// The content of a member that describes the next one.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, PackError> {
        if size > EXTENSION_MAX {
            return Err(PackError::TooLarge {
                limit: EXTENSION_MAX,
                unit: "bytes in an extended header",
            });
        }
        self.begin_content(size).map_err(damaged)?;
        let mut bytes = vec![0; usize::try_from(size).expect("EXTENSION_MAX fits")];
        self.read_exact(&mut bytes).map_err(PackError::Read)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, PackError> {
        let mut name = self.extension(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// Skips what is left of the last member.
    pub(crate) fn skip_rest(&mut self) -> Result<(), PackError> {
        let skip = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.source).take(skip), &mut io::sink())
            .map_err(PackError::Read)?;
        if skipped < skip {
            return Err(PackError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads what follows the archive's end, so that its writer does not see a broken pipe.
    pub(crate) fn drain(&mut self) -> Result<(), PackError> {
        io::copy(&mut (&mut self.source).take(PADDING_MAX), &mut io::sink())
            .map_err(PackError::Read)?;
        Ok(())
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&mut self.source).take(self.left).read(buffer)?;
        self.left -= n as u64;
        Ok(n)
    }
}

fn damaged(why: &'static str) -> PackError {
    PackError::Read(io::Error::new(io::ErrorKind::InvalidData, why))
}

fn refuse_header(header: &Header, reason: &'static str) -> PackError {
    refuse(&header.path_bytes(), reason)
}

fn refuse(path: &[u8], reason: &'static str) -> PackError {
    PackError::Member {
        member: String::from_utf8_lossy(path).into_owned(),
        reason,
    }
}
