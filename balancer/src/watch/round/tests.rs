//! Rounds over an API by script.

use std::cell::RefCell;
use std::collections::BTreeMap;

use http::StatusCode;

use super::*;

const CONFIG: OverloadConfig =
    OverloadConfig { min_ready: 1, capacity: 100, max_load: 0.75, resume_load: 0.5 };

const AT_ONCE_AGAIN: Patience = Patience { tries: 3, base: Duration::ZERO };

/// A call, as it is written in a script and in a journal: `list`, `get NAME`, `enable NAME`,
/// `disable NAME`.
type Call = String;

/// A balancer that does what it is asked to, but for the calls that fail.
#[derive(Default)]
struct Scripted {
    names: Vec<String>,
    nodes: RefCell<BTreeMap<String, (bool, usize)>>,
    /// The statuses of the next calls of a kind; none: it succeeds.
    failures: RefCell<BTreeMap<Call, Vec<u16>>>,
    journal: RefCell<Vec<Call>>,
    /// Comes with this call.
    end: Option<(Call, RefCell<Option<tokio::sync::oneshot::Sender<()>>>)>,
}

impl Scripted {
    fn new(nodes: &[(&str, bool, usize)]) -> Self {
        let names = nodes.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let state = |(name, enabled, queued): &(&str, bool, usize)| {
            ((*name).to_owned(), (*enabled, *queued))
        };
        let nodes = RefCell::new(nodes.iter().map(state).collect());
        Self { names, nodes, ..Self::default() }
    }

    fn failing(self, call: &str, statuses: &[u16]) -> Self {
        self.failures.borrow_mut().insert(call.to_owned(), statuses.to_vec());
        self
    }

    fn made(&self, call: Call) -> Result<(), CallError> {
        if let Some((when, end)) = &self.end
            && *when == call
            && let Some(end) = end.take()
        {
            end.send(()).unwrap();
        }
        let mut failures = self.failures.borrow_mut();
        let statuses = failures.entry(call.clone()).or_default();
        let failure = (!statuses.is_empty()).then(|| statuses.remove(0));
        self.journal.borrow_mut().push(call);
        match failure {
            None => Ok(()),
            Some(status) => {
                let status = StatusCode::from_u16(status).unwrap();
                Err(CallError::Status { status, detail: None })
            }
        }
    }

    fn now(&self, name: &str) -> Node {
        let (enabled, queued) = self.nodes.borrow()[name];
        Node { name: name.to_owned(), enabled, queued }
    }

    /// The changing calls so far.
    fn changes(&self) -> Vec<Call> {
        let journal = self.journal.borrow();
        let changes = journal.iter().filter(|call| call.contains("able "));
        changes.cloned().collect()
    }

    fn count(&self, call: &str) -> usize {
        self.journal.borrow().iter().filter(|made| *made == call).count()
    }

    async fn round(&self) -> Ended {
        let never: Stop = std::future::pending().boxed_local().shared();
        round(self, &CONFIG, AT_ONCE_AGAIN, &never).await
    }
}

impl Api for Scripted {
    async fn names(&self) -> Result<Vec<String>, CallError> {
        self.made("list".to_owned())?;
        Ok(self.names.clone())
    }

    async fn node(&self, name: &str) -> Result<Node, CallError> {
        self.made(format!("get {name}"))?;
        Ok(self.now(name))
    }

    async fn set(&self, name: &str, enable: bool) -> Result<Node, CallError> {
        self.made(format!("{} {name}", if enable { "enable" } else { "disable" }))?;
        self.nodes.borrow_mut().entry(name.to_owned()).and_modify(|node| node.0 = enable);
        Ok(self.now(name))
    }
}

/// How a round ended, in a word.
fn word(ended: &Ended) -> String {
    match ended {
        Ended::Done { failed } => format!("{failed} failed"),
        Ended::Blind(error) => error.to_string(),
        Ended::Stopped => "stopped".to_owned(),
    }
}

#[tokio::test]
async fn the_recovered_are_enabled_then_the_worst_disabled() {
    let api = Scripted::new(&[("a", true, 80), ("b", false, 10), ("c", true, 90)]);
    assert_eq!(word(&api.round().await), "0 failed");
    assert_eq!(api.changes(), ["enable b", "disable c", "disable a"]);
    assert_eq!(word(&api.round().await), "0 failed");
    assert_eq!(api.changes().len(), 3);
}

#[tokio::test]
async fn an_empty_fleet_is_left_alone() {
    let api = Scripted::new(&[]);
    assert_eq!(word(&api.round().await), "0 failed");
    assert_eq!(*api.journal.borrow(), ["list"]);
}

#[tokio::test]
async fn a_look_is_tried_three_times() {
    let api = Scripted::new(&[("a", true, 80), ("b", true, 10)])
        .failing("list", &[500, 503])
        .failing("get a", &[500, 503]);
    assert_eq!(word(&api.round().await), "0 failed");
    assert_eq!((api.count("list"), api.count("get a"), api.count("get b")), (3, 3, 1));
    assert_eq!(api.changes(), ["disable a"]);
}

#[tokio::test]
async fn what_is_the_callers_fault_is_tried_once() {
    let api = Scripted::new(&[("a", true, 80)]).failing("list", &[401]);
    assert_eq!(word(&api.round().await), "the nodes cannot be listed");
    assert_eq!(*api.journal.borrow(), ["list"]);
}

#[tokio::test]
async fn nothing_is_done_unless_every_node_is_seen() {
    let api = Scripted::new(&[("a", true, 80), ("b", false, 10), ("c", true, 90)])
        .failing("get b", &[500, 500, 500]);
    assert_eq!(word(&api.round().await), "node \"b\" cannot be seen");
    assert_eq!(api.changes(), [""; 0]);
    assert_eq!(word(&api.round().await), "0 failed");
    assert_eq!(api.changes(), ["enable b", "disable c", "disable a"]);
}

#[tokio::test]
async fn nothing_is_done_by_a_list_that_has_a_node_twice() {
    let mut api = Scripted::new(&[("a", true, 80), ("b", true, 10)]);
    api.names.push("a".to_owned());
    assert_eq!(word(&api.round().await), "node \"a\" is listed twice");
    assert_eq!(*api.journal.borrow(), ["list"]);
}

#[tokio::test]
async fn a_node_that_has_just_left_does_not_count() {
    let api = Scripted::new(&[("a", true, 80), ("b", true, 10)]).failing("get b", &[404]);
    assert_eq!(word(&api.round().await), "0 failed");
    // `a` is the last one: it stays.
    assert_eq!(api.changes(), [""; 0]);
    assert_eq!(api.count("get b"), 1);
}

#[tokio::test]
async fn none_is_disabled_when_one_could_not_be_enabled() {
    let api = Scripted::new(&[("a", true, 80), ("b", false, 10), ("c", false, 0)])
        .failing("enable b", &[500]);
    assert_eq!(word(&api.round().await), "2 failed");
    assert_eq!(api.changes(), ["enable c", "enable b"]);
}

#[tokio::test]
async fn one_that_could_not_be_disabled_does_not_hold_up_the_others() {
    let api = Scripted::new(&[("a", true, 80), ("b", true, 10), ("c", true, 90)])
        .failing("disable c", &[500]);
    assert_eq!(word(&api.round().await), "1 failed");
    assert_eq!(api.changes(), ["disable c", "disable a"]);
}

#[tokio::test]
async fn the_end_comes_after_the_change_that_is_under_way() {
    let (end, ended) = tokio::sync::oneshot::channel();
    let mut api = Scripted::new(&[("a", true, 80), ("b", true, 10), ("c", true, 90)]);
    api.end = Some(("disable c".to_owned(), RefCell::new(Some(end))));
    let stop: Stop = async { ended.await.unwrap() }.boxed_local().shared();
    assert_eq!(word(&round(&api, &CONFIG, AT_ONCE_AGAIN, &stop).await), "stopped");
    assert_eq!(api.changes(), ["disable c"]);
    assert!(!api.now("c").enabled);
}
