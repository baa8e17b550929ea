//! A bounded number of open files, the least recently used closed first.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;

use rustix::io::Errno;

/// How many files one cache keeps open.
const OPEN_MAX: usize = 128;

/// Open files by key.
#[derive(Debug)]
pub(crate) struct FileCache<K> {
    open: HashMap<K, Open>,
    clock: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    last_use: u64,
}

impl<K: Copy + Eq + Hash> FileCache<K> {
    /// None open yet.
    pub(crate) fn new() -> Self {
        Self {
            open: HashMap::new(),
            clock: 0,
        }
    }

    /// The file of `key`, opened by `open` when it is not.
    pub(crate) fn get_or_open(
        &mut self,
        key: K,
        open: impl FnOnce() -> Result<File, Errno>,
    ) -> Result<&File, Errno> {
        let file = match self.open.remove(&key) {
            Some(open) => open.file,
            None => open()?,
        };
        Ok(self.insert(key, file))
    }

    /// Keeps `file` open as that of `key`.
    pub(crate) fn insert(&mut self, key: K, file: File) -> &File {
        if self.open.len() >= OPEN_MAX
            && let Some((&oldest, _)) = self.open.iter().min_by_key(|(_, open)| open.last_use)
        {
            self.open.remove(&oldest);
        }
        self.clock += 1;
        let last_use = self.clock;
        let open = Open { file, last_use };
        &self.open.entry(key).insert_entry(open).into_mut().file
    }

    /// Whether the file of `key` is open.
    pub(crate) fn is_open(&self, key: K) -> bool {
        self.open.contains_key(&key)
    }

    /// Closes the file of `key`.
    pub(crate) fn remove(&mut self, key: K) {
        self.open.remove(&key);
    }
}
