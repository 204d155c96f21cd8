//! The demo replica.
