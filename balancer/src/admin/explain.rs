//! `GET /admin/explain`: where a key or a request would go, and why. Whoever makes the choice on the
//! request path asks the same functions.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde::Serialize;

use super::guard::may_change;
use super::query::{Imagined, Question};
use super::ring::{Name, Seen};
use super::{Admin, READ, deny, fail, refuse};
use crate::config::{AdmissionConfig, Among, Config, RouteConfig, Send};
use crate::reply;
use crate::routing::bounded::Factor;
use crate::routing::choice::{Room, Terms};
use crate::routing::key::{Key, KeySource, RequestId, RequestView as _, cookie};
use crate::routing::placement::{Member, Spot};
use crate::routing::policy::{Pick, Policy};
use crate::routing::table::{Most, Replica};
use crate::state::RingStatus;

/// What is told.
#[derive(Debug, Serialize)]
struct Explanation {
    /// Which route takes the request; not told of a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Route>,
    key: KeyText,
    placement: &'static str,
    /// Where the key falls, where the placement has places.
    #[serde(skip_serializing_if = "Option::is_none")]
    falls_on: Option<FallsOn>,
    /// How the policy chooses.
    chooses: &'static str,
    /// All members in the order in which they own the key; not where nobody owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    owners: Option<Vec<Candidate>>,
    /// All members, where the key does not order them.
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<Vec<Candidate>>,
    /// Who would be asked first, or at once; null where that is left to turns, loads or chance.
    asked: Option<Vec<String>>,
    /// What else is to be said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// A route, as far as it decides who is asked.
#[derive(Debug, Serialize)]
struct Route {
    name: String,
    policy: &'static str,
    send: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance_factor: Option<f64>,
}

/// A key as it is shown.
#[derive(Debug, Default, Serialize)]
struct KeyText {
    /// Which part of the request it is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// What it is instead, where the request has not that part.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'static str>,
    /// For reading; null where it would be random.
    value: Option<String>,
    /// Its bytes as the parameter `key` takes them.
    encoded: Option<String>,
}

/// Where a key falls, and what of its owner's is next to it. A circle's numbers are written in 16
/// hexadecimal digits, which JSON's numbers would round.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum FallsOn {
    Circle { hash: String, point: String },
    Slots { slot: u32, occupied: u32 },
    Table { entry: u32 },
}

/// A member that may be asked.
#[derive(Debug, Serialize)]
struct Candidate {
    #[serde(flatten)]
    name: Name,
    weight: u32,
    #[serde(flatten)]
    seen: Seen,
    /// Requests at it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<usize>,
    /// Whether it would take the request now.
    takes: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// How much may be in flight for one more.
type Limits = Box<dyn Fn(&Replica) -> Most>;

/// A question with all that its answer depends on.
struct Case<'a> {
    status: &'a RingStatus,
    config: &'a Config,
    terms: Terms<Limits>,
    /// None for one that is random.
    key: Option<Key>,
}

/// Bytes of a key that are not written as they are.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) async fn explain(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, READ) {
        return refusal;
    }
    // It changes nothing, but with it keys of one replica can be found, which `ring.secret` is to
    // prevent.
    if let Err(denied) = may_change(&request, &admin.config) {
        return deny(&denied);
    }
    let caller = request.peer_addr().map(|caller| caller.ip());
    let caller = caller.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let question = match Question::read(request.query_string(), caller) {
        Ok(question) => question,
        Err(bad) => return reply::failure(StatusCode::BAD_REQUEST, &bad.to_string()),
    };
    match admin.shared.ring().await {
        Ok(status) => {
            let explanation = Explanation::of(&question, &status, &(admin.now)());
            reply::success(StatusCode::OK, explanation)
        }
        Err(error) => fail(&error),
    }
}

// === impl Explanation ===

impl Explanation {
    fn of(question: &Question, status: &RingStatus, config: &Config) -> Self {
        match question {
            Question::Key(bytes) => {
                let route = config.routes.last().expect("there is one that takes all");
                let key = Key::from(bytes.as_slice());
                let text = KeyText::of(&key);
                let terms = Terms { policy: Policy::Hash, ..one(route, config.admission) };
                let case = Case { status, config, terms, key: Some(key) };
                let mut told = case.told(text, &Send::One(None));
                if route.policy != Policy::Hash {
                    let name = name(route.policy);
                    told.notes.push(format!("the default route's policy is {name}: no key counts"));
                }
                told
            }
            Question::Request(request) => {
                let route = &config.routes[config.route_of(&request.target())];
                let (key, text, note) = key_of(request, route);
                let terms = match &route.send {
                    Send::One(_) => one(route, config.admission),
                    Send::All(..) | Send::First(..) => several(route, config.admission),
                };
                let case = Case { status, config, terms, key };
                let mut told = case.told(text, &route.send);
                told.notes.extend(note);
                told.route = Some(Route::of(route));
                told
            }
        }
    }
}

/// The key of a request by its route; none where it would be random, and what is to be said then.
fn key_of(request: &Imagined, route: &RouteConfig) -> (Option<Key>, KeyText, Option<String>) {
    let source = Some(route.key.to_string());
    if let Some(key) = Key::named(request, &route.key) {
        let text = match route.key {
            // Four bytes, or sixteen: its text says more.
            KeySource::ClientIp => {
                KeyText { value: Some(request.client_ip().to_string()), ..KeyText::of(&key) }
            }
            KeySource::RequestId
            | KeySource::Path
            | KeySource::Uri
            | KeySource::Header(_)
            | KeySource::Cookie(_)
            | KeySource::Query(_) => KeyText::of(&key),
        };
        return (Some(key), KeyText { source, ..text }, None);
    }
    if let (true, KeySource::Cookie(name)) = (route.issue, &route.key)
        && cookie(request, name).is_none()
    {
        let text = KeyText { source, fallback: Some("issued"), ..KeyText::default() };
        let note = format!("without the cookie {name:?} the client gets one, of a random value");
        return (None, text, Some(note));
    }
    // What is made is not shown: the next one would be another.
    let id = RequestId::of(request.header("x-request-id"), &route.key, &mut rng());
    if id.is_made() {
        let text = KeyText { source, fallback: Some("random"), ..KeyText::default() };
        let note = "without X-Request-Id the key would be a random number".to_owned();
        return (None, text, Some(note));
    }
    let key = Key::from(id.as_bytes());
    let fallback = (route.key != KeySource::RequestId).then_some("request-id");
    let text = KeyText { source, fallback, ..KeyText::of(&key) };
    (Some(key), text, None)
}

/// By what one replica is chosen.
fn one(route: &RouteConfig, admission: Option<AdmissionConfig>) -> Terms<Limits> {
    let Terms { policy, factor, limits } = route.terms(admission);
    Terms { policy, factor, limits: limits.map(|limits| Box::new(limits) as Limits) }
}

/// By what several are: what goes to several waits until there is room in all, and goes to each then
/// whatever is in flight there.
fn several(route: &RouteConfig, admission: Option<AdmissionConfig>) -> Terms<Limits> {
    let limits = admission.map(|AdmissionConfig { in_flight: in_all, .. }| {
        Box::new(move |_: &Replica| Most { in_all, ..Most::ANY }) as Limits
    });
    Terms { policy: route.policy, factor: None, limits }
}

fn name(policy: Policy) -> &'static str {
    match policy {
        Policy::Hash => "hash",
        Policy::RoundRobin => "round-robin",
        Policy::LeastRequests => "least-requests",
        Policy::TwoChoices => "two-choices",
    }
}

fn how(policy: Policy) -> &'static str {
    match policy {
        Policy::Hash => "the first owner of the key that takes it",
        Policy::RoundRobin => "in turns, each as often as its weight says",
        Policy::LeastRequests => {
            "the fewest requests in flight for its weight, of all that take it"
        }
        Policy::TwoChoices => {
            "of two drawn at random the one with the fewest requests in flight for its weight"
        }
    }
}

/// Chance that decides nothing: where it would, nobody is named.
fn rng() -> SmallRng {
    SmallRng::seed_from_u64(0)
}

// === impl FallsOn ===

impl From<Spot> for FallsOn {
    fn from(spot: Spot) -> Self {
        let digits = |number: u64| format!("{number:016x}");
        match spot {
            Spot::Circle { key, point } => {
                FallsOn::Circle { hash: digits(key), point: digits(point) }
            }
            Spot::Slots { key, occupied } => FallsOn::Slots { slot: key, occupied },
            Spot::Entry(entry) => FallsOn::Table { entry },
        }
    }
}

// === impl Case ===

impl Case<'_> {
    fn told(&self, key: KeyText, send: &Send) -> Explanation {
        let by_key = self.key.as_ref().filter(|_| self.terms.policy == Policy::Hash);
        let table = &*self.status.table;
        let placement = table.placement();
        let order: Vec<usize> = match by_key {
            Some(key) => placement.owners(key.as_bytes()).collect(),
            None => (0..placement.members().len()).collect(),
        };
        let candidates = order.iter().filter_map(|place| self.candidate(*place)).collect();
        let spot = by_key.and_then(|key| placement.spot(key.as_bytes()));
        let (owners, replicas) = match by_key {
            Some(_) => (Some(candidates), None),
            None => (None, Some(candidates)),
        };
        let mut notes = Vec::new();
        let asked = self.asked(by_key, send, &mut notes);
        Explanation {
            route: None,
            key,
            placement: self.config.placement.name(),
            falls_on: spot.map(FallsOn::from),
            chooses: how(self.terms.policy),
            owners,
            replicas,
            asked,
            notes,
        }
    }

    fn candidate(&self, place: usize) -> Option<Candidate> {
        let table = &*self.status.table;
        let member: &Member = table.placement().members().get(place)?;
        let seen = Seen::of(self.status, place);
        let replica = table.ready(place);
        let why = match replica {
            None => seen.why(),
            Some(replica) => match self.terms.room(table, replica, table.share_of(place)) {
                Room::Free => None,
                full @ (Room::Full { .. } | Room::AllFull { .. } | Room::Bounded { .. }) => {
                    Some(full.to_string())
                }
            },
        };
        Some(Candidate {
            name: member.id.into(),
            weight: member.weight,
            seen,
            in_flight: replica.map(|replica| replica.in_flight()),
            takes: replica.is_some() && why.is_none(),
            why,
        })
    }

    /// Who would be asked; `None` where that is left to turns, loads or chance.
    fn asked(
        &self,
        key: Option<&Key>,
        send: &Send,
        notes: &mut Vec<String>,
    ) -> Option<Vec<String>> {
        let table = &*self.status.table;
        if table.ready_count() == 0 {
            notes.push("no replica is ready: it would be answered 503".to_owned());
            return Some(Vec::new());
        }
        let none = Key::from(&b""[..]);
        let pick = Pick { key: key.unwrap_or(&none), turn: 0 };
        // Where nobody has room, that does not depend on who comes first.
        let chosen = self.terms.choose(table, pick, &mut rng(), |_| true, |_| false);
        if let (None, Some(admission)) = (chosen, self.config.admission) {
            notes.push(format!("nobody has room: it would wait for {:?} at most", admission.wait));
            return Some(Vec::new());
        }
        let waiting = table.pool().waiting();
        if self.config.admission.is_some() && waiting > 0 {
            notes.push(format!("{waiting} wait for room already: it would wait behind them"));
        }
        match send {
            Send::One(hedge) => {
                if hedge.is_some() {
                    notes.push("a second one is asked where the first is late".to_owned());
                }
                let (replica, _) = chosen.filter(|_| key.is_some())?;
                names([replica])
            }
            Send::All(_, Among::Members) => {
                notes.push(
                    "all members are asked, ready or not, until each has succeeded".to_owned(),
                );
                let members = self.terms.policy.order_members(table, pick, &mut rng());
                names(members.into_iter().filter_map(|member| table.running(member)))
            }
            Send::All(_, Among::Ready) => {
                notes.push("all that are ready are asked, until each has succeeded".to_owned());
                names(self.terms.policy.order(table, pick, &mut rng()))
            }
            Send::First(_, among) => {
                notes.push("the first success is the answer".to_owned());
                let most = among.unwrap_or(usize::MAX);
                if key.is_none() && most < table.ready_count() {
                    return None;
                }
                names(self.terms.policy.order(table, pick, &mut rng()).into_iter().take(most))
            }
        }
    }
}

/// What replicas are called.
fn names<'t>(replicas: impl IntoIterator<Item = &'t Arc<Replica>>) -> Option<Vec<String>> {
    Some(replicas.into_iter().map(|replica| replica.hostname().to_string()).collect())
}

// === impl Route ===

impl Route {
    fn of(route: &RouteConfig) -> Self {
        Self {
            name: route.name.clone(),
            policy: name(route.policy),
            send: match route.send {
                Send::One(_) => "one",
                Send::All(..) => "all",
                Send::First(..) => "first",
            },
            balance_factor: route.balance_factor.map(Factor::get),
        }
    }
}

// === impl KeyText ===

impl KeyText {
    fn of(key: &Key) -> Self {
        let bytes = key.as_bytes();
        Self {
            value: Some(String::from_utf8_lossy(bytes).into_owned()),
            encoded: Some(percent_encode(bytes, ENCODED).to_string()),
            ..Self::default()
        }
    }
}
