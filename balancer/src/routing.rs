//! Where a request goes. Pure: no I/O, no clock, no global randomness; time and RNG are arguments.

pub mod budget;
pub mod key;
pub mod matching;
pub mod placement;
pub mod policy;
pub mod repeat;
pub mod table;
pub mod turns;
