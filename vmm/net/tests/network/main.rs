//! The process as its parent, its guest and the world see it. What needs namespaces is ignored where
//! there are none.

#![allow(clippy::unwrap_used, reason = "a failing step fails the test")]

mod hostile;
mod lab;
mod published;
mod tcp;
mod udp;
