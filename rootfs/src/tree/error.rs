//! Why a stack does not open, and why it does not freeze.

use std::io;

/// Why a stack does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The stack has no immutable layer, so it has no root directory.
    #[error("the stack has no layers")]
    NoLayers,
    /// A layer's index is not one, or damaged, or does not fit its data or the layers beneath.
    #[error("layer {layer} is damaged: {reason}")]
    DamagedLayer {
        /// Which layer, the lowest is 0.
        layer: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The index has a format of another version.
    #[error("layer {layer} has format version {found}, this program reads version {expected}")]
    LayerVersion {
        /// Which layer, the lowest is 0.
        layer: usize,
        /// The version it says.
        found: u32,
        /// The version that is read here.
        expected: u32,
    },
    /// A frozen or the writable layer was made over other layers.
    #[error("a layer belongs on top of other layers")]
    OtherStack,
    /// The journal has a format of another version.
    #[error("a layer's journal has format version {found}, this program reads version {expected}")]
    JournalVersion {
        /// The version it says.
        found: u32,
        /// The version that is read here.
        expected: u32,
    },
    /// The journal is damaged where it had been synced; dropping its end would lose writes.
    #[error("a layer's journal is damaged at offset {offset}: {reason}")]
    DamagedJournal {
        /// Where, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Another process has the writable layer open, or writes a frozen one.
    #[error("a layer is in use by another process")]
    InUse,
    /// A host system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// Why a stack does not freeze. It goes on as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// What was written could not be made to last; see [`Tree::fsync`](super::Tree::fsync) for
    /// what helps.
    #[error("cannot sync the layer to be frozen")]
    Sync(#[source] rustix::io::Errno),
    /// The new writable layer does not open.
    #[error("cannot begin the new writable layer")]
    Begin(#[source] OpenError),
    /// The directory for the new writable layer has one already.
    #[error("the directory for the new writable layer is not empty")]
    NotEmpty,
}
