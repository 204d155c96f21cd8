//! The balancer's placements beside other crates that do the same.
//!
//! ```text
//! main         `peers`: times look-ups and builds, in turns, and writes the tables
//! memory       `memory`: how much one of them has allocated, in a program that counts it
//! fleet        what they place
//! contestants  one small adaptor each, so that all do the same work
//! turns        a round lets every one of them do it once
//! ```

pub mod contestants;
pub mod fleet;
pub mod turns;
