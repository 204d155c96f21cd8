//! `memory NAME COUNT`: what the contestant of that name has allocated once it has placed so many
//! nodes, in bytes, and the most that it had meanwhile. A program of its own: counting costs time.

use std::alloc::System;

use anyhow::Context as _;
use cap::Cap;
use clap::Parser;
use peers::contestants;
use peers::fleet::Fleet;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

#[derive(Parser)]
struct Arguments {
    name: String,
    count: u32,
}

fn main() -> anyhow::Result<()> {
    let Arguments { name, count } = Arguments::parse();
    let fleet = Fleet::new(count);
    let contestants = contestants::all();
    let contestant =
        contestants.iter().find(|it| it.name() == name).context("nobody has that name")?;
    let before = ALLOCATOR.allocated();
    let placed = contestant.build(&fleet);
    let held = ALLOCATOR.allocated().saturating_sub(before);
    let most = ALLOCATOR.max_allocated().saturating_sub(before);
    match placed {
        Some(_) => println!("{held} {most}"),
        None => println!("-"),
    }
    Ok(())
}
