//! The demo replica from the outside: over real HTTP, in this process and as the real program.

#![expect(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but sees no helpers here")]

mod client;
mod endpoints;
mod journal;
mod program;
mod queue;
mod replica;
mod stop;
