//! One module a command. Each does its work through the engine and returns the exit status.

pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod run;
