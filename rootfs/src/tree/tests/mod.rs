//! Tests of the tree as a whole, over real files.

mod attributes;
mod crash;
mod damage;
mod data;
mod model;
mod names;
mod property;
