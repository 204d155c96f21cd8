//! Routes: what becomes of which requests.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::admission;
use super::check::{given_span, must, within};
use super::forwarding::BODY_MOST;
use super::settings::{
    AmongKind, Attempts, BackoffSettings, HedgeSettings, PolicyKind, RouteRetry, RouteSettings,
    RouteTimeouts, SendKind,
};
use super::value::{Percent, Size, Span};
use super::{AdmissionConfig, ConfigError, RetryConfig, Timeouts};
use crate::routing::bounded::Factor;
use crate::routing::choice::Terms;
use crate::routing::key::KeySource;
use crate::routing::matching::Matching;
use crate::routing::policy::Policy;
use crate::routing::repeat::Repeat;
use crate::routing::table::{Most, Replica};

/// What becomes of the requests that a route takes.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// What it is called in logs and metrics.
    pub name: String,
    /// Which requests it takes.
    pub matching: Matching,
    /// How one replica is chosen.
    pub policy: Policy,
    /// How much more than its share a replica may have, with [`Policy::Hash`].
    pub balance_factor: Option<Factor>,
    /// What its requests are placed by.
    pub key: KeySource,
    /// Whether a request without the cookie of its key gets one.
    pub issue: bool,
    /// How many replicas one request goes to.
    pub send: Send,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// When a request is tried again at another replica.
    pub retry: RetryConfig,
}

/// How many replicas one request goes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Send {
    /// To one; to a second one where that is late.
    One(Option<HedgeConfig>),
    /// To all of these, until each has succeeded.
    All(FanConfig, Among),
    /// To so many at once, or all; the first success is the answer.
    First(FanConfig, Option<usize>),
}

/// A request that goes to several replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct FanConfig {
    /// The statuses that are a success; any 2xx where none are given.
    pub success: Vec<u16>,
    /// How often each replica is asked, or how many rounds there are, the first included;
    /// [`UNLIMITED`] for no limit.
    pub attempts: u32,
    /// The pauses between those.
    pub repeat: Repeat,
    /// Whether nothing is repeated for a client that has gone.
    pub abandon: bool,
    /// Most bytes of the request's body, and of an answer's that is held.
    pub body: usize,
}

/// The replicas that a request with `send = "all"` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// Every member of the ring when the request comes; of each its replica at the time of an
    /// attempt.
    Members,
    /// The replicas that are ready when the request comes.
    Ready,
}

/// More attempts than can be made.
pub const UNLIMITED: u32 = u32::MAX;

/// When a second replica is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeConfig {
    /// How late the first answer must be.
    pub after: HedgeAfter,
    /// The share of requests that may be hedged, 0 to 1.
    pub budget: f64,
}

/// How late an answer must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeAfter {
    /// So late.
    Span(Duration),
    /// Later than this share of the answers of late, 0 to 1.
    Quantile(f64),
}

/// The route of requests that no other takes.
pub const DEFAULT_ROUTE: &str = "default";

/// The route of requests that are refused before one is found: what they asked for could not be
/// read.
pub const NO_ROUTE: &str = "none";

/// Most routes: each request looks through them.
const ROUTES_MAX: usize = 1_000;

/// Most attempts, if they are limited.
const ATTEMPTS_MAX: u32 = 10_000;

/// The longest name.
const NAME_MAX: usize = 64;

/// What routes have where they say nothing.
#[derive(Clone, Copy)]
pub(super) struct Defaults<'a> {
    pub(super) policy: Policy,
    pub(super) balance_factor: Option<Factor>,
    pub(super) key: &'a KeySource,
    pub(super) timeouts: Timeouts,
    pub(super) retry: RetryConfig,
}

/// Says of which route something is.
struct Field(String);

// === impl RouteConfig ===

impl RouteConfig {
    /// By what a replica is chosen for a request that goes to one, under these limits.
    pub fn terms(
        &self,
        admission: Option<AdmissionConfig>,
    ) -> Terms<impl Fn(&Replica) -> Most + use<>> {
        Terms {
            policy: self.policy,
            factor: self.balance_factor,
            limits: admission.map(|config| move |replica: &Replica| config.most(replica)),
        }
    }
}

// === impl Defaults ===

impl Defaults<'_> {
    /// The route of requests that no other takes.
    pub(super) fn route(&self) -> RouteConfig {
        RouteConfig {
            name: DEFAULT_ROUTE.to_owned(),
            matching: Matching::default(),
            policy: self.policy,
            balance_factor: self.balance_factor,
            key: self.key.clone(),
            issue: false,
            send: Send::One(None),
            timeouts: self.timeouts,
            retry: self.retry,
        }
    }
}

/// The routes, in their order, and behind them the one that takes what is left.
pub(super) fn routes(
    settings: Vec<RouteSettings>,
    defaults: Defaults<'_>,
) -> Result<Vec<RouteConfig>, ConfigError> {
    if settings.len() > ROUTES_MAX {
        return Err(must("route", format!("must be there {ROUTES_MAX} times at most")));
    }
    let mut routes = Vec::with_capacity(settings.len() + 1);
    let mut names = BTreeSet::from([DEFAULT_ROUTE.to_owned(), NO_ROUTE.to_owned()]);
    for (number, settings) in (1..).zip(settings) {
        let name = settings.name.clone().unwrap_or_else(|| format!("route-{number}"));
        let field = Field(format!("route {name:?}"));
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(good) {
            let why = format!("must be 1 to {NAME_MAX} letters, digits, '-', '_' or '.'");
            return Err(field.must("name", why));
        }
        if !names.insert(name.clone()) {
            return Err(field
                .must("name", "must not be that of another route, nor \"default\" or \"none\""));
        }
        routes.push(route(name, settings, defaults, &field)?);
    }
    routes.push(defaults.route());
    Ok(routes)
}

fn route(
    name: String,
    settings: RouteSettings,
    defaults: Defaults<'_>,
    field: &Field,
) -> Result<RouteConfig, ConfigError> {
    let matching = matching(&settings, field)?;
    let policy = settings.policy.map_or(defaults.policy, policy);
    let given =
        admission::factor(&format!("{}: balance_factor", field.0), settings.balance_factor)?;
    if given.is_some() && policy != Policy::Hash {
        return Err(field.must("balance_factor", "needs policy = \"hash\""));
    }
    let balance_factor = given.or(defaults.balance_factor).filter(|_| policy == Policy::Hash);
    let key = match &settings.key {
        Some(key) => field.parse::<KeySource>("key", key)?,
        None => defaults.key.clone(),
    };
    let issue = settings.issue.unwrap_or(false);
    if issue && (!matches!(key, KeySource::Cookie(_)) || policy != Policy::Hash) {
        return Err(field.must("issue", "needs key = \"cookie:NAME\" and policy = \"hash\""));
    }
    let send = send(&settings, field)?;
    if issue && !matches!(send, Send::One(_)) {
        return Err(field.must("issue", "needs send = \"one\""));
    }
    Ok(RouteConfig {
        name,
        matching,
        policy,
        balance_factor,
        key,
        issue,
        send,
        timeouts: timeouts(settings.timeouts, defaults.timeouts, field)?,
        retry: retry(settings.retry, defaults.retry, field)?,
    })
}

/// The policy of a setting.
pub(super) fn policy(kind: PolicyKind) -> Policy {
    match kind {
        PolicyKind::Hash => Policy::Hash,
        PolicyKind::RoundRobin => Policy::RoundRobin,
        PolicyKind::LeastRequests => Policy::LeastRequests,
        PolicyKind::TwoChoices => Policy::TwoChoices,
    }
}

fn matching(settings: &RouteSettings, field: &Field) -> Result<Matching, ConfigError> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    for method in &settings.methods {
        if method.is_empty() || !method.chars().all(token) {
            let why = format!("must be a list of methods such as \"POST\", not {method:?}");
            return Err(field.must("methods", why));
        }
    }
    Ok(Matching {
        hosts: field.parse_all("hosts", &settings.hosts)?,
        methods: settings.methods.clone(),
        paths: field.parse_all("paths", &settings.paths)?,
    })
}

fn send(settings: &RouteSettings, field: &Field) -> Result<Send, ConfigError> {
    let kind = settings.send.unwrap_or_default();
    let of_several = [
        ("success", settings.success.is_some()),
        ("attempts", settings.attempts.is_some()),
        ("backoff", settings.backoff.is_some()),
        ("abandon", settings.abandon.is_some()),
        ("body", settings.body.is_some()),
    ];
    let idle = of_several.iter().find(|(_, given)| *given && kind == SendKind::One);
    if let Some((key, _)) = idle {
        return Err(field.must(key, "needs send = \"all\" or send = \"first\""));
    }
    if settings.among.is_some() && kind != SendKind::All {
        return Err(field.must("among", "needs send = \"all\""));
    }
    if settings.fan.is_some() && kind != SendKind::First {
        return Err(field.must("fan", "needs send = \"first\""));
    }
    if settings.hedge.is_some() && kind != SendKind::One {
        return Err(field.must("hedge", "needs send = \"one\""));
    }
    Ok(match kind {
        SendKind::One => Send::One(settings.hedge.as_ref().map(|it| hedge(it, field)).transpose()?),
        SendKind::All => {
            let among = match settings.among.unwrap_or_default() {
                AmongKind::Members => Among::Members,
                AmongKind::Ready => Among::Ready,
            };
            Send::All(fan(settings, field)?, among)
        }
        SendKind::First => {
            let among =
                settings.fan.map(|among| field.within("fan", among, 1, 1_000)).transpose()?;
            Send::First(fan(settings, field)?, among.map(|among| among as usize))
        }
    })
}

fn fan(settings: &RouteSettings, field: &Field) -> Result<FanConfig, ConfigError> {
    let success = settings.success.clone().unwrap_or_default();
    // RFC 9110 15.2: one below 200 is no answer.
    if settings.success.is_some() && success.is_empty()
        || success.iter().any(|status| !(200..=599).contains(status))
    {
        return Err(field.must("success", "must be a list of statuses from 200 to 599"));
    }
    let body = field.within("body", settings.body.unwrap_or(Size(1 << 20)), Size(0), BODY_MOST)?;
    let attempts = match settings.attempts.unwrap_or(Attempts::Count(10)) {
        Attempts::Count(count) if (1..=ATTEMPTS_MAX).contains(&count) => count,
        Attempts::Count(count) => {
            let why = format!("must be 1 to {ATTEMPTS_MAX} or \"unlimited\", not {count}");
            return Err(field.must("attempts", why));
        }
        Attempts::Unlimited => UNLIMITED,
    };
    Ok(FanConfig {
        success,
        attempts,
        repeat: repeat(settings.backoff.unwrap_or_default(), field)?,
        abandon: settings.abandon.unwrap_or(false),
        body: body.0 as usize,
    })
}

fn repeat(settings: BackoffSettings, field: &Field) -> Result<Repeat, ConfigError> {
    let BackoffSettings { base, max, jitter } = settings;
    let base = field.span("backoff.base", base, Duration::from_secs(1))?;
    let max = field.span("backoff.max", max, base.max(Duration::from_secs(64)))?;
    if max < base {
        let (base, max) = (Span(base), Span(max));
        let why = format!("must be at least 'backoff.base', which is {base}, not {max}");
        return Err(field.must("backoff.max", why));
    }
    let jitter = match jitter {
        Some(Span(Duration::ZERO)) => Duration::ZERO,
        jitter => field.span("backoff.jitter", jitter, Duration::from_millis(100))?,
    };
    Ok(Repeat { base, max, jitter })
}

fn hedge(settings: &HedgeSettings, field: &Field) -> Result<HedgeConfig, ConfigError> {
    let after = settings.after.as_deref().unwrap_or("p95");
    let quantile = after.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok());
    let after = match quantile {
        Some(percent) if (1.0..=99.9).contains(&percent) => HedgeAfter::Quantile(percent / 100.0),
        Some(_) => return Err(field.must("hedge.after", "must be a duration, or p1 to p99.9")),
        None => {
            let span = field.parse::<Span>("hedge.after", after)?;
            HedgeAfter::Span(field.span("hedge.after", Some(span), span.0)?)
        }
    };
    let budget = settings.budget.unwrap_or(Percent(5.0));
    let budget = field.within("hedge.budget", budget, Percent(0.0), Percent(100.0))?;
    Ok(HedgeConfig { after, budget: budget.share() })
}

fn timeouts(
    settings: RouteTimeouts,
    default: Timeouts,
    field: &Field,
) -> Result<Timeouts, ConfigError> {
    let RouteTimeouts { first_byte, client_body, replica_body, tunnel } = settings;
    Ok(Timeouts {
        first_byte: field.span("timeouts.first_byte", first_byte, default.first_byte)?,
        client_body: field.span("timeouts.client_body", client_body, default.client_body)?,
        replica_body: field.span("timeouts.replica_body", replica_body, default.replica_body)?,
        tunnel: field.span("timeouts.tunnel", tunnel, default.tunnel)?,
        ..default
    })
}

fn retry(
    settings: RouteRetry,
    default: RetryConfig,
    field: &Field,
) -> Result<RetryConfig, ConfigError> {
    let RouteRetry { attempts, deadline, body } = settings;
    let attempts =
        attempts.map(|attempts| field.within("retry.attempts", attempts, 1, 100)).transpose()?;
    let body = body.map(|body| field.within("retry.body", body, Size(0), BODY_MOST)).transpose()?;
    Ok(RetryConfig {
        attempts: attempts.map_or(default.attempts, |attempts| attempts as usize),
        deadline: field.span("retry.deadline", deadline, default.deadline)?,
        body: body.map_or(default.body, |body| body.0 as usize),
        ..default
    })
}

// === impl Field ===

impl Field {
    fn must(&self, key: &str, why: impl Into<String>) -> ConfigError {
        must(format!("{}: {key}", self.0), why)
    }

    fn within<T: PartialOrd + Display>(
        &self,
        key: &str,
        value: T,
        least: T,
        most: T,
    ) -> Result<T, ConfigError> {
        within(format!("{}: {key}", self.0), value, least..=most)
    }

    fn span(
        &self,
        key: &str,
        given: Option<Span>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        match given {
            Some(span) => given_span(format!("{}: {key}", self.0), span),
            None => Ok(default),
        }
    }

    fn parse<T: FromStr<Err: Display>>(&self, key: &str, text: &str) -> Result<T, ConfigError> {
        text.parse().map_err(|bad| self.must(key, format!("is wrong: {bad}")))
    }

    fn parse_all<T: FromStr<Err: Display>>(
        &self,
        key: &str,
        texts: &[String],
    ) -> Result<Vec<T>, ConfigError> {
        texts.iter().map(|text| self.parse(key, text)).collect()
    }
}

// === impl FanConfig ===

impl FanConfig {
    /// Whether an answer with this status is a success.
    pub fn is_success(&self, status: u16) -> bool {
        if self.success.is_empty() {
            return (200..300).contains(&status);
        }
        self.success.contains(&status)
    }
}
