//! The stories: recipe pages that are played, step by step, against real guests.
//!
//! A story is a folder of `recipes/`: a page, `README.md`, and a `fixture/` that it starts from. The
//! page is all there is. What a reader sees in its blocks is what is called and what is expected, so
//! page and smoke test cannot drift apart.
//!
//! - [`page`] takes the steps out of a page; [`step`] is what a block may say.
//! - [`expect`] holds what came against what is expected.
//! - [`surface`] is how a step reaches the product: an MCP client that talks to `pyro mcp serve`, the
//!   command line, or the SDK. The same pages go through all three.
//! - [`play`] plays one, in a state folder of its own; [`report`] says how it goes.

pub mod expect;
pub mod page;
pub mod play;
pub mod report;
pub mod step;
pub mod surface;

/// A story: its folder under `recipes/`, and the profile of tools that it needs no more than.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Story {
    /// Its folder.
    pub name: &'static str,
    /// The profile.
    pub profile: &'static str,
}

/// All of them, in the order in which they are read.
pub const STORIES: [Story; 5] = [
    Story {
        name: "cold-start-validation",
        profile: "workspace-full",
    },
    Story {
        name: "repro-fix-loop",
        profile: "workspace-core",
    },
    Story {
        name: "parallel-workspaces",
        profile: "workspace-core",
    },
    Story {
        name: "untrusted-inspection",
        profile: "workspace-core",
    },
    Story {
        name: "review-eval",
        profile: "workspace-full",
    },
];

#[cfg(test)]
mod tests;
