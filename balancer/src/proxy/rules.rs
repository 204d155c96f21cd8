//! What is done with requests: the configuration as it is now. It changes while the balancer runs;
//! a request keeps to what was there when its head began.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::late::Late;
use crate::config::{
    AdmissionConfig, Config, ForwardedConfig, HedgeConfig, RouteConfig, Send, Timeouts,
};
use crate::http1::head::HeadLimits;
use crate::metrics::{RouteShard, Shards};
use crate::routing::budget::{Budget, BudgetConfig};
use crate::routing::matching::Target;

/// What all workers share of a configuration.
#[derive(Debug)]
pub struct Live {
    config: Arc<Config>,
    /// The part of the retry budget that does not come from a worker's own requests.
    floor: Mutex<Budget>,
    /// By route: how many turns were taken.
    turns: HashMap<String, Arc<AtomicUsize>>,
}

/// What one worker has of it.
#[derive(Debug)]
pub struct Rules {
    pub(super) live: Arc<Live>,
    routes: Vec<Rc<Route>>,
    pub(super) timeouts: Timeouts,
    /// Of a request's head.
    pub(super) limits: HeadLimits,
    /// Of a response's head.
    pub(super) response_limits: HeadLimits,
    pub(super) body_limit: Option<u64>,
    /// Most requests to several replicas in progress.
    pub(super) deliveries: usize,
    /// Failures in a row that eject a replica; 0 for none.
    pub(super) outliers: u32,
    /// How many requests may be in flight, if that is limited.
    pub(super) admission: Option<AdmissionConfig>,
    share: RefCell<Budget>,
    /// What is believed and told of the way of a request.
    pub(super) forwarded: ForwardedConfig,
    pub(super) unknown_path: bool,
    pub(super) half_close: bool,
    pub(super) access_log: bool,
}

/// A route of one worker.
#[derive(Debug)]
pub struct Route {
    pub(super) config: RouteConfig,
    turns: Arc<AtomicUsize>,
    /// What is counted of it.
    pub(super) metrics: Rc<RouteShard>,
    /// How late answers are, and what may be done about it, where anything is.
    pub(super) hedging: Option<Hedging>,
}

/// See [`HedgeConfig`].
#[derive(Debug)]
pub struct Hedging {
    pub(super) config: HedgeConfig,
    pub(super) late: RefCell<Late>,
    budget: RefCell<Budget>,
}

// === impl Live ===

impl Live {
    /// A configuration that begins `now`, and goes on counting turns where the one `before` is.
    pub fn new(config: Config, before: Option<&Self>, now: Duration) -> Self {
        let min_per_second = f64::from(config.retry.min_per_second);
        let floor = BudgetConfig { share: 0.0, min_per_second };
        let counted = |name: &str| before.and_then(|before| before.turns.get(name).cloned());
        let routes = config.routes.iter().map(|route| &route.name);
        let turns = routes.map(|name| (name.clone(), counted(name).unwrap_or_default())).collect();
        Self { config: Arc::new(config), floor: Mutex::new(Budget::new(floor, now)), turns }
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }
}

// === impl Rules ===

impl Rules {
    /// What a worker makes of a configuration `now`.
    pub fn new(live: Arc<Live>, now: Duration, shards: &Shards) -> Self {
        let config = &live.config;
        let limits = &config.limits;
        let share = BudgetConfig { share: config.retry.budget, min_per_second: 0.0 };
        let route = |config: &RouteConfig| {
            Rc::new(Route {
                config: config.clone(),
                turns: live.turns.get(&config.name).cloned().unwrap_or_default(),
                metrics: shards.of(&config.name),
                hedging: match &config.send {
                    Send::One(Some(hedge)) => Some(Hedging::new(*hedge, now)),
                    Send::One(None) | Send::All(..) | Send::First(..) => None,
                },
            })
        };
        Self {
            routes: config.routes.iter().map(route).collect(),
            timeouts: config.timeouts,
            response_limits: HeadLimits {
                bytes: limits.head,
                fields: limits.response_fields,
                target: limits.target,
            },
            limits: HeadLimits { bytes: limits.head, fields: limits.fields, target: limits.target },
            body_limit: limits.body,
            deliveries: limits.deliveries,
            outliers: config.outliers.consecutive,
            admission: config.admission,
            share: RefCell::new(Budget::new(share, now)),
            forwarded: config.forwarded.clone(),
            unknown_path: config.unknown_path,
            half_close: config.half_close,
            access_log: config.access_log,
            live: Arc::clone(&live),
        }
    }

    /// The route that takes a request.
    pub fn route(&self, target: &Target<'_>) -> &Rc<Route> {
        &self.routes[self.live.config.route_of(target)]
    }

    /// A request has come.
    pub(super) fn deposit(&self) {
        self.share.borrow_mut().deposit(1);
    }

    /// Whether the budget allows one more retry `now`; then it is taken off.
    pub(super) fn withdraw_retry(&self, now: Duration) -> bool {
        // A budget is right whatever panicked while it was locked.
        let floor = || self.live.floor.lock().unwrap_or_else(PoisonError::into_inner);
        self.share.borrow_mut().withdraw(now) || floor().withdraw(now)
    }
}

// === impl Route ===

impl Route {
    /// The next turn, where turns are taken: counted over all workers.
    pub(super) fn turn(&self) -> usize {
        if self.config.policy.takes_turns() {
            self.turns.fetch_add(1, Ordering::Relaxed)
        } else {
            0
        }
    }
}

// === impl Hedging ===

impl Hedging {
    fn new(config: HedgeConfig, now: Duration) -> Self {
        let budget = BudgetConfig { share: config.budget, min_per_second: 0.0 };
        let (late, budget) = (RefCell::default(), RefCell::new(Budget::new(budget, now)));
        Self { config, late, budget }
    }

    /// A request has come: how late its answer must be for a second replica to be asked. None where
    /// that is not known yet.
    pub(super) fn begin(&self) -> Option<Duration> {
        self.budget.borrow_mut().deposit(1);
        match self.config.after {
            crate::config::HedgeAfter::Span(span) => Some(span),
            crate::config::HedgeAfter::Quantile(quantile) => self.late.borrow().quantile(quantile),
        }
    }

    /// Whether the budget allows it `now`; then it is taken off. All of the requests are never too
    /// many, though what was deposited for them fades.
    pub(super) fn withdraw(&self, now: Duration) -> bool {
        self.config.budget >= 1.0 || self.budget.borrow_mut().withdraw(now)
    }
}
