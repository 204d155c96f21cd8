//! Command line of the balancer.
fn main() {}
