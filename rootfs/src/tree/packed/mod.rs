//! Packed layers: immutable, an index that is searched where it lies in mapped memory and a file
//! of contents. [`format`](self) says what is where, `layer` reads one, `stack` several.

pub(crate) mod format;
mod layer;
mod map;
mod stack;

pub(crate) use stack::{Found, PackedStack};
