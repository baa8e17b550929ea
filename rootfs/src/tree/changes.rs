//! What changed between two points of a stack.
//!
//! The deltas above the older point name every inode and every directory's name that can differ.
//! From these come candidate paths; each is then looked up in both states and compared, so that
//! what was changed and changed back is not listed. A path that was renamed is a removal and an
//! addition, a renamed directory with all that is in it.
//!
//! The cost is that of the deltas, of what lies in renamed directories, and of the contents that
//! have to be compared; and, when a file changed, of one pass over the names of the layers beneath
//! for all names of it: two numbers are compared for each, 16 bytes of a packed layer.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::layers::{Layers, Stored};
use super::reader::open_content;
use super::{Attr, Cookie, FileType, Ino, Name, StackReader};

/// How deep directories may lie; a damaged stack could say that they go round.
const DEPTH_MAX: usize = 1 << 16;

/// Bytes of all paths that are made for one list. A guest may nest directories so deep that the
/// paths of a few thousand of them fill any memory.
const PATHS_MAX: usize = 256 << 20;

/// How much of two files is compared at a time.
const CHUNK: usize = 128 << 10;

/// One path that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the root, without a slash before it; empty for the root itself.
    pub path: Vec<u8>,
    /// What was there.
    pub old: Option<Attr>,
    /// What is there.
    pub new: Option<Attr>,
    /// Of what was there and is there: whether the content of a file, the target of a link or the
    /// number of a device differs.
    pub content: bool,
    /// Of what was there and is there: whether mode, owner, group or extended attributes differ.
    /// Times, sizes of directories and numbers of links do not count.
    pub metadata: bool,
}

/// What kind of change it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// Something of another type is there.
    TypeChanged,
    /// Content or metadata differ.
    Modified,
}

impl Change {
    /// What kind of change it is.
    #[must_use]
    pub fn kind(&self) -> ChangeKind {
        match (&self.old, &self.new) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            (Some(old), Some(new)) if old.file_type != new.file_type => ChangeKind::TypeChanged,
            _ => ChangeKind::Modified,
        }
    }
}

impl StackReader {
    /// What changed since there were the lowest `since` deltas only, by path. [`StackReader::at`]
    /// reads the older state.
    ///
    /// # Errors
    /// `IO` for damaged layers, `2BIG` when the paths alone would take more than 256 MiB. The iterator gives `STALE` for a content that its owner removed
    /// since the stack was opened, and the host's own.
    pub fn changes(
        &self,
        since: usize,
    ) -> Result<impl Iterator<Item = Result<Change, Errno>> + '_, Errno> {
        let (old, new) = (self.layers_at(since), self.layers());
        let mut paths = BTreeSet::new();
        let names = names_of_touched(old, new, since)?;
        let room = Cell::new(PATHS_MAX);
        for layers in [old, new] {
            Side::new(layers, &names, &room).collect(old, new, since, &mut paths)?;
        }
        Ok(paths
            .into_iter()
            .filter_map(move |path| compare(old, new, path).transpose()))
    }
}

/// Directory and name of entries, by inode. Layers above may have hidden them.
type Names = HashMap<Ino, Vec<(Ino, Vec<u8>)>>;

/// The names that any layer gave to what changed and is no directory.
fn names_of_touched(old: Layers<'_>, new: Layers<'_>, since: usize) -> Result<Names, Errno> {
    let is_file = |layers: Layers<'_>, ino| {
        let attr = layers.attr(ino);
        attr.is_ok_and(|attr| attr.file_type != FileType::Directory)
    };
    let mut wanted = HashSet::new();
    for layer in &new.frozen[since.min(new.frozen.len())..] {
        let touched = layer.delta().touched();
        wanted.extend(touched.filter(|&ino| is_file(old, ino) || is_file(new, ino)));
    }
    let mut names = Names::new();
    let (Some(&low), Some(&high)) = (wanted.iter().min(), wanted.iter().max()) else {
        return Ok(names);
    };
    for layer in new.frozen {
        for (dir, changed) in layer.delta().dirs() {
            for (name, ino) in changed.children() {
                if (low..=high).contains(&ino) && wanted.contains(&ino) {
                    names.entry(ino).or_default().push((dir, name.to_vec()));
                }
            }
        }
    }
    if low < new.packed.next_ino() {
        new.packed.names_of(&wanted, &mut |ino, dir, name| {
            names.entry(ino).or_default().push((dir, name.to_vec()));
        })?;
    }
    Ok(names)
}

/// Gathers the paths that something has in one of the two states.
struct Side<'a> {
    layers: Layers<'a>,
    names: &'a Names,
    /// Bytes of paths that may still be made.
    room: &'a Cell<usize>,
    dirs: HashMap<Ino, Option<Arc<[u8]>>>,
    expanded: HashSet<Ino>,
}

impl<'a> Side<'a> {
    fn new(layers: Layers<'a>, names: &'a Names, room: &'a Cell<usize>) -> Self {
        Self {
            layers,
            names,
            room,
            dirs: HashMap::from([(Ino::ROOT, Some(Arc::from(&b""[..])))]),
            expanded: HashSet::new(),
        }
    }

    fn collect(
        &mut self,
        old: Layers<'_>,
        new: Layers<'_>,
        since: usize,
        paths: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), Errno> {
        for layer in &new.frozen[since.min(new.frozen.len())..] {
            for (dir, changed) in layer.delta().dirs() {
                for (name, _) in changed.iter() {
                    let name = Name::new(name).map_err(|_| Errno::IO)?;
                    let binding = self.binding(dir, name)?;
                    if binding == target(old, dir, name)? && binding == target(new, dir, name)? {
                        continue;
                    }
                    if let (Some((ino, file_type)), Some(at)) = (binding, self.path_of(dir)?) {
                        self.expand(self.join(&at, name.as_bytes())?, ino, file_type, paths)?;
                    }
                }
            }
            for ino in layer.delta().touched() {
                if ino == Ino::ROOT {
                    paths.insert(Vec::new());
                }
                for (dir, name) in self.names_of(ino)? {
                    if let Some(at) = self.path_of(dir)? {
                        paths.insert(self.join(&at, &name)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn binding(&self, dir: Ino, name: Name<'_>) -> Result<Option<(Ino, FileType)>, Errno> {
        target(self.layers, dir, name)
    }

    /// All names that `ino` has in this state, directory and name.
    fn names_of(&self, ino: Ino) -> Result<Vec<(Ino, Vec<u8>)>, Errno> {
        let Ok(attr) = self.layers.attr(ino) else {
            return Ok(Vec::new());
        };
        if attr.nlink == 0 {
            return Ok(Vec::new());
        }
        if attr.file_type == FileType::Directory {
            return Ok(self.dir_name(ino)?.into_iter().collect());
        }
        let mut real = BTreeSet::new();
        for (dir, name) in self.names.get(&ino).into_iter().flatten() {
            if self.is_named(*dir, name, ino)? {
                real.insert((*dir, name.clone()));
            }
        }
        Ok(real.into_iter().collect())
    }

    fn is_named(&self, dir: Ino, name: &[u8], ino: Ino) -> Result<bool, Errno> {
        let name = Name::new(name).map_err(|_| Errno::IO)?;
        Ok(self.binding(dir, name)?.is_some_and(|(it, _)| it == ino))
    }

    /// The directory that holds directory `dir`, and its name there.
    fn dir_name(&self, dir: Ino) -> Result<Option<(Ino, Vec<u8>)>, Errno> {
        if dir == Ino::ROOT {
            return Ok(None);
        }
        let parent = self.layers.parent_of(dir)?;
        for layer in self.layers.frozen.iter().rev() {
            let changed = layer.delta().dir(parent);
            for (name, _) in changed
                .into_iter()
                .flat_map(|changed| changed.children())
                .filter(|&(_, ino)| ino == dir)
            {
                if self.is_named(parent, name, dir)? {
                    return Ok(Some((parent, name.to_vec())));
                }
            }
        }
        let mut found = None;
        let _ = self
            .layers
            .packed
            .read_dir(parent, Cookie::START, &mut |entry| {
                if entry.ino == dir {
                    found = Some(entry.name.to_vec());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
        match found {
            Some(name) if self.is_named(parent, &name, dir)? => Ok(Some((parent, name))),
            _ => Ok(None),
        }
    }

    /// The path of directory `dir`; `None` when it is not there in this state.
    fn path_of(&mut self, dir: Ino) -> Result<Option<Arc<[u8]>>, Errno> {
        let mut way = Vec::new();
        let mut at = dir;
        let mut path = loop {
            if let Some(path) = self.dirs.get(&at) {
                break path.clone();
            }
            let there = self.layers.attr(at);
            if !there.is_ok_and(|attr| attr.nlink > 0 && attr.file_type == FileType::Directory) {
                way.push((at, Vec::new()));
                break None;
            }
            let Some((parent, name)) = self.dir_name(at)? else {
                return Err(Errno::IO);
            };
            way.push((at, name));
            if way.len() > DEPTH_MAX {
                return Err(Errno::IO);
            }
            at = parent;
        };
        for (dir, name) in way.into_iter().rev() {
            path = match path {
                Some(path) => Some(self.join(&path, &name)?.into()),
                None => None,
            };
            self.dirs.insert(dir, path.clone());
        }
        Ok(path)
    }

    /// The path of `name` in the directory at `dir`, while there is room for it.
    fn join(&self, dir: &[u8], name: &[u8]) -> Result<Vec<u8>, Errno> {
        let length = dir.len() + 1 + name.len();
        let room = self.room.get().checked_sub(length).ok_or(Errno::TOOBIG)?;
        self.room.set(room);
        let mut path = Vec::with_capacity(length);
        path.extend_from_slice(dir);
        if !dir.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    /// Adds a path and, of a directory, all beneath it.
    fn expand(
        &mut self,
        path: Vec<u8>,
        ino: Ino,
        file_type: FileType,
        paths: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), Errno> {
        let mut todo = vec![(path, ino, file_type)];
        while let Some((path, ino, file_type)) = todo.pop() {
            if file_type == FileType::Directory && self.expanded.insert(ino) {
                let mut full = None;
                self.layers.read_dir(ino, Cookie::DOT_DOT, &mut |entry| {
                    match self.join(&path, entry.name) {
                        Ok(path) => todo.push((path, entry.ino, entry.file_type)),
                        Err(error) => {
                            full = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                    ControlFlow::Continue(())
                })?;
                if let Some(error) = full {
                    return Err(error);
                }
            }
            paths.insert(path);
        }
        Ok(())
    }
}

/// What `name` in `dir` is; nothing where there is no such directory.
fn target(layers: Layers<'_>, dir: Ino, name: Name<'_>) -> Result<Option<(Ino, FileType)>, Errno> {
    match layers.entry(dir, name) {
        Err(Errno::STALE | Errno::NOTDIR) => Ok(None),
        entry => entry,
    }
}

/// What is at `path`, links not followed.
fn find(layers: Layers<'_>, path: &[u8]) -> Result<Option<Attr>, Errno> {
    let mut at = Ino::ROOT;
    for name in path.split(|&byte| byte == b'/') {
        let name = Name::new(name).map_err(|_| Errno::IO)?;
        match target(layers, at, name)? {
            Some((ino, _)) => at = ino,
            None => return Ok(None),
        }
    }
    layers.named_attr(at).map(Some)
}

fn compare(old: Layers<'_>, new: Layers<'_>, path: Vec<u8>) -> Result<Option<Change>, Errno> {
    let (was, is) = if path.is_empty() {
        (Some(old.attr(Ino::ROOT)?), Some(new.attr(Ino::ROOT)?))
    } else {
        (find(old, &path)?, find(new, &path)?)
    };
    let (mut content, mut metadata) = (false, false);
    if let (Some(was), Some(is)) = (&was, &is) {
        let same_type = was.file_type == is.file_type;
        if same_type {
            content = differs(old, new, was, is)?;
            metadata = (was.mode, was.uid, was.gid) != (is.mode, is.uid, is.gid)
                || xattrs(old, was.ino)? != xattrs(new, is.ino)?;
        }
        if same_type && !content && !metadata {
            return Ok(None);
        }
    } else if was.is_none() && is.is_none() {
        return Ok(None);
    }
    Ok(Some(Change {
        path,
        old: was,
        new: is,
        content,
        metadata,
    }))
}

type OwnedXattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn xattrs(layers: Layers<'_>, ino: Ino) -> Result<OwnedXattrs, Errno> {
    let mut all = Vec::new();
    layers.xattrs(ino, &mut |name, value| {
        all.push((name.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    all.sort_unstable();
    Ok(all)
}

/// Whether two things of one type differ in what they hold.
fn differs(old: Layers<'_>, new: Layers<'_>, was: &Attr, is: &Attr) -> Result<bool, Errno> {
    match is.file_type {
        FileType::Regular if was.size != is.size => Ok(true),
        FileType::Regular => {
            let (before, after) = (old.stored(was.ino)?, new.stored(is.ino)?);
            if was.ino == is.ino && same_place(before, after) {
                return Ok(false);
            }
            let before = Bytes::open(old, before, was.ino)?;
            let after = Bytes::open(new, after, is.ino)?;
            Ok(!same_bytes(&before, &after, is.size)?)
        }
        FileType::Symlink => Ok(old.readlink(was.ino)? != new.readlink(is.ino)?),
        FileType::CharDevice | FileType::BlockDevice => Ok(was.rdev != is.rdev),
        FileType::Directory | FileType::Fifo | FileType::Socket => Ok(false),
    }
}

/// Whether both are one and the same part of one file. Places count from the bottom, so they mean
/// the same layer in both states.
fn same_place(before: Stored<'_>, after: Stored<'_>) -> bool {
    match (before, after) {
        (Stored::Hole, Stored::Hole) => true,
        (Stored::Frozen { place: a, .. }, Stored::Frozen { place: b, .. }) => a == b,
        (
            Stored::Packed {
                file: a,
                offset: from,
                ..
            },
            Stored::Packed {
                file: b,
                offset: to,
                ..
            },
        ) => std::ptr::eq(a, b) && from == to,
        _ => false,
    }
}

/// The bytes of a content, which end with zeros.
enum Bytes<'a> {
    None,
    Packed(&'a File, u64, u64),
    Own(File, u64),
}

impl<'a> Bytes<'a> {
    fn open(layers: Layers<'a>, stored: Stored<'a>, ino: Ino) -> Result<Self, Errno> {
        Ok(match stored {
            Stored::Hole | Stored::Top => Self::None,
            Stored::Packed { file, offset, len } => Self::Packed(file, offset, len),
            Stored::Frozen { place, len } => {
                let layer = layers.frozen.get(place).ok_or(Errno::IO)?;
                Self::Own(open_content(layer, ino)?, len)
            }
        })
    }

    fn parts(&self) -> Option<(&File, u64, u64)> {
        match self {
            Self::None => None,
            Self::Packed(file, offset, len) => Some((file, *offset, *len)),
            Self::Own(file, len) => Some((file, 0, *len)),
        }
    }

    /// Where the next bytes are that need not be zeros.
    fn next_data(&self, at: u64) -> Option<u64> {
        let (file, offset, len) = self.parts()?;
        if at >= len {
            return None;
        }
        match seek(file, SeekFrom::Data(offset.checked_add(at)?)) {
            Ok(data) => Some(data.saturating_sub(offset).max(at)).filter(|&data| data < len),
            Err(Errno::NXIO) => None,
            Err(_) => Some(at),
        }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        buffer.fill(0);
        let Some((file, offset, len)) = self.parts() else {
            return Ok(());
        };
        let want =
            usize::try_from(len.saturating_sub(at)).map_or(buffer.len(), |n| n.min(buffer.len()));
        let mut done = 0;
        while done < want {
            match file.read_at(&mut buffer[done..want], offset + at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
        Ok(())
    }
}

/// Whether the first `size` bytes of both are the same; holes of both are passed over.
fn same_bytes(a: &Bytes<'_>, b: &Bytes<'_>, size: u64) -> Result<bool, Errno> {
    let mut buffers = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while let Some(data) = [a.next_data(at), b.next_data(at)]
        .into_iter()
        .flatten()
        .min()
    {
        if data >= size {
            break;
        }
        let n = usize::try_from(size - data).map_or(CHUNK, |n| n.min(CHUNK));
        a.read(data, &mut buffers.0[..n])?;
        b.read(data, &mut buffers.1[..n])?;
        if buffers.0[..n] != buffers.1[..n] {
            return Ok(false);
        }
        at = data + n as u64;
    }
    Ok(true)
}
