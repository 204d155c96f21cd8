//! The retry budget: retries are a share of the requests, so that a failing fleet is not buried
//! under them (the idea of Finagle's and linkerd's budgets).

use std::time::Duration;

/// How long a request counts: bursts shorter than this are evened out.
const WINDOW: Duration = Duration::from_secs(10);

/// What a budget allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetConfig {
    /// Retries per request, from 0 to 1.
    pub share: f64,
    /// Retries a second that are allowed in any case.
    pub min_per_second: f64,
}

/// What is left of it.
#[derive(Clone, Debug)]
pub struct Budget {
    config: BudgetConfig,
    balance: f64,
    /// Up to when the balance is right, on the caller's clock.
    since: Duration,
}

// === impl Budget ===

impl Budget {
    /// A budget that begins with what [`BudgetConfig::min_per_second`] allows in ten seconds.
    /// Times are those of any clock that only goes forward.
    pub fn new(config: BudgetConfig, now: Duration) -> Self {
        let balance = config.min_per_second * WINDOW.as_secs_f64();
        Self { config, balance, since: now }
    }

    /// `requests` more have come.
    pub fn deposit(&mut self, requests: u64) {
        self.balance += self.config.share * requests as f64;
    }

    /// Whether one more retry may be made; then it is taken off.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.since);
        self.since = self.since.max(now);
        self.settle(passed);
        if self.balance < 1.0 {
            return false;
        }
        self.balance -= 1.0;
        true
    }

    /// Time adds to the balance what is always allowed and takes away what requests added long
    /// ago.
    fn settle(&mut self, passed: Duration) {
        let floor = self.config.min_per_second * WINDOW.as_secs_f64();
        let passed = passed.as_secs_f64();
        if self.balance < floor {
            self.balance = (self.balance + self.config.min_per_second * passed).min(floor);
        } else {
            let kept = (-passed / WINDOW.as_secs_f64()).exp();
            self.balance = floor + (self.balance - floor) * kept;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn spend(budget: &mut Budget, now: Duration) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_share_of_the_requests_and_a_floor_may_be_retried() {
        let config = BudgetConfig { share: 0.2, min_per_second: 10.0 };
        let mut budget = Budget::new(config, SECOND);
        assert_eq!(spend(&mut budget, SECOND), 100, "ten seconds' worth");
        budget.deposit(1_000);
        assert_eq!(spend(&mut budget, SECOND), 200);
        assert_eq!(spend(&mut budget, SECOND * 2), 10, "one second's worth");
        assert_eq!(spend(&mut budget, SECOND * 1_000), 100, "no more than ten seconds' worth");
    }

    #[test]
    fn old_requests_count_no_more() {
        let config = BudgetConfig { share: 0.2, min_per_second: 1.0 };
        let mut budget = Budget::new(config, Duration::ZERO);
        budget.deposit(10_000);
        let left = spend(&mut budget, SECOND * 100);
        assert!((10..20).contains(&left), "{left}");
    }

    #[test]
    fn without_a_share_and_a_floor_nothing_is_retried() {
        let mut budget = Budget::new(BudgetConfig { share: 0.0, min_per_second: 0.0 }, SECOND);
        budget.deposit(1_000_000);
        assert_eq!(spend(&mut budget, SECOND * 100), 0);
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let config = BudgetConfig { share: 0.0, min_per_second: 1.0 };
        let mut budget = Budget::new(config, SECOND * 50);
        assert_eq!(spend(&mut budget, SECOND * 40), 10);
        assert_eq!(spend(&mut budget, SECOND * 45), 0);
    }
}
