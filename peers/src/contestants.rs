//! Those that are compared, each behind the same two calls. Everyone gets nodes in the form that
//! costs it least, all keys as they are, and as many points, probes or entries as the others of its
//! kind.

mod others;
mod ours;
mod rings;

use crate::fleet::Fleet;

/// One of them.
pub trait Contestant {
    /// How the tables call it.
    fn name(&self) -> &'static str;

    /// What it is.
    fn kind(&self) -> Kind;

    /// Places the fleet; `None` where it cannot, or needs more memory than a machine has.
    fn build<'a>(&self, fleet: &'a Fleet) -> Option<Box<dyn Placed + 'a>>;
}

/// A fleet in its place.
pub trait Placed {
    /// The owner of each key, by its number, one after another.
    fn look_up(&self, keys: &[String], each: &mut dyn FnMut(u32));

    /// The sum of all owners' numbers: the same loop with nothing between two look-ups.
    fn sum(&self, keys: &[String]) -> u64;
}

/// What finds the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The next of many points on a circle.
    Ring,
    /// The nearest of one point each, from several places.
    Probes,
    /// An entry of a table.
    Table,
    /// The highest of all nodes' scores.
    Scores,
    /// Arithmetic on the number of nodes.
    Jump,
    /// Arithmetic on the nodes that left.
    Anchor,
}

/// A fleet in its place, and how an owner is asked for.
struct ByCall<P, F> {
    placed: P,
    owner: F,
}

/// A contestant made of a function.
struct ByBuild<B> {
    name: &'static str,
    kind: Kind,
    build: B,
}

/// All of them, ours first.
pub fn all() -> Vec<Box<dyn Contestant>> {
    [ours::all(), rings::all(), others::all()].into_iter().flatten().collect()
}

// === impl Kind ===

impl Kind {
    /// How the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ring => "ring",
            Kind::Probes => "probes",
            Kind::Table => "table",
            Kind::Scores => "scores",
            Kind::Jump => "jump",
            Kind::Anchor => "anchor",
        }
    }
}

// === impl ByCall ===

impl<P, F: Fn(&P, &str) -> u32> Placed for ByCall<P, F> {
    fn look_up(&self, keys: &[String], each: &mut dyn FnMut(u32)) {
        keys.iter().for_each(|key| each((self.owner)(&self.placed, key)));
    }

    fn sum(&self, keys: &[String]) -> u64 {
        keys.iter().map(|key| u64::from((self.owner)(&self.placed, key))).sum()
    }
}

/// Boxes a placed fleet, and how an owner is asked for.
fn placed<'a, P: 'a, F: Fn(&P, &str) -> u32 + 'a>(placed: P, owner: F) -> Box<dyn Placed + 'a> {
    Box::new(ByCall { placed, owner })
}

// === impl ByBuild ===

impl<B: for<'a> Fn(&'a Fleet) -> Option<Box<dyn Placed + 'a>>> Contestant for ByBuild<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn build<'a>(&self, fleet: &'a Fleet) -> Option<Box<dyn Placed + 'a>> {
        (self.build)(fleet)
    }
}

/// Boxes a contestant.
fn contestant<B>(name: &'static str, kind: Kind, build: B) -> Box<dyn Contestant>
where
    B: for<'a> Fn(&'a Fleet) -> Option<Box<dyn Placed + 'a>> + 'static,
{
    Box::new(ByBuild { name, kind, build })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Length, keys};

    #[test]
    fn every_contestant_gives_every_node_its_keys() {
        let (fleet, keys) = (Fleet::new(10), keys(Length::Short));
        let mut names = Vec::new();
        for contestant in all() {
            let name = contestant.name();
            let built = contestant.build(&fleet).expect(name);
            let (mut counts, mut sum) = ([0_u32; 10], 0);
            built.look_up(&keys, &mut |owner| {
                counts[owner as usize] += 1;
                sum += u64::from(owner);
            });
            assert_eq!(sum, built.sum(&keys), "{name}");
            let share = keys.len() as f64 / 10.0;
            let even = counts.iter().all(|count| (0.4..1.8).contains(&(f64::from(*count) / share)));
            assert!(even, "{name}: {counts:?}");
            assert!(!names.contains(&name), "{name} is there twice");
            names.push(name);
        }
    }
}
