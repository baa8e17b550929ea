//! The layered root: a guest's `/` as a stack of layers, served over FUSE.

pub mod fuse;
pub mod pack;
pub mod tree;
