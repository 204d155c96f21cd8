//! Load generator, experiments and charts.
fn main() {}
