//! The ways to balance that are put beside each other.

use std::time::Duration;

use balancer::fleet::overload::OverloadConfig;
use balancer::routing::policy::Policy;

/// A way to balance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arm {
    pub(super) policy: Policy,
    /// Bounded load: the factor `c`, for [`Policy::Hash`].
    pub(super) bound: Option<f64>,
    /// Whether the overload controller is on.
    pub(super) controlled: bool,
}

/// The overload controller, and how often it looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Controller {
    pub(super) config: OverloadConfig,
    pub(super) interval: Duration,
}

// === impl Arm ===

impl Arm {
    pub(super) const ROUND_ROBIN: Self = Self::of(Policy::RoundRobin);
    pub(super) const HASH: Self = Self::of(Policy::Hash);
    pub(super) const TIGHT: Self = Self { bound: Some(1.25), ..Self::HASH };
    pub(super) const LOOSE: Self = Self { bound: Some(2.0), ..Self::HASH };
    pub(super) const LEAST_REQUESTS: Self = Self::of(Policy::LeastRequests);
    pub(super) const TWO_CHOICES: Self = Self::of(Policy::TwoChoices);

    /// All of them, in the order of the report.
    pub(super) const ALL: [Self; 9] = [
        Self::ROUND_ROBIN,
        Self::ROUND_ROBIN.with_controller(),
        Self::HASH,
        Self::HASH.with_controller(),
        Self::LOOSE,
        Self::TIGHT,
        Self::TIGHT.with_controller(),
        Self::TWO_CHOICES,
        Self::LEAST_REQUESTS,
    ];

    const fn of(policy: Policy) -> Self {
        Self { policy, bound: None, controlled: false }
    }

    /// The same with the controller.
    pub(super) const fn with_controller(self) -> Self {
        Self { controlled: true, ..self }
    }

    /// On a page.
    pub(super) fn name(self) -> String {
        let policy = match (self.policy, self.bound) {
            (Policy::Hash, None) => "hash".to_owned(),
            (Policy::Hash, Some(factor)) => format!("hash bounded {factor}"),
            (Policy::RoundRobin, _) => "round robin".to_owned(),
            (Policy::LeastRequests, _) => "least requests".to_owned(),
            (Policy::TwoChoices, _) => "two choices".to_owned(),
        };
        if self.controlled { format!("{policy}, controller") } else { policy }
    }

    /// On the balancer's command line.
    pub(super) fn arguments(self, controller: &Controller) -> Vec<String> {
        let policy = match self.policy {
            Policy::Hash => "hash",
            Policy::RoundRobin => "round-robin",
            Policy::LeastRequests => "least-requests",
            Policy::TwoChoices => "two-choices",
        };
        let mut words = vec!["--policy".to_owned(), policy.to_owned()];
        words.extend(self.bound.map(|factor| format!("--balance-factor={factor}")));
        if self.controlled {
            words.extend(controller.arguments());
        }
        words
    }
}

// === impl Controller ===

impl Controller {
    fn arguments(&self) -> [String; 6] {
        let config = &self.config;
        [
            "--overload-enabled=true".to_owned(),
            format!("--overload-min-ready={}", config.min_ready),
            format!("--overload-capacity={}", config.capacity),
            format!("--overload-max-load={}", config.max_load),
            format!("--overload-resume-load={}", config.resume_load),
            format!("--overload-interval={}", humantime::format_duration(self.interval)),
        ]
    }

    /// What it does, in words.
    pub(super) fn words(&self) -> String {
        let config = &self.config;
        let limit = |share: f64| share * f64::from(config.capacity);
        let (off, on) = (limit(config.max_load), limit(config.resume_load));
        format!(
            "every {} it disables replicas with more than {off} requests in flight and enables \
             those with {on} or fewer, but leaves {}",
            humantime::format_duration(self.interval),
            config.min_ready
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_arm_has_a_name_of_its_own() {
        let names: BTreeSet<String> = Arm::ALL.into_iter().map(Arm::name).collect();
        assert_eq!(names.len(), Arm::ALL.len());
        assert!(names.contains("hash bounded 1.25, controller"), "{names:?}");
    }

    #[test]
    fn the_balancer_is_told_of_bound_and_controller_where_they_are_on() {
        let config =
            OverloadConfig { min_ready: 2, capacity: 40, max_load: 0.75, resume_load: 0.5 };
        let controller = Controller { config, interval: Duration::from_millis(1_500) };
        assert_eq!(Arm::TWO_CHOICES.arguments(&controller), ["--policy", "two-choices"]);
        let words = Arm::TIGHT.with_controller().arguments(&controller).join(" ");
        assert_eq!(
            words,
            "--policy hash --balance-factor=1.25 --overload-enabled=true \
             --overload-min-ready=2 --overload-capacity=40 --overload-max-load=0.75 \
             --overload-resume-load=0.5 --overload-interval=1s 500ms"
        );
    }
}
