//! Placeholder for minutes.
fn main() {}
