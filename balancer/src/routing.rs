//! Where a request goes. Pure: no I/O, no clock, no global randomness; time and RNG are arguments.

pub mod adaptive;
pub mod bounded;
pub mod budget;
pub mod choice;
pub mod key;
pub mod matching;
pub mod placement;
pub mod policy;
pub mod pool;
pub mod quarantine;
pub mod repeat;
pub mod table;
pub mod turns;
