//! The overload controller: replicas with too many requests in flight are taken out of rotation
//! until they have worked them off, never more than the fleet can spare.
//!
//! It only decides: the same function serves the balancer itself, `balancer watch`, which drives
//! another one from outside, and the simulation.

use std::cmp::Reverse;
use std::fmt;

/// When a node is overloaded, and how many must be left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverloadConfig {
    /// How many stay enabled however loaded they are; at least 1.
    pub min_ready: usize,
    /// How many requests a node can have in flight.
    pub capacity: u32,
    /// Above this share of the capacity an enabled node is disabled.
    pub max_load: f64,
    /// At or below this share a disabled one is enabled again; at most `max_load`. Between the two
    /// a node stays as it is.
    pub resume_load: f64,
}

/// A node as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLoad<N> {
    /// Which.
    pub node: N,
    /// Whether it takes requests.
    pub enabled: bool,
    /// Requests in flight at it.
    pub queued: usize,
}

/// What is to be done with a node. Its text is what is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action<N> {
    /// Which.
    pub node: N,
    /// Whether it takes requests from now on.
    pub enable: bool,
    /// Requests in flight at it when that was decided.
    pub queued: usize,
}

/// What is to be done about these nodes, in this order: first those that are enabled, the least
/// loaded first, then those that are disabled, the worst first. Of equals the one that comes
/// first.
///
/// Nodes that have recovered are enabled before others are disabled, so that they count for the
/// minimum; where too few are enabled, those with the least to do are enabled whatever that is.
/// Carried out at once, it leaves nothing to do.
pub fn decide<N: Clone>(nodes: &[NodeLoad<N>], config: &OverloadConfig) -> Vec<Action<N>> {
    let capacity = f64::from(config.capacity);
    let is_overloaded = |node: &NodeLoad<N>| node.queued as f64 > config.max_load * capacity;
    let has_recovered = |node: &NodeLoad<N>| node.queued as f64 <= config.resume_load * capacity;
    let act = |node: &NodeLoad<N>, enable| Action {
        node: node.node.clone(),
        enable,
        queued: node.queued,
    };

    let mut enabled = nodes.iter().filter(|node| node.enabled).count();
    let mut disabled: Vec<&NodeLoad<N>> = nodes.iter().filter(|node| !node.enabled).collect();
    disabled.sort_by_key(|node| node.queued);
    let mut actions = Vec::new();
    for node in disabled {
        if has_recovered(node) || enabled < config.min_ready {
            actions.push(act(node, true));
            enabled += 1;
        }
    }
    let mut overloaded: Vec<&NodeLoad<N>> =
        nodes.iter().filter(|node| node.enabled && is_overloaded(node)).collect();
    overloaded.sort_by_key(|node| Reverse(node.queued));
    let spare = enabled.saturating_sub(config.min_ready);
    actions.extend(overloaded.into_iter().take(spare).map(|node| act(node, false)));
    actions
}

// === impl Action ===

impl<N: fmt::Display> fmt::Display for Action<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.enable { "Enabling" } else { "Disabling" };
        write!(f, "{verb} node {}, queued requests: {}", self.node, self.queued)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: OverloadConfig =
        OverloadConfig { min_ready: 2, capacity: 500, max_load: 0.75, resume_load: 0.75 };

    fn nodes(nodes: &[(bool, usize)]) -> Vec<NodeLoad<usize>> {
        let node = |(node, (enabled, queued)): (usize, &(bool, usize))| NodeLoad {
            node,
            enabled: *enabled,
            queued: *queued,
        };
        nodes.iter().enumerate().map(node).collect()
    }

    fn decided(loads: &[(bool, usize)]) -> Vec<(usize, bool)> {
        let actions = decide(&nodes(loads), &CONFIG);
        actions.iter().map(|action| (action.node, action.enable)).collect()
    }

    fn carry_out(nodes: &mut [NodeLoad<usize>], actions: &[Action<usize>]) {
        for action in actions {
            nodes[action.node].enabled = action.enable;
        }
    }

    #[test]
    fn the_worst_are_disabled_and_the_recovered_enabled() {
        assert_eq!(
            decided(&[(true, 376), (true, 436), (true, 375), (true, 0)]),
            [(1, false), (0, false)]
        );
        assert_eq!(decided(&[(false, 375), (false, 376), (true, 1), (true, 1)]), [(0, true)]);
    }

    #[test]
    fn the_minimum_stays_when_all_are_overloaded() {
        assert_eq!(decided(&[(true, 400), (true, 500), (true, 450)]), [(1, false)]);
        assert_eq!(decided(&[(true, 400), (true, 500)]), []);
        assert_eq!(decided(&[]), []);
    }

    #[test]
    fn one_that_comes_back_makes_room_for_one_that_goes() {
        assert_eq!(decided(&[(true, 400), (true, 10), (false, 0)]), [(2, true), (0, false)]);
    }

    #[test]
    fn below_the_minimum_the_least_loaded_come_back_however_loaded() {
        assert_eq!(decided(&[(false, 490), (false, 400), (false, 450)]), [(1, true), (2, true)]);
    }

    #[test]
    fn what_is_done_reads_as_controllers_print_it() {
        let action = Action { node: "server-04", enable: false, queued: 436 };
        assert_eq!(action.to_string(), "Disabling node server-04, queued requests: 436");
        let action = Action { enable: true, queued: 7, ..action };
        assert_eq!(action.to_string(), "Enabling node server-04, queued requests: 7");
    }

    fn configs() -> impl Strategy<Value = OverloadConfig> {
        (1_usize..6, 1_u32..100, 0.0..1.0_f64, 0.0..1.0_f64).prop_map(
            |(min_ready, capacity, one, other)| OverloadConfig {
                min_ready,
                capacity,
                max_load: one.max(other),
                resume_load: one.min(other),
            },
        )
    }

    proptest! {
        #[test]
        fn the_minimum_holds_and_nothing_is_left_to_do(
            config in configs(),
            loads in prop::collection::vec((any::<bool>(), 0_usize..120), 0..20),
        ) {
            let mut nodes = nodes(&loads);
            let actions = decide(&nodes, &config);
            // At no time between two actions are there fewer than there must be or were.
            let least = nodes.iter().filter(|node| node.enabled).count();
            let least = least.min(config.min_ready).min(nodes.len());
            for action in &actions {
                prop_assert_ne!(nodes[action.node].enabled, action.enable);
                carry_out(&mut nodes, std::slice::from_ref(action));
                prop_assert!(nodes.iter().filter(|node| node.enabled).count() >= least);
            }
            let enabled = nodes.iter().filter(|node| node.enabled).count();
            prop_assert!(enabled >= config.min_ready.min(nodes.len()));
            prop_assert_eq!(decide(&nodes, &config), []);
            // Whoever is overloaded and enabled is so for the minimum's sake, and none that is
            // disabled by this call had less to do.
            let limit = config.max_load * f64::from(config.capacity);
            let kept = nodes.iter().filter(|node| node.enabled && node.queued as f64 > limit);
            let worst_kept = kept.map(|node| node.queued).max();
            if let Some(worst_kept) = worst_kept {
                prop_assert_eq!(enabled, config.min_ready.min(nodes.len()));
                let off = actions.iter().filter(|action| !action.enable);
                prop_assert!(off.map(|action| action.queued).all(|queued| queued >= worst_kept)
                    || loads.iter().filter(|(enabled, _)| *enabled).count() < config.min_ready);
            }
        }

        #[test]
        fn between_the_thresholds_nothing_changes(
            on in prop::collection::vec((any::<bool>(), 51_usize..=75), 2..20),
        ) {
            let config = OverloadConfig { min_ready: 1, capacity: 100, max_load: 0.75, resume_load: 0.5 };
            let mut nodes = nodes(&on);
            nodes[0].enabled = true;
            prop_assert_eq!(decide(&nodes, &config), []);
        }
    }
}
