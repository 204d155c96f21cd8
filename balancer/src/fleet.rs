//! What should run. Pure: no I/O, no clock, no global randomness; time and RNG are arguments.
//!
//! [`roster`] holds what was asked for and what is known to run; [`plan`] compares the two;
//! the supervisor outside feeds the one and carries out the other. [`health`] is what is known of
//! one replica, [`reason`] why it is not ready, [`release`] what it runs, [`event`] what happened to
//! it, [`overload`] which of many have too much to do, [`scale`] how many the load needs, [`listed`]
//! how replicas outside the balancer are written.

pub mod backoff;
pub mod change;
pub mod event;
pub mod health;
pub mod listed;
pub mod members;
pub mod observed;
pub mod overload;
pub mod plan;
pub mod reason;
pub mod release;
pub mod roster;
pub mod scale;
pub mod seat;
