//! One module a command. Each does its work through the daemon or the engine and returns the exit status.

pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod generate;
pub(crate) mod mcp;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod workspace;
