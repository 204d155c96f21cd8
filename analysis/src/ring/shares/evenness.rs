//! How even the shares of every placement are, by the number of seats.

use balancer::routing::placement::TableSize;

use super::Fleets;
use super::kind::Kind;
use crate::experiment::Problems;
use crate::ring::fleet::side_by_side;
use crate::stats::SIGMAS;

/// What fleets of so many seats came to.
#[derive(Clone, Debug)]
pub(super) struct Evenness {
    pub(super) kind: Kind,
    pub(super) seats: u32,
    pub(super) fleets: Fleets,
}

/// A figure that others are known by, of 100 servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) whose: &'static str,
    pub(super) kind: Kind,
    pub(super) max: f64,
}

/// What keys that were looked up came to, where shares are those of an ideal hash.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    pub(super) fleets: Fleets,
    /// How many of its standard deviations χ² of all fleets is above its mean.
    pub(super) off: f64,
}

/// Fleets of each kind and number of seats.
pub(super) const FLEETS: u32 = 200;
/// Numbers of seats.
pub(super) const SEATS: [u32; 4] = [3, 10, 100, 1_000];
/// The most seats, of which keys are measured.
pub(super) const MOST: u32 = 1_000;
/// Keys that are looked up in each of these fleets.
pub(super) const KEYS: u32 = 100_000;
pub(super) const MEASURED_FLEETS: u32 = 4;

/// Busiest over average, of 100 servers of weight 1.
pub(super) const KNOWN: [Known; 2] = [
    Known { whose: "HAProxy", kind: Kind::RingOfSixteen, max: 1.77 },
    Known { whose: "nginx", kind: Kind::Ketama, max: 1.21 },
];

/// Half a unit of their last digit.
const ROUNDED: f64 = 0.005;

/// In the order of the tables.
const KINDS: [Kind; 7] = [
    Kind::Maglev,
    Kind::Rendezvous,
    Kind::Jump,
    Kind::Ring,
    Kind::Ketama,
    Kind::RingOfSixteen,
    Kind::Classic,
];

/// All kinds with all numbers of seats that they have room for, and their largest.
///
/// # Errors
/// When a placement cannot be built.
pub(super) fn study() -> anyhow::Result<Vec<Evenness>> {
    let mut all = Vec::new();
    for kind in KINDS {
        let mut seats = SEATS.map(|seats| kind.seats(seats)).to_vec();
        seats.dedup();
        for seats in seats {
            all.push(Evenness::of(kind, seats, FLEETS)?);
        }
    }
    Ok(all)
}

/// What others are known by must be what a fleet of ours can have: it lies between the first and
/// the last hundredth of them, but for its rounding.
pub(super) fn known_problems(all: &[Evenness]) -> Problems {
    let missed = |known: &Known| {
        let ours = all.iter().find(|it| it.kind == known.kind && it.seats == 100)?;
        let (least, most) = (ours.fleets.max.at(0.01), ours.fleets.max.at(0.99));
        let tolerated = least - ROUNDED..=most + ROUNDED;
        (!tolerated.contains(&known.max)).then(|| {
            format!(
                "{}'s busiest has {} times the average, and that of {} {least:.3} to {most:.3}",
                known.whose,
                known.max,
                known.kind.name()
            )
        })
    };
    KNOWN.iter().filter_map(missed).collect()
}

// === impl Evenness ===

impl Evenness {
    fn of(kind: Kind, seats: u32, fleets: u32) -> anyhow::Result<Self> {
        let fleets = if kind == Kind::Classic { 1 } else { fleets };
        let found = side_by_side(fleets, |number| Ok(kind.placed(seats, number)?.shares()))?;
        Ok(Self { kind, seats, fleets: Fleets::of(&found) })
    }

    /// What is no chance must be what it is by its definition: `maglev`'s turns leave nobody more
    /// than one entry ahead, and the other two are those of an ideal hash.
    pub(super) fn problem(&self) -> Option<String> {
        let exact = match self.kind {
            Kind::Maglev => {
                let entries = f64::from(TableSize::default().get());
                let even = entries / f64::from(self.seats);
                even.ceil() / even
            }
            Kind::Rendezvous | Kind::Jump => 1.0,
            Kind::Ring | Kind::RingOfSixteen | Kind::Ketama | Kind::LargeMaglev | Kind::Classic => {
                return None;
            }
        };
        let off = [0.0, 1.0].map(|part| (self.fleets.max.at(part) - exact).abs());
        off.iter().any(|off| *off > 1e-9).then(|| {
            format!(
                "{} with {} seats: the busiest has {} of an even share, and should have {exact}",
                self.kind.name(),
                self.seats,
                self.fleets.max.mean()
            )
        })
    }
}

// === impl Measured ===

impl Measured {
    /// Looks the numbers from 0 on up in fleets of a thousand seats.
    ///
    /// # Errors
    /// When a placement cannot be built.
    pub(super) fn of(kind: Kind, keys: u32) -> anyhow::Result<Self> {
        let found = side_by_side(MEASURED_FLEETS, |number| {
            let placement = kind.placed(MOST, number)?;
            let mut counts = vec![0.0; MOST as usize];
            for key in 0..keys {
                if let Some(owner) = placement.owners(key.to_string().as_bytes()).next() {
                    counts[owner] += 1.0 / f64::from(keys);
                }
            }
            Ok(counts)
        })?;
        let fleets = Fleets::of(&found);
        // χ² = Σ (count − even)² / even, which is keys times the squared relative deviation.
        let of_one = fleets.deviation.map(|deviation| f64::from(keys) * deviation.powi(2));
        let free = f64::from(MOST - 1);
        let off = (of_one.mean() - free) / (2.0 * free / f64::from(MEASURED_FLEETS)).sqrt();
        Ok(Self { kind, fleets, off })
    }

    /// What chance alone makes of the standard deviation.
    pub(super) fn by_chance() -> f64 {
        (f64::from(MOST - 1) / f64::from(KEYS)).sqrt()
    }

    /// A hash that is as good as an ideal one.
    pub(super) fn problem(&self) -> Option<String> {
        (self.off.abs() > SIGMAS).then(|| {
            format!(
                "{}: χ² of its keys is {:+.1} standard deviations off",
                self.kind.name(),
                self.off
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_even_by_its_definition_is() {
        for (kind, max) in [(Kind::Maglev, 656.0 / 655.37), (Kind::Jump, 1.0)] {
            let found = Evenness::of(kind, 100, 3).unwrap();
            assert_eq!(found.problem(), None);
            assert!(
                (found.fleets.max.mean() - max).abs() < 1e-9 && found.fleets.max.deviation() < 1e-9
            );
        }
        let ring = Evenness::of(Kind::Ring, 100, 3).unwrap();
        let wrong = Evenness { kind: Kind::Jump, ..ring };
        assert!(wrong.problem().is_some());
    }

    #[test]
    fn classic_has_one_fleet_with_the_shares_of_its_vectors() {
        // 428 of 512 for the first of three seats.
        let found = Evenness::of(Kind::Classic, 3, 9).unwrap();
        assert_eq!((found.fleets.max.count(), found.fleets.max.mean()), (1, 3.0 * 428.0 / 512.0));
    }

    #[test]
    fn keys_fall_as_evenly_as_chance_lets_them() {
        let measured = Measured::of(Kind::Jump, 20_000).unwrap();
        assert_eq!(measured.problem(), None);
        assert!((measured.fleets.deviation.mean() - (999.0_f64 / 20_000.0).sqrt()).abs() < 0.02);
        let off = Measured { off: 4.0, ..measured };
        assert!(off.problem().is_some());
    }

    #[test]
    fn figures_that_no_fleet_has_are_problems() {
        // One seat of a hundred has so much, the others what is left.
        let like = |max: f64, kind| {
            let mut shares = vec![(1.0 - max / 100.0) / 99.0; 99];
            shares.push(max / 100.0);
            Evenness { kind, seats: 100, fleets: Fleets::of(&[shares]) }
        };
        let both = [like(1.77, Kind::RingOfSixteen), like(1.3, Kind::Ketama)];
        let problems = known_problems(&both);
        assert!(problems.len() == 1 && problems[0].starts_with("nginx"), "{problems:?}");
    }
}
