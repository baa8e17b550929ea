//! Environments: what a guest boots from, where it comes from, and where it is kept.
//!
//! An *environment* (`debian:12`) is a [`Recipe`] in a [`Catalogue`] that is data, not code.
//! *Pulling* it runs the distribution's own bootstrap tool against the machine's own Debian
//! mirror, packs the resulting tree into an immutable layer, takes the suite's cloud kernel apart
//! (`vmlinux`, the few modules a guest needs), and publishes all of it in the [`Store`].
//!
//! The store is content-addressed and crash-safe. An artefact is a read-only file named by its
//! SHA-256; an environment is a [`Manifest`] that names artefacts, and it appears by one `rename`
//! after everything that it names is durable. So a pull that is killed at any moment leaves the
//! store as it was, and an install counts only when its manifest and every artefact verify.
//! [`Store::open`] hands out open descriptors that were verified, never paths.
//!
//! | where | what |
//! | --- | --- |
//! | [`catalogue`] | names, recipes, the catalogue's version |
//! | [`store`] | artefacts, stamps, manifests, locks, work directories, prune |
//! | [`mod@pull`] | the steps of a pull, progress, what may be reused when an artefact is damaged |
//! | [`bootstrap`] | the machine's mirror, `mmdebstrap`, what its failures mean |
//! | [`kernel`] | kernel package, bzImage, ELF and its PVH note, module order |
//! | [`initramfs`] | the newc archive writer, and the modules' initramfs |
//!
//! What this crate may not do: run anything that came out of a package outside the bootstrap's
//! own namespaces, trust a file of the store that was not verified, or write to a terminal.

pub mod bootstrap;
pub mod catalogue;
mod error;
pub mod initramfs;
pub mod kernel;
pub mod pull;
pub mod store;

pub use catalogue::{Catalogue, EnvironmentName, Recipe};
pub use error::Error;
pub use pull::{Outcome, Progress, Quiet, pull};
pub use store::manifest::Manifest;
pub use store::{Installed, Layer, State, Store, Summary};
