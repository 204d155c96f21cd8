//! Rise and fall: how many probes in a row change a replica's health (as HAProxy's `rise` and
//! `fall`).

/// How many probes in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// Good ones until a replica takes requests; at least 1.
    pub rise: u32,
    /// Bad ones until it takes none any more; at least 1.
    pub fall: u32,
}

/// What probes say of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Never yet good enough.
    Starting,
    /// Takes requests.
    Ready,
    /// Was ready, and takes no requests now.
    Ejected,
}

/// Health with the probes that count against it.
#[derive(Clone, Copy, Debug)]
pub struct HealthTrack {
    health: Health,
    /// Probes in a row that say otherwise than `health`.
    against: u32,
}

// === impl HealthTrack ===

impl HealthTrack {
    /// A replica that was not probed yet.
    pub fn new() -> Self {
        Self { health: Health::Starting, against: 0 }
    }

    /// What is known now.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Takes a probe's result; tells the new health when it changed.
    pub fn observe(&mut self, good: bool, limits: HealthLimits) -> Option<Health> {
        let (agrees, needed, next) = match self.health {
            Health::Starting | Health::Ejected => (!good, limits.rise, Health::Ready),
            Health::Ready => (good, limits.fall, Health::Ejected),
        };
        self.against = if agrees { 0 } else { self.against + 1 };
        if self.against < needed {
            return None;
        }
        *self = Self { health: next, against: 0 };
        Some(next)
    }
}

impl Default for HealthTrack {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(probes: &str, rise: u32, fall: u32) -> Vec<(usize, Health)> {
        let mut track = HealthTrack::new();
        let limits = HealthLimits { rise, fall };
        let observed = probes.chars().map(|probe| track.observe(probe == '+', limits));
        observed.enumerate().filter_map(|(at, change)| Some((at, change?))).collect()
    }

    #[test]
    fn health_changes_after_rise_and_fall_probes_in_a_row() {
        assert_eq!(
            changes("-+--+---+", 1, 3),
            [(1, Health::Ready), (7, Health::Ejected), (8, Health::Ready)]
        );
        assert_eq!(changes("++-++++", 3, 1), [(5, Health::Ready)]);
        assert_eq!(changes("---------", 1, 1), []);
    }

    #[test]
    fn a_flapping_replica_stays_what_it_is() {
        assert_eq!(changes("+--+--+--+--", 1, 3), [(0, Health::Ready)]);
        assert_eq!(changes("+-+-+-", 2, 1), []);
    }
}
