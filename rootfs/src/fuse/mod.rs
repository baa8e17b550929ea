//! The FUSE server: kernel protocol on one side, [`crate::tree`] on the other.
pub mod transport;
