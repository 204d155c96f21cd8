//! What replicas run: a complete specification, its fingerprint, and the release that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use siphasher::sip128::SipHasher13;

/// The complete specification of a container or process. Placeholders of the command are kept as
/// they are written, so that all replicas of a release have the same specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// The reference of the image; `None` for processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The image ID that `image` stood for when the release was first started; `None` before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The program and its arguments; `None` for the image's own, or the embedded demo replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Variables for the environment, besides those that each replica has of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The memory limit in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The CPU limit in billionths of a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<u64>,
    /// The limit of processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// The network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The port that the replica listens on, where all replicas have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Settings that this version of the balancer gives to every container, by Docker's names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed: BTreeMap<String, String>,
}

/// The hash of a [`Spec`], the same in every process: SipHash-1-3 with 128 bits of its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(u128);

/// A specification that replicas are to run, as each of its replicas records it. The greatest
/// release of a fleet is the wanted one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Recorded", into = "Recorded")]
pub struct Release {
    generation: u64,
    since: u64,
    configured: Option<Fingerprint>,
    spec: Arc<Spec>,
    fingerprint: Fingerprint,
    /// The fingerprint without an image ID.
    unpinned: Fingerprint,
}

/// A release as it is written down.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Recorded {
    generation: u64,
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<Fingerprint>,
    spec: Spec,
}

/// A field in which two specifications differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field; of a variable, `env` and its name.
    pub field: String,
    /// Its value before and after, unless it may be a secret.
    pub values: Option<(Option<String>, Option<String>)>,
}

/// Parts of the names of variables whose values are not logged.
const SECRET: [&str; 11] =
    ["SECRET", "TOKEN", "PASS", "PWD", "KEY", "CRED", "AUTH", "PRIVATE", "DSN", "SALT", "CERT"];

// === impl Spec ===

impl Spec {
    /// Returns the hash of the whole specification.
    pub fn fingerprint(&self) -> Fingerprint {
        let text = serde_json::to_vec(self).expect("a map with string keys is always JSON");
        Fingerprint(SipHasher13::new().hash(&text).as_u128())
    }

    /// Returns the specification without the image ID: what a configuration says.
    #[must_use]
    pub fn unpinned(&self) -> Self {
        Self { digest: None, ..self.clone() }
    }

    /// Returns the fields in which `self` and a later specification differ. Image IDs are compared
    /// only where both are known.
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let command = |spec: &Self| spec.command.as_ref().map(|words| words.join(" "));
        let mut all = vec![
            ("image", self.image.clone(), after.image.clone()),
            ("command", command(self), command(after)),
            ("memory", self.memory.map(|it| it.to_string()), after.memory.map(|it| it.to_string())),
            ("cpus", self.nano_cpus.map(cpus), after.nano_cpus.map(cpus)),
            ("pids", self.pids.map(|it| it.to_string()), after.pids.map(|it| it.to_string())),
            ("network", self.network.clone(), after.network.clone()),
            ("port", self.port.map(|it| it.to_string()), after.port.map(|it| it.to_string())),
        ];
        if let (Some(before), Some(after)) = (&self.digest, &after.digest) {
            all.push(("digest", Some(before.clone()), Some(after.clone())));
        }
        let all = all.into_iter().map(|(field, before, after)| (field.to_owned(), before, after));
        let env = changed("env ", &self.env, &after.env);
        let fixed = changed("", &self.fixed, &after.fixed);
        let changed = all.chain(env).chain(fixed).filter(|(_, before, after)| before != after);
        changed.map(|(field, before, after)| Difference::new(field, before, after)).collect()
    }
}

/// Returns the entries of two maps side by side.
fn changed<'a>(
    prefix: &'static str,
    before: &'a BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (String, Option<String>, Option<String>)> + use<'a> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().map(move |name| {
        (format!("{prefix}{name}"), before.get(name).cloned(), after.get(name).cloned())
    })
}

/// Returns a CPU limit as it is configured, such as `0.5`.
fn cpus(nano: u64) -> String {
    (nano as f64 / 1e9).to_string()
}

// === impl Difference ===

impl Difference {
    fn new(field: String, before: Option<String>, after: Option<String>) -> Self {
        let secret = field.strip_prefix("env ").is_some_and(|name| {
            let name = name.to_ascii_uppercase();
            let shows_user = |value: &Option<String>| {
                value.as_ref().is_some_and(|value| value.contains("://") && value.contains('@'))
            };
            SECRET.iter().any(|part| name.contains(part))
                || shows_user(&before)
                || shows_user(&after)
        });
        Self { field, values: (!secret).then_some((before, after)) }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((before, after)) = &self.values else {
            return write!(f, "{} (value not shown)", self.field);
        };
        let shown = |value: &Option<String>| {
            value.as_ref().map_or_else(|| "unset".to_owned(), |value| format!("{value:?}"))
        };
        write!(f, "{}: {} -> {}", self.field, shown(before), shown(after))
    }
}

// === impl Fingerprint ===

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

// === impl Release ===

impl Release {
    /// Returns a release of `spec`. `generation` counts releases. Replicas of generations before
    /// `since` are replaced even when they run the same. `configured` is the configuration, without
    /// an image ID, under which the release was made.
    pub fn new(generation: u64, since: u64, configured: &Spec, spec: Spec) -> Self {
        Self::of(generation, since, Some(configured.unpinned().fingerprint()), Arc::new(spec))
    }

    fn of(generation: u64, since: u64, configured: Option<Fingerprint>, spec: Arc<Spec>) -> Self {
        let fingerprint = spec.fingerprint();
        let unpinned =
            if spec.digest.is_some() { spec.unpinned().fingerprint() } else { fingerprint };
        Self { generation, since, configured, spec, fingerprint, unpinned }
    }

    /// Returns the number of the release.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the generation before which replicas are replaced even when they run the same.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Returns what the release runs.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Returns the fingerprint of what it runs.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Reports whether the release was made under this configuration, without an image ID.
    pub fn is_configured_by(&self, configured: Fingerprint) -> bool {
        self.configured == Some(configured)
    }

    /// Reports whether the complete specification is known. Releases that earlier versions of the
    /// balancer recorded have only the image and the command of a rolling update.
    pub fn is_complete(&self) -> bool {
        self.configured.is_some()
    }

    /// Reports whether both are the same release, of which one may know the image ID.
    pub fn is_pinned_as(&self, other: &Self) -> bool {
        self.generation == other.generation && self.fits(other)
    }

    /// Returns the release with another specification.
    #[must_use]
    pub fn with_spec(&self, spec: Spec) -> Self {
        Self::of(self.generation, self.since, self.configured, Arc::new(spec))
    }

    /// Returns the release as one that was made under this configuration.
    #[must_use]
    pub fn configured_by(&self, configured: &Spec) -> Self {
        let configured = Some(configured.unpinned().fingerprint());
        Self { configured, ..self.clone() }
    }

    /// Completes the release of a replica that an earlier version of the balancer started: what it
    /// did not record is taken to be as it is `configured`.
    #[must_use]
    pub fn completed(&self, configured: &Spec) -> Self {
        if self.is_complete() {
            return self.clone();
        }
        let spec = Spec {
            image: self.spec.image.clone().or_else(|| configured.image.clone()),
            command: self.spec.command.clone().or_else(|| configured.command.clone()),
            ..configured.unpinned()
        };
        Self::new(self.generation, self.since, configured, spec)
    }

    /// Reports whether a replica of this release may stay where `target` is wanted. An image ID that
    /// is not known yet fits every other.
    pub fn fits(&self, target: &Self) -> bool {
        let unknown = self.spec.digest.is_none() || target.spec.digest.is_none();
        self.generation >= target.since
            && (self.fingerprint == target.fingerprint
                || unknown && self.unpinned == target.unpinned)
    }

    /// Takes the image ID of a replica that was started for this release, if it is the first one.
    pub fn pin(&mut self, started: &Self) {
        let first = self.spec.digest.is_none() && started.spec.digest.is_some();
        if first && self.generation == started.generation && self.unpinned == started.unpinned {
            *self = self.with_spec(started.spec().clone());
        }
    }
}

impl Default for Release {
    /// Returns the release of which nothing is recorded.
    fn default() -> Self {
        Self::of(0, 0, None, Arc::default())
    }
}

impl From<Recorded> for Release {
    fn from(recorded: Recorded) -> Self {
        let Recorded { generation, since, configured, spec } = recorded;
        Self::of(generation, since, configured, Arc::new(spec))
    }
}

impl From<Release> for Recorded {
    fn from(release: Release) -> Self {
        let Release { generation, since, configured, spec, .. } = release;
        Self { generation, since, configured, spec: Arc::unwrap_or_clone(spec) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(image: &str) -> Spec {
        Spec { image: Some(image.to_owned()), ..Spec::default() }
    }

    fn release(generation: u64, since: u64, image: &str) -> Release {
        Release::new(generation, since, &Spec::default(), spec(image))
    }

    fn pinned(generation: u64, image: &str, digest: &str) -> Release {
        let spec = Spec { digest: Some(digest.to_owned()), ..spec(image) };
        Release::new(generation, 0, &Spec::default(), spec)
    }

    #[test]
    fn a_replica_that_runs_the_same_may_stay_unless_it_is_older_than_a_restart() {
        assert!(release(1, 0, "a").fits(&release(1, 0, "a")));
        assert!(!release(1, 0, "a").fits(&release(2, 0, "b")));
        // A rollback: replicas that were never replaced are right already.
        assert!(release(1, 0, "a").fits(&release(3, 0, "a")));
        assert!(!release(1, 0, "a").fits(&release(2, 2, "a")));
        assert!(release(2, 2, "a").fits(&release(2, 2, "a")));
    }

    #[test]
    fn one_tag_with_two_image_ids_is_two_releases_and_an_unknown_image_id_fits() {
        assert!(pinned(1, "a", "id1").fits(&pinned(2, "a", "id1")));
        assert!(!pinned(1, "a", "id1").fits(&pinned(2, "a", "id2")));
        assert!(pinned(1, "a", "id1").fits(&release(2, 0, "a")));
        assert!(release(1, 0, "a").fits(&pinned(2, "a", "id2")));
        assert!(!pinned(1, "a", "id1").fits(&release(2, 2, "a")));
    }

    #[test]
    fn only_the_first_start_of_its_own_release_pins_the_image_id() {
        let mut target = release(2, 2, "a");
        target.pin(&pinned(1, "a", "other"));
        target.pin(&pinned(2, "b", "other"));
        assert_eq!(target.spec().digest, None);
        target.pin(&pinned(2, "a", "id1"));
        target.pin(&pinned(2, "a", "id2"));
        assert_eq!(target.spec().digest.as_deref(), Some("id1"));
        assert_eq!((target.generation(), target.since()), (2, 2));
        assert_eq!(target.fingerprint(), target.spec().fingerprint());
    }

    #[test]
    fn a_release_is_written_down_and_read_again() {
        let spec = Spec { command: Some(vec!["a".into(), "{port}".into()]), ..Spec::default() };
        let release = Release::new(3, 2, &spec, spec.clone());
        let text = serde_json::to_string(&release).unwrap();
        let configured = spec.fingerprint();
        let expected = format!(
            r#"{{"generation":3,"since":2,"configured":"{configured}","spec":{{"command":["a","{{port}}"]}}}}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Release>(&text).unwrap(), release);
        assert_eq!(serde_json::from_str::<Release>("{}").unwrap(), Release::default());
    }

    #[test]
    fn a_fingerprint_is_the_same_in_every_process_and_covers_every_field() {
        let base = spec("a:1");
        // Written down by earlier processes: must never change.
        assert_eq!(base.fingerprint().to_string(), "97436d8bd1e7a5e8946aa6ce4a45d19e");
        let one = || Some("x".to_owned());
        let all = [
            Spec { image: one(), ..base.clone() },
            Spec { digest: one(), ..base.clone() },
            Spec { command: Some(vec![]), ..base.clone() },
            Spec { env: [("A".into(), "b".into())].into(), ..base.clone() },
            Spec { memory: Some(1), ..base.clone() },
            Spec { nano_cpus: Some(1), ..base.clone() },
            Spec { pids: Some(1), ..base.clone() },
            Spec { network: one(), ..base.clone() },
            Spec { port: Some(1), ..base.clone() },
            Spec { fixed: [("A".into(), "b".into())].into(), ..base.clone() },
        ];
        let mut prints: Vec<Fingerprint> = all.iter().map(Spec::fingerprint).collect();
        prints.push(base.fingerprint());
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), all.len() + 1);
    }

    #[test]
    fn a_release_of_an_earlier_version_is_completed_by_the_configuration() {
        let configured = Spec { pids: Some(7), command: Some(vec!["c".into()]), ..spec("a:1") };
        let old: Release =
            serde_json::from_str(r#"{"generation":1,"since":0,"spec":{"image":"a:2"}}"#).unwrap();
        let completed = old.completed(&configured);
        let expected = Spec { image: Some("a:2".into()), ..configured.clone() };
        assert_eq!((completed.generation(), completed.spec()), (1, &expected));
        assert!(completed.is_configured_by(configured.fingerprint()));
        assert_eq!(completed.completed(&spec("b")), completed);
        assert_eq!(Release::default().completed(&configured).spec(), &configured);
    }

    #[test]
    fn differences_name_each_field_and_hide_values_that_may_be_secret() {
        let env = |text: &[(&str, &str)]| -> BTreeMap<String, String> {
            text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let before = Spec {
            env: env(&[("COLOUR", "blue"), ("DB_PASSWORD", "a"), ("OLD", "1"), ("SAME", "s")]),
            memory: Some(64),
            nano_cpus: Some(500_000_000),
            ..spec("a:1")
        };
        let after = Spec {
            env: env(&[
                ("COLOUR", "green"),
                ("DB_PASSWORD", "b"),
                ("DATABASE", "postgres://user:pw@host/x"),
                ("SAME", "s"),
            ]),
            command: Some(vec!["run".into(), "it".into()]),
            pids: Some(9),
            ..spec("a:2")
        };
        let told: Vec<String> =
            before.differences(&after).iter().map(ToString::to_string).collect();
        let expected = [
            r#"image: "a:1" -> "a:2""#,
            r#"command: unset -> "run it""#,
            r#"memory: "64" -> unset"#,
            r#"cpus: "0.5" -> unset"#,
            r#"pids: unset -> "9""#,
            r#"env COLOUR: "blue" -> "green""#,
            "env DATABASE (value not shown)",
            "env DB_PASSWORD (value not shown)",
            r#"env OLD: "1" -> unset"#,
        ];
        assert_eq!(told, expected);
        assert_eq!(before.differences(&before), []);
    }
}
