//! What outlives the process, and how much room is left for it.

use rustix::io::Errno;

use super::{Ino, NAME_MAX, StatFs, Tree};

/// The unit of [`StatFs`].
const BLOCK: u32 = 4096;

impl Tree {
    /// Makes the content of `ino` durable, and all metadata: a file is of no use without the
    /// directories above it. `data_only` changes nothing but the promise.
    ///
    /// # Errors
    /// `STALE`, and the host's own: then nothing is known of what is durable. When it was the
    /// content, every later sync fails as well until the file is emptied or removed: what the host
    /// could not write it does not try again. All else is tried again.
    pub fn fsync(&mut self, ino: Ino, data_only: bool) -> Result<(), Errno> {
        let _ = data_only;
        self.view(ino)?;
        self.writable.sync_one(ino)
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// Those of [`Tree::fsync`], for any file.
    pub fn sync(&mut self) -> Result<(), Errno> {
        self.writable.sync_all()
    }

    /// Hands everything to the host's kernel, so that it survives the end of this process, and
    /// does not wait for its disk.
    ///
    /// # Errors
    /// The host's own; what could not be written stays in memory and is tried again.
    pub fn flush(&mut self) -> Result<(), Errno> {
        self.writable.flush()
    }

    /// Sizes of the file system: what the quota leaves, or the host if that is less.
    ///
    /// # Errors
    /// The host's own.
    pub fn stat_fs(&self) -> Result<StatFs, Errno> {
        let block = u64::from(BLOCK);
        let host = self.writable.host_stat()?;
        let host_free = host.f_bavail.saturating_mul(host.f_frsize);
        let counts = self.counts();
        let free = self.quota.bytes.saturating_sub(counts.bytes).min(host_free) / block;
        let files_free = self.quota.inodes.saturating_sub(counts.inodes);
        Ok(StatFs {
            block_size: BLOCK,
            blocks: (counts.bytes / block).saturating_add(free),
            blocks_free: free,
            blocks_available: free,
            files: self
                .packed
                .inode_count()
                .saturating_add(counts.inodes + files_free),
            files_free,
            name_max: NAME_MAX as u32,
        })
    }
}
