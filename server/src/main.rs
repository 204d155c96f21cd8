//! Command line of the demo replica.
fn main() {}
