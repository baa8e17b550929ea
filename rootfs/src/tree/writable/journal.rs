//! The journal: an append-only file of records, each whole or not there.
//!
//! ```text
//! FileHeader: magic 8 | version 4 | salt 4 | id of the layers beneath 32 | CRC-32 4
//! Record:     CRC-32 4 | length 4 | sequence number 8 | synced 8 | changes
//! ```
//!
//! A record holds all changes since the one before and is applied as a whole, so the state that
//! is read back is always one that was. A record that a crash cut short is the end of the
//! journal. `synced` is how long the file was known to be on the disk when the record was
//! written: damage below the highest such mark is no torn end, and opening refuses it rather than lose what
//! was promised. Checksums begin with the file's random salt and cover the sequence number, so
//! bytes that a guest chose (names, attributes) cannot pass for a record.
//!
//! A journal whose layer is frozen has a name, [`JournalId`], over its header and all of its
//! records. The layer above carries it in its header, so it opens over nothing else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, renameat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::change::Reason;
use crate::tree::{Durability, OpenError};

/// What the layer above calls everything beneath it.
pub(crate) type JournalId = [u8; 32];

const NAME: &str = "journal";
const NEW_NAME: &str = "journal.new";

const MAGIC: [u8; 8] = *b"PYROJRNL";
const VERSION: u32 = 1;
const FILE_HEADER: usize = 52;
const RECORD_HEADER: usize = 24;

/// No record is longer; what says so is not one.
const RECORD_MAX: usize = 256 << 20;

/// How much room beyond its end the file keeps allocated, so that on a full disk the removal of
/// files can still be written down.
const HEADROOM: u64 = 256 << 10;

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    stack_id: [u8; 32],
    salt: u32,
    sequence: u64,
    /// Checksum of the last whole record.
    last_crc: u32,
    /// Length of what is whole.
    end: u64,
    /// How much of it is on the disk.
    synced: u64,
    /// Up to where the file is allocated.
    allocated: u64,
    /// Whether a failed sync left it unknown what is on the disk.
    suspect: bool,
    /// Whether the file was made and the disk may not have its name.
    unnamed: bool,
}

impl Journal {
    /// Opens the journal in `dir`, or begins one, and hands the changes of every record to
    /// `apply` in their order.
    pub(super) fn open(
        dir: impl AsFd,
        stack_id: &[u8; 32],
        apply: &mut dyn FnMut(&[u8]) -> Result<(), Reason>,
    ) -> Result<Self, OpenError> {
        let io = |action| {
            move |error: Errno| OpenError::Io {
                action,
                source: error.into(),
            }
        };
        // What a checkpoint did not finish; the journal proper is whole.
        match rustix::fs::unlinkat(&dir, NEW_NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(io("remove an unfinished journal")(error)),
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match openat(&dir, NAME, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => {
                return Self::begin(&dir, NAME, stack_id).map_err(|source| OpenError::Io {
                    action: "begin the journal",
                    source,
                });
            }
            Err(error) => return Err(io("open the journal")(error)),
        };
        Self::replay(file, &dir, stack_id, apply)
    }

    /// Reads the journal in `dir` of a layer that is not written here, and hands its changes to
    /// `apply`. What is torn off at its end stays there and does not count. `None` when there is
    /// none yet, or less than its header.
    pub(super) fn read(
        dir: impl AsFd,
        stack_id: &[u8; 32],
        apply: &mut dyn FnMut(&[u8]) -> Result<(), Reason>,
    ) -> Result<Option<Self>, OpenError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match openat(&dir, NAME, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                return Err(OpenError::Io {
                    action: "open the journal",
                    source: error.into(),
                });
            }
        };
        Self::scan(file, stack_id, apply)
    }

    fn replay(
        file: File,
        dir: impl AsFd,
        stack_id: &[u8; 32],
        apply: &mut dyn FnMut(&[u8]) -> Result<(), Reason>,
    ) -> Result<Self, OpenError> {
        let io = |action| move |source| OpenError::Io { action, source };
        let empty = file
            .metadata()
            .map_err(io("read the size of the journal"))?
            .len()
            == FILE_HEADER as u64;
        let journal = match Self::scan(file, stack_id, apply) {
            // One without a record says nothing, so it may begin over any stack.
            Err(OpenError::OtherStack) if empty => None,
            journal => journal?,
        };
        let Some(journal) = journal else {
            // A crash between making the file and its first bytes; nothing was ever promised.
            return Self::begin(dir, NAME, stack_id).map_err(io("begin the journal"));
        };
        // What is torn off must not be met again once shorter records are written over it.
        journal
            .file
            .set_len(journal.end)
            .map_err(io("cut the torn end off the journal"))?;
        Ok(journal)
    }

    /// Reads all whole records; `None` for less than a header.
    fn scan(
        file: File,
        stack_id: &[u8; 32],
        apply: &mut dyn FnMut(&[u8]) -> Result<(), Reason>,
    ) -> Result<Option<Self>, OpenError> {
        let io = |action| move |source| OpenError::Io { action, source };
        let len = file
            .metadata()
            .map_err(io("read the size of the journal"))?
            .len();
        if len < FILE_HEADER as u64 {
            return Ok(None);
        }
        let mut header = [0; FILE_HEADER];
        file.read_exact_at(&mut header, 0)
            .map_err(io("read the journal"))?;
        let salt = check_header(&header, stack_id)?;
        let mut journal = Self::at_start(file, salt, *stack_id);
        let damaged = |offset, reason| OpenError::DamagedJournal { offset, reason };
        while let Some((payload, synced, crc)) = journal
            .read_record(journal.end, journal.sequence, len)
            .map_err(io("read the journal"))?
        {
            let at = journal.end;
            apply(&payload).map_err(|reason| damaged(at, reason))?;
            journal.end += (RECORD_HEADER + payload.len()) as u64;
            journal.synced = journal.synced.max(synced);
            journal.sequence += 1;
            journal.last_crc = crc;
        }
        if let Some(promised) = journal
            .promise_beyond(len)
            .map_err(io("read the journal"))?
            && promised > journal.end
        {
            return Err(damaged(journal.end, "a record that was synced is damaged"));
        }
        journal.synced = journal.synced.min(journal.end);
        Ok(Some(journal))
    }

    /// One with a header and no record.
    fn at_start(file: File, salt: u32, stack_id: [u8; 32]) -> Self {
        Self {
            file,
            stack_id,
            salt,
            sequence: 0,
            last_crc: 0,
            end: FILE_HEADER as u64,
            synced: 0,
            allocated: 0,
            suspect: false,
            unnamed: false,
        }
    }

    /// What the layer above calls this one and all beneath it, as long as nothing is appended.
    /// One without records changes nothing and is not noticed, so it need not be on the disk.
    pub(super) fn id(&self) -> JournalId {
        if self.is_new() {
            return self.stack_id;
        }
        let mut hash = Sha256::new();
        hash.update(b"pyro frozen layer");
        hash.update(self.stack_id);
        hash.update(self.salt.to_le_bytes());
        hash.update(self.sequence.to_le_bytes());
        hash.update(self.end.to_le_bytes());
        hash.update(self.last_crc.to_le_bytes());
        hash.finalize().into()
    }

    /// The record at `offset` with number `sequence`: its changes, its mark, its checksum.
    fn read_record(
        &self,
        offset: u64,
        sequence: u64,
        len: u64,
    ) -> io::Result<Option<(Vec<u8>, u64, u32)>> {
        let Some((header, end)) = self.record_header(offset, len)? else {
            return Ok(None);
        };
        let mut payload = vec![0; header.len];
        self.file
            .read_exact_at(&mut payload, end - header.len as u64)?;
        let crc = record_crc(self.salt, header.len, sequence, header.synced, &payload);
        let whole = header.crc == crc && header.sequence == sequence;
        Ok(whole.then_some((payload, header.synced, crc)))
    }

    fn record_header(&self, offset: u64, len: u64) -> io::Result<Option<(RecordHeader, u64)>> {
        if len.saturating_sub(offset) < RECORD_HEADER as u64 {
            return Ok(None);
        }
        let mut bytes = [0; RECORD_HEADER];
        self.file.read_exact_at(&mut bytes, offset)?;
        let header = RecordHeader::parse(&bytes);
        let end = offset + (RECORD_HEADER + header.len.min(RECORD_MAX)) as u64;
        Ok((header.len <= RECORD_MAX && end <= len).then_some((header, end)))
    }

    /// After the last whole record: the mark of a record that follows the bad one, if the bad
    /// one's length leads to one.
    fn promise_beyond(&self, len: u64) -> io::Result<Option<u64>> {
        let Some((_, next)) = self.record_header(self.end, len)? else {
            return Ok(None);
        };
        Ok(self
            .read_record(next, self.sequence + 1, len)?
            .map(|(_, synced, _)| synced))
    }

    /// Makes a file with a header and nothing else.
    fn begin(dir: impl AsFd, name: &str, stack_id: &[u8; 32]) -> io::Result<Self> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file: OwnedFd = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        let file = File::from(file);
        let mut salt = [0; 4];
        rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())?;
        let salt = u32::from_le_bytes(salt);
        file.write_all_at(&file_header(salt, stack_id), 0)?;
        Ok(Self {
            unnamed: true,
            ..Self::at_start(file, salt, *stack_id)
        })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// Whether it has no record.
    pub(super) fn is_new(&self) -> bool {
        self.sequence == 0
    }

    /// Whether all of it is on the disk.
    pub(super) fn is_synced(&self) -> bool {
        self.is_new() || self.synced == self.end
    }

    /// Makes the disk have what was read, before something is written that relies on it.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether it has to be written anew because a sync failed.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Appends one record; nothing of it counts when this fails.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > RECORD_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let crc = record_crc(
            self.salt,
            payload.len(),
            self.sequence,
            self.synced,
            payload,
        );
        let mut record = Vec::with_capacity(RECORD_HEADER + payload.len());
        record.extend_from_slice(&crc.to_le_bytes());
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(&self.sequence.to_le_bytes());
        record.extend_from_slice(&self.synced.to_le_bytes());
        record.extend_from_slice(payload);
        if let Err(error) = self.file.write_all_at(&record, self.end) {
            // Best effort: the next record goes to the same place, and a part of this one behind
            // it has the wrong number.
            let _ = self.file.set_len(self.end);
            self.allocated = 0;
            return Err(error);
        }
        self.end += record.len() as u64;
        self.sequence += 1;
        self.last_crc = crc;
        self.keep_headroom();
        Ok(())
    }

    /// Keeps room allocated beyond its end; whether the host's disk has it. What is left without
    /// is for removals.
    pub(super) fn keep_headroom(&mut self) -> bool {
        if self.allocated >= self.end + HEADROOM / 2 {
            return true;
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, HEADROOM) {
            Ok(()) => self.allocated = self.end + HEADROOM,
            Err(Errno::NOSPC | Errno::DQUOT) => return false,
            // A host that cannot allocate. Everything works but removals on a full disk.
            Err(_) => {}
        }
        true
    }

    /// Waits until all of it is on the disk, and its name in `dir`.
    pub(super) fn sync(&mut self, dir: impl AsFd) -> io::Result<()> {
        if self.is_new() {
            return Ok(());
        }
        if !self.is_synced() {
            self.sync_file()?;
        }
        if self.unnamed {
            self.sync_name(dir)?;
            self.unnamed = false;
        }
        Ok(())
    }

    /// Makes the disk have the file's name. Asking again after a failure would tell nothing, so the
    /// journal is suspect then.
    fn sync_name(&mut self, dir: impl AsFd) -> io::Result<()> {
        rustix::fs::fsync(dir).map_err(|error| {
            self.suspect = true;
            error.into()
        })
    }

    fn sync_file(&mut self) -> io::Result<()> {
        if let Err(error) = self.file.sync_data() {
            self.suspect = true;
            return Err(error);
        }
        self.synced = self.end;
        Ok(())
    }

    /// Replaces the journal by a new one that `write` fills; on failure the old one stays.
    pub(super) fn replace(
        &mut self,
        dir: impl AsFd,
        stack_id: &[u8; 32],
        durability: Durability,
        write: &mut dyn FnMut(&mut Journal) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut new = Self::begin(&dir, NEW_NAME, stack_id)?;
        let result = write(&mut new).and_then(|()| match durability {
            Durability::Host => new.sync_file(),
            Durability::Process => Ok(()),
        });
        if let Err(error) = result {
            let _ = rustix::fs::unlinkat(&dir, NEW_NAME, AtFlags::empty());
            return Err(error);
        }
        if let Err(error) = renameat(&dir, NEW_NAME, &dir, NAME) {
            // One that failed may have been done all the same; what has no name must not go on.
            self.suspect |= !self.is_named(&dir);
            return Err(error.into());
        }
        new.unnamed = false;
        *self = new;
        match durability {
            Durability::Host => self.sync_name(dir),
            Durability::Process => Ok(()),
        }
    }

    /// Whether its name is in `dir`, as far as the host can tell.
    fn is_named(&self, dir: impl AsFd) -> bool {
        let named = rustix::fs::statat(dir, NAME, AtFlags::SYMLINK_NOFOLLOW);
        let own = rustix::fs::fstat(&self.file);
        matches!((named, own), (Ok(named), Ok(own))
            if (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino))
    }
}

struct RecordHeader {
    crc: u32,
    len: usize,
    sequence: u64,
    synced: u64,
}

impl RecordHeader {
    fn parse(bytes: &[u8; RECORD_HEADER]) -> Self {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | (u64::from(u32_at(at + 4)) << 32);
        Self {
            crc: u32_at(0),
            len: u32_at(4) as usize,
            sequence: u64_at(8),
            synced: u64_at(16),
        }
    }
}

fn record_crc(salt: u32, len: usize, sequence: u64, synced: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(&(len as u64).to_le_bytes());
    crc.update(&sequence.to_le_bytes());
    crc.update(&synced.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

fn file_header(salt: u32, stack_id: &[u8; 32]) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&salt.to_le_bytes());
    header[16..48].copy_from_slice(stack_id);
    let crc = crc32fast::hash(&header[..48]);
    header[48..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The salt of a good header.
fn check_header(header: &[u8; FILE_HEADER], stack_id: &[u8; 32]) -> Result<u32, OpenError> {
    let u32_at = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let damaged = |reason| Err(OpenError::DamagedJournal { offset: 0, reason });
    if header[..8] != MAGIC {
        return damaged("it is no journal");
    }
    if u32_at(48) != crc32fast::hash(&header[..48]) {
        return damaged("its header's checksum is wrong");
    }
    if u32_at(8) != VERSION {
        return Err(OpenError::JournalVersion {
            found: u32_at(8),
            expected: VERSION,
        });
    }
    if header[16..48] != stack_id[..] {
        return Err(OpenError::OtherStack);
    }
    Ok(u32_at(12))
}
