//! Tests of the tree as a whole, over real files.

mod attributes;
mod crash;
mod damage;
mod data;
mod freeze;
mod model;
mod names;
mod packed;
mod property;
mod reader;
