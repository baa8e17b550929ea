//! `/dev/fuse`: serving a tree to the host's own kernel.
