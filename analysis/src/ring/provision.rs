//! How much more than its share the busiest needs: over-provisioning.
//!
//! Daniel E. Eisenbud et al., *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI
//! 2016, §5.3 and figure 11: each method fills a table of 65,537 and one of 655,373 entries for
//! 1,000 backends, and the one with the most entries says how much capacity must be in reserve.
//! "Karger" has 1,000 views; what a view is, and how a ring fills a table, the paper leaves open.
//! So several readings of it are worked out.
//!
//! ```text
//! tables  tables filled by chance, and in turns by who comes first
//! page    files, chart and words
//! ```

mod page;
mod tables;

use std::cell::OnceCell;

use balancer::routing::placement::{
    MaglevConfig, Placement, PlacementConfig, RingConfig, TableSize,
};

use crate::experiment::{Problems, Setup};
use crate::ring::fleet::{Runs, built, seats, secret, side_by_side};
use crate::stats::SIGMAS;
use tables::{Filled, by_chance, first_come};

/// A way to fill a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// The balancer's `maglev`.
    Maglev,
    /// The balancer's `rendezvous`, the numbers of the entries as keys.
    Rendezvous,
    /// Every entry by chance: an ideal hash.
    Chance,
    /// The balancer's `ring`, 1,000 points a seat: no table, exact shares.
    RingShares,
    /// The same, with the numbers of the entries as keys.
    RingTable,
    /// The balancer's `ring` with as many points as there are entries in all: no table.
    RingOfEntries,
    /// Points on the entries themselves, who comes first has it.
    FirstCome,
}

/// What is drawn with one number.
struct Draw {
    backends: u32,
    number: u32,
    /// That of 1,000 points a seat, once it is built: it takes longest.
    ring: OnceCell<Placement>,
}

/// What the tables of a size came to.
struct Provision {
    method: Method,
    entries: u32,
    over: Runs,
    under: Runs,
}

/// What the paper says of both sizes.
#[derive(Clone, Copy, Debug)]
struct Said {
    whose: &'static str,
    over: [f64; 2],
}

const BACKENDS: u32 = 1_000;
/// The paper's number of views.
const VIEWS: u32 = 1_000;
const SIZES: [u32; 2] = [65_537, 655_373];

/// Eisenbud et al., §5.3; of Maglev's own it is said that it is almost perfect.
const KARGER: Said = Said { whose: "Karger", over: [0.297, 0.103] };
const RENDEZVOUS: Said = Said { whose: "Rendezvous", over: [0.495, 0.123] };

/// Works it out, writes `ring-provision.*`.
///
/// # Errors
/// When a placement cannot be built or a file cannot be written.
pub(super) fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let mut all = Vec::new();
    for methods in Method::ALL {
        all.extend(Provision::of(methods)?);
    }
    page::write(setup, &all)?;
    Ok(problems(&all))
}

/// The paper's tables must be such as ours by the same method; `maglev`'s are worked out, and the
/// balancer's hash must do as well as chance.
fn problems(all: &[Provision]) -> Problems {
    let mut problems: Problems = all.iter().filter_map(Provision::problem).collect();
    for entries in SIZES {
        let of = |method| all.iter().find(|it| it.method == method && it.entries == entries);
        let (Some(ours), Some(chance)) = (of(Method::Rendezvous), of(Method::Chance)) else {
            continue;
        };
        let off = ours.over.mean() - chance.over.mean();
        let tolerance = SIGMAS * chance.over.deviation() / (ours.over.count() as f64).sqrt();
        if off.abs() > tolerance {
            problems.push(format!(
                "rendezvous with {entries} entries: over-provisioning is {off:+.4} off that of \
                 chance (allowed: {tolerance:.4})"
            ));
        }
    }
    problems
}

// === impl Method ===

impl Method {
    /// In the order of the tables; those beside each other look at the same rings.
    const ALL: [&[Self]; 6] = [
        &[Self::Maglev],
        &[Self::Rendezvous],
        &[Self::Chance],
        &[Self::RingOfEntries],
        &[Self::RingShares, Self::RingTable],
        &[Self::FirstCome],
    ];

    /// Tables of each size, as many as are filled in some seconds; not more of the large one.
    fn runs(self) -> [u32; 2] {
        match self {
            Method::Maglev => [4, 4],
            Method::Rendezvous => [8, 2],
            Method::Chance => [1_000, 200],
            Method::RingOfEntries => [200, 100],
            Method::RingShares | Method::RingTable => [100, 100],
            Method::FirstCome => [300, 100],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Method::Maglev => "`maglev`",
            Method::Rendezvous => "`rendezvous`, entries as keys",
            Method::Chance => "every entry by chance",
            Method::RingOfEntries => "`ring`, as many points as entries",
            Method::RingShares => "`ring`, 1,000 points a seat",
            Method::RingTable => "the same, entries as keys",
            Method::FirstCome => "1,000 points each on the entries, first come",
        }
    }

    /// What the paper's figure may be of this method.
    fn said(self) -> Option<Said> {
        match self {
            Method::Maglev => None,
            Method::Rendezvous | Method::Chance => Some(RENDEZVOUS),
            Method::RingShares | Method::RingTable | Method::RingOfEntries | Method::FirstCome => {
                Some(KARGER)
            }
        }
    }
}

// === impl Draw ===

impl Draw {
    fn new(backends: u32, number: u32) -> Self {
        Self { backends, number, ring: OnceCell::new() }
    }

    /// Fills a table of so many entries.
    fn filled(&self, method: Method, entries: u32) -> anyhow::Result<Filled> {
        let &Self { backends, number, .. } = self;
        Ok(match method {
            Method::Maglev => {
                let table_size = TableSize::new(entries)?;
                let maglev = MaglevConfig { table_size, secret: secret(number) };
                Filled::of(self.placed(PlacementConfig::Maglev(maglev))?.shares())
            }
            Method::Rendezvous => {
                let rendezvous = PlacementConfig::Rendezvous(secret(number));
                of_keys(&self.placed(rendezvous)?, entries)
            }
            Method::Chance => Filled::of(by_chance(entries, backends, number.into())),
            Method::RingOfEntries => {
                let points = (entries + backends / 2) / backends;
                Filled::of(self.placed(ring(points, number))?.shares())
            }
            Method::RingShares => Filled::of(self.ring()?.shares()),
            Method::RingTable => of_keys(self.ring()?, entries),
            Method::FirstCome => Filled::of(first_come(entries, backends, VIEWS, number.into())),
        })
    }

    fn placed(&self, config: PlacementConfig) -> anyhow::Result<Placement> {
        built(&config, &seats(self.backends))
    }

    fn ring(&self) -> anyhow::Result<&Placement> {
        if let Some(ring) = self.ring.get() {
            return Ok(ring);
        }
        let ring = self.placed(ring(VIEWS, self.number))?;
        Ok(self.ring.get_or_init(|| ring))
    }
}

fn ring(virtual_nodes: u32, number: u32) -> PlacementConfig {
    PlacementConfig::Ring(RingConfig { virtual_nodes, secret: secret(number) })
}

/// The numbers of the entries, looked up.
fn of_keys(placement: &Placement, entries: u32) -> Filled {
    let mut counts = vec![0.0; placement.members().len()];
    for entry in 0..entries {
        if let Some(owner) = placement.owners(entry.to_string().as_bytes()).next() {
            counts[owner] += 1.0;
        }
    }
    Filled::of(counts)
}

// === impl Said ===

impl Said {
    fn of(&self, entries: u32) -> f64 {
        self.over[usize::from(entries > SIZES[0])]
    }
}

// === impl Provision ===

impl Provision {
    /// Both sizes of methods that fill as many tables.
    fn of(methods: &[Method]) -> anyhow::Result<Vec<Self>> {
        let [small, large] = methods.first().map_or([0, 0], |method| method.runs());
        let tables = || methods.iter().flat_map(|method| SIZES.map(|entries| (*method, entries)));
        let found = side_by_side(small, |number| {
            let draw = Draw::new(BACKENDS, number);
            let is_filled = |entries| entries == SIZES[0] || number < large;
            let fill = |(method, entries)| {
                is_filled(entries).then(|| draw.filled(method, entries)).transpose()
            };
            tables().map(fill).collect::<anyhow::Result<Vec<Option<Filled>>>>()
        })?;
        let provision = |(table, (method, entries)): (usize, (Method, u32))| {
            let filled = || found.iter().filter_map(|run| run[table]);
            Self {
                method,
                entries,
                over: Runs::of(filled().map(|filled| filled.over)),
                under: Runs::of(filled().map(|filled| filled.under)),
            }
        };
        Ok(tables().enumerate().map(provision).collect())
    }

    /// What the paper says of tables filled like this.
    fn said(&self) -> Option<f64> {
        self.method.said().map(|said| said.of(self.entries))
    }

    /// Whether the paper's is like most of these: between the first and the last hundredth of
    /// them, give or take half a unit of its last digit. `None` where there are too few to say.
    fn agrees(&self) -> Option<bool> {
        let said = self.said()?;
        let (least, most) = (self.over.at(0.01) - 0.0005, self.over.at(0.99) + 0.0005);
        (self.over.count() >= 100).then(|| (least..=most).contains(&said))
    }

    /// What is no chance must be as it is worked out, and the paper's must be like ours where the
    /// methods are alike. That a ring of another make is not like the paper's is none.
    fn problem(&self) -> Option<String> {
        match self.method {
            Method::Maglev => {
                let even = f64::from(self.entries) / f64::from(BACKENDS);
                let exact = even.ceil() / even - 1.0;
                let off = [0.0, 1.0].map(|part| (self.over.at(part) - exact).abs());
                off.iter().any(|off| *off > 1e-9).then(|| {
                    format!(
                        "maglev with {} entries: over-provisioning is {} and should be {exact}",
                        self.entries,
                        self.over.mean()
                    )
                })
            }
            Method::Chance | Method::FirstCome => {
                let said = self.method.said()?;
                (self.agrees() == Some(false)).then(|| {
                    format!(
                        "{} of the paper with {} entries: {:.1} % is not within {:.1} to {:.1} %",
                        said.whose,
                        self.entries,
                        100.0 * said.of(self.entries),
                        100.0 * self.over.at(0.01),
                        100.0 * self.over.at(0.99),
                    )
                })
            }
            Method::Rendezvous | Method::RingShares | Method::RingTable | Method::RingOfEntries => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
