//! The distribution's own bootstrap tool, run so that nothing of it outlives a pull.
//!
//! `mmdebstrap` makes the root from signed packages of the machine's own mirror ([`mirror`]). It
//! runs inside namespaces of its own ([`namespace`]): its mounts are nobody else's, root is only
//! root there when the user is not, and when the pull dies, however it dies, the kernel ends
//! every process of it. What comes out is one tar stream, and a directory with the kernel's
//! package and facts about the sources (`command`, `run`). What it says when it fails is turned
//! into an error with a remedy (`failure`).

pub(crate) mod command;
pub(crate) mod facts;
pub(crate) mod failure;
pub mod mirror;
pub mod namespace;
pub(crate) mod run;
pub(crate) mod talk;
