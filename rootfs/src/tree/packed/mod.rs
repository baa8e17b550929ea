//! Packed layers: immutable, memory-mapped.

pub(crate) mod format;
