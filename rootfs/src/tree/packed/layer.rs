//! One packed layer, opened.
//!
//! Nothing in an index is believed: what is used is checked when it is used, and what does not
//! fit is `IO` for the guest. A look-up is a few reads of mapped memory and makes no system call.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs::File;

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::format::{
    CONTENT_BENEATH, CONTENT_HERE, CONTENT_HOLE, DATA_ALIGN, ENTRY_LEN, EntryRecord, HEADER_LEN,
    Header, INODE_LEN, InodeRecord, MAGIC, MAX_COOKIE, MAX_INO, MAX_SIZE, Section, VERSION,
    WHITEOUT, XattrIter,
};
use super::map::Map;
use crate::tree::{Cookie, FileType, Ino, Name, OpenError, PackedFiles};

/// What a layer says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It names an inode.
    Child {
        /// Which one.
        ino: Ino,
        /// Of this type.
        file_type: FileType,
    },
    /// The name is gone, whatever layers beneath say.
    Whiteout,
}

/// Where a layer says that a regular file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackedContent {
    Hole,
    Here { offset: u64, len: u64 },
    Beneath,
}

/// One entry of a directory in one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) slot: Slot,
}

/// A directory's entries in one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedDir<'a> {
    layer: &'a PackedLayer,
    records: &'a [EntryRecord],
    first_cookie: u64,
}

/// An immutable layer.
#[derive(Debug)]
pub(crate) struct PackedLayer {
    index: Map,
    data: File,
    header: Header,
    inodes: (usize, usize),
    entries: (usize, usize),
    bytes: (usize, usize),
}

impl PackedLayer {
    /// Opens layer number `layer` of a stack on top of `beneath`.
    pub(crate) fn open(
        files: PackedFiles,
        layer: usize,
        beneath: Option<&PackedLayer>,
    ) -> Result<Self, OpenError> {
        let io = |action| move |source| OpenError::Io { action, source };
        let damaged = |reason| OpenError::DamagedLayer { layer, reason };
        let data_len = files
            .data
            .metadata()
            .map_err(io("read the size of a layer's data"))?
            .len();
        let index = Map::new(&files.index).map_err(io("map a layer's index"))?;
        let bytes = index.bytes();
        let (header, _) =
            Header::read_from_prefix(bytes).map_err(|_| damaged("it is cut short"))?;
        if header.magic != MAGIC {
            return Err(damaged("it is no layer"));
        }
        if header.version.get() != VERSION {
            let found = header.version.get();
            return Err(OpenError::LayerVersion {
                layer,
                found,
                expected: VERSION,
            });
        }
        if header.header_len.get() as usize != HEADER_LEN {
            return Err(damaged("its header has another size"));
        }
        let section = |section: &Section, record: usize| {
            section_range(section, record, bytes.len()).ok_or_else(|| damaged("it is cut short"))
        };
        let (first, next) = (header.first_ino.get(), header.next_ino.get());
        let expected_first = beneath.map_or(Ino::ROOT.0, |beneath| beneath.next_ino().0);
        let expected_beneath = beneath.map_or([0; 32], |beneath| beneath.header.layer_id);
        if header.beneath != expected_beneath || first != expected_first {
            return Err(damaged("it belongs on top of other layers"));
        }
        if next < first || next > MAX_INO {
            return Err(damaged("its inode numbers are out of range"));
        }
        if header.data_len.get() > data_len {
            return Err(damaged("its data is cut short"));
        }
        let opened = Self {
            inodes: section(&header.inodes, INODE_LEN)?,
            entries: section(&header.entries, ENTRY_LEN)?,
            bytes: section(&header.bytes, 1)?,
            data: files.data,
            header,
            index,
        };
        if beneath.is_none() {
            let root = opened.inode(Ino::ROOT).and_then(InodeRecord::file_type);
            if root != Ok(FileType::Directory) {
                return Err(damaged("it has no root directory"));
            }
        }
        Ok(opened)
    }

    /// What the layer is called by those above it.
    pub(crate) fn id(&self) -> &[u8; 32] {
        &self.header.layer_id
    }

    /// The lowest number that the layer above may give.
    pub(crate) fn next_ino(&self) -> Ino {
        Ino(self.header.next_ino.get())
    }

    /// The file that contents are in.
    pub(crate) fn data(&self) -> &File {
        &self.data
    }

    /// How many inodes it has.
    pub(crate) fn inode_count(&self) -> u64 {
        (self.inodes().len()) as u64
    }

    fn inodes(&self) -> &[InodeRecord] {
        let (from, to) = self.inodes;
        records(&self.index.bytes()[from..to])
    }

    fn entries(&self) -> &[EntryRecord] {
        let (from, to) = self.entries;
        records(&self.index.bytes()[from..to])
    }

    fn bytes(&self, start: u64, len: u64) -> Result<&[u8], Errno> {
        let (from, to) = self.bytes;
        let bytes = &self.index.bytes()[from..to];
        let start = usize::try_from(start).map_err(|_| Errno::IO)?;
        let len = usize::try_from(len).map_err(|_| Errno::IO)?;
        let end = start.checked_add(len).ok_or(Errno::IO)?;
        bytes.get(start..end).ok_or(Errno::IO)
    }

    /// The record of `ino`, when the layer knows it; `NOENT` when it does not.
    pub(crate) fn inode(&self, ino: Ino) -> Result<&InodeRecord, Errno> {
        let inodes = self.inodes();
        let first = inodes.first().ok_or(Errno::NOENT)?.ino.get();
        // Without gaps, which is usual, the number says the place.
        let guess = usize::try_from(ino.0.checked_sub(first).ok_or(Errno::NOENT)?)
            .map_err(|_| Errno::NOENT)?;
        if let Some(record) = inodes.get(guess)
            && record.ino.get() == ino.0
        {
            return Ok(record);
        }
        let place = inodes
            .binary_search_by_key(&ino.0, |record| record.ino.get())
            .map_err(|_| Errno::NOENT)?;
        inodes.get(place).ok_or(Errno::IO)
    }

    /// The entries that this layer has for the directory of `record`.
    pub(crate) fn dir(&self, record: &InodeRecord) -> Result<PackedDir<'_>, Errno> {
        let start = usize::try_from(record.start.get()).map_err(|_| Errno::IO)?;
        let count = usize::try_from(record.count.get()).map_err(|_| Errno::IO)?;
        let end = start.checked_add(count).ok_or(Errno::IO)?;
        let records = self.entries().get(start..end).ok_or(Errno::IO)?;
        let first_cookie = record.first_cookie.get();
        let last = first_cookie
            .checked_add(record.count.get())
            .ok_or(Errno::IO)?;
        if first_cookie < Cookie::FIRST_NAMED || last > MAX_COOKIE {
            return Err(Errno::IO);
        }
        Ok(PackedDir {
            layer: self,
            records,
            first_cookie,
        })
    }

    /// Visits every name that this layer gives to an inode of `wanted`: inode, directory, name.
    pub(crate) fn names_of(
        &self,
        wanted: &HashSet<Ino>,
        visit: &mut dyn FnMut(Ino, Ino, &[u8]),
    ) -> Result<(), Errno> {
        let (Some(low), Some(high)) = (wanted.iter().min(), wanted.iter().max()) else {
            return Ok(());
        };
        let mut hits = Vec::new();
        for (place, entry) in self.entries().iter().enumerate() {
            let ino = Ino(entry.ino.get());
            if (*low..=*high).contains(&ino) && wanted.contains(&ino) {
                hits.push(place as u64);
            }
        }
        if hits.is_empty() {
            return Ok(());
        }
        for record in self.inodes() {
            let start = record.start.get();
            let end = start.saturating_add(record.count.get());
            if record.file_type() != Ok(FileType::Directory) {
                continue;
            }
            let first = hits.partition_point(|&hit| hit < start);
            let beyond = hits.partition_point(|&hit| hit < end);
            if first >= beyond {
                continue;
            }
            let dir = self.dir(record)?;
            for hit in &hits[first..beyond] {
                let entry = usize::try_from(hit - start)
                    .ok()
                    .and_then(|place| dir.records.get(place))
                    .ok_or(Errno::IO)?;
                visit(
                    Ino(entry.ino.get()),
                    Ino(record.ino.get()),
                    dir.name(entry)?,
                );
            }
        }
        Ok(())
    }

    /// The target of the symbolic link of `record`.
    pub(crate) fn target(&self, record: &InodeRecord) -> Result<&[u8], Errno> {
        self.bytes(record.start.get(), record.count.get())
    }

    /// Extended attributes of the inode of `record`.
    pub(crate) fn xattrs(&self, record: &InodeRecord) -> Result<XattrIter<'_>, Errno> {
        let bytes = self.bytes(
            record.xattrs_start.get(),
            u64::from(record.xattrs_len.get()),
        )?;
        Ok(XattrIter::new(bytes))
    }

    /// Where the content of the regular file of `record` is.
    pub(crate) fn content(&self, record: &InodeRecord) -> Result<PackedContent, Errno> {
        match record.content.get() {
            CONTENT_HOLE => Ok(PackedContent::Hole),
            CONTENT_BENEATH => Ok(PackedContent::Beneath),
            CONTENT_HERE => {
                let (offset, len) = (record.start.get(), record.count.get());
                let end = offset.checked_add(len).ok_or(Errno::IO)?;
                let bad = !offset.is_multiple_of(DATA_ALIGN)
                    || end > self.header.data_len.get()
                    || len > MAX_SIZE;
                if bad {
                    Err(Errno::IO)
                } else {
                    Ok(PackedContent::Here { offset, len })
                }
            }
            _ => Err(Errno::IO),
        }
    }
}

impl<'a> PackedDir<'a> {
    /// What the layer says of `name`, if anything.
    pub(crate) fn get(&self, name: Name<'_>) -> Result<Option<Slot>, Errno> {
        let (mut low, mut high) = (0, self.records.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let record = &self.records[middle];
            match self.bytes_of(record)?.cmp(name.as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return self.slot(record).map(Some),
            }
        }
        Ok(None)
    }

    /// The cookie of its first entry.
    pub(crate) fn first_cookie(&self) -> u64 {
        self.first_cookie
    }

    /// The cookie that the layer above may give first.
    pub(crate) fn next_cookie(&self) -> u64 {
        self.first_cookie + self.records.len() as u64
    }

    /// The entries whose cookies are greater than `after`, each with its cookie.
    pub(crate) fn after(
        self,
        after: Cookie,
    ) -> impl Iterator<Item = Result<(Cookie, PackedEntry<'a>), Errno>> {
        let skip = after.0.saturating_add(1).saturating_sub(self.first_cookie);
        let skip = usize::try_from(skip).map_or(self.records.len(), |n| n.min(self.records.len()));
        self.records[skip..]
            .iter()
            .enumerate()
            .map(move |(i, record)| {
                let entry = PackedEntry {
                    name: self.name(record)?,
                    slot: self.slot(record)?,
                };
                Ok((Cookie(self.first_cookie + (skip + i) as u64), entry))
            })
    }

    fn bytes_of(&self, record: &EntryRecord) -> Result<&'a [u8], Errno> {
        self.layer.bytes(
            u64::from(record.name_start.get()),
            u64::from(record.name_len.get()),
        )
    }

    fn name(&self, record: &EntryRecord) -> Result<&'a [u8], Errno> {
        let name = self.bytes_of(record)?;
        Name::new(name).map_err(|_| Errno::IO)?;
        Ok(name)
    }

    fn slot(&self, record: &EntryRecord) -> Result<Slot, Errno> {
        if record.ino.get() == WHITEOUT {
            return Ok(Slot::Whiteout);
        }
        if record.ino.get() >= self.layer.next_ino().0 {
            return Err(Errno::IO);
        }
        let file_type = FileType::from_mode(u32::from(record.file_type) << 12).ok_or(Errno::IO)?;
        Ok(Slot::Child {
            ino: Ino(record.ino.get()),
            file_type,
        })
    }
}

/// `bytes` as records; a section has a whole number of them.
fn records<T: FromBytes + zerocopy::Immutable + zerocopy::KnownLayout + zerocopy::Unaligned>(
    bytes: &[u8],
) -> &[T] {
    <[T]>::ref_from_bytes(bytes).unwrap_or(&[])
}

/// Where `section` is in a file of `len` bytes, when it is in it and of whole records.
fn section_range(section: &Section, record: usize, len: usize) -> Option<(usize, usize)> {
    let from = usize::try_from(section.offset.get()).ok()?;
    let to = from.checked_add(usize::try_from(section.len.get()).ok()?)?;
    (to <= len && (to - from).is_multiple_of(record)).then_some((from, to))
}
