//! What replicas run, and since which rolling update.

use serde::{Deserialize, Serialize};

/// What replicas run, where a rolling update made that differ from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The image, if not the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The program and its arguments, if not the configured ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// One rolling update, as every replica that it started remembers it: the latest of a fleet says
/// what all of it is to run. The default is the configuration, before any update.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    /// Counts updates: the greatest is the latest. Of two balancers' updates with one number the
    /// greater by what follows wins, so that both follow the same.
    pub generation: u64,
    /// Replicas of earlier generations are replaced even when they run the same.
    pub since: u64,
    /// What it runs.
    pub spec: Spec,
}

impl Release {
    /// Whether a replica of this release may stay where `target` is wanted.
    pub fn fits(&self, target: &Self) -> bool {
        self.spec == target.spec && self.generation >= target.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(generation: u64, since: u64, image: &str) -> Release {
        Release { generation, since, spec: Spec { image: Some(image.to_owned()), command: None } }
    }

    #[test]
    fn what_runs_the_same_may_stay_unless_it_is_older_than_a_restart() {
        assert!(release(1, 0, "a").fits(&release(1, 0, "a")));
        assert!(!release(1, 0, "a").fits(&release(2, 0, "b")));
        // Back to what it was: those that were never replaced are right already.
        assert!(release(1, 0, "a").fits(&release(3, 0, "a")));
        assert!(!release(1, 0, "a").fits(&release(2, 2, "a")));
        assert!(release(2, 2, "a").fits(&release(2, 2, "a")));
    }

    #[test]
    fn it_is_written_down_and_read_again() {
        let spec = Spec { image: None, command: Some(vec!["a".into(), "{port}".into()]) };
        let release = Release { spec, ..release(3, 2, "") };
        let text = serde_json::to_string(&release).unwrap();
        assert_eq!(text, r#"{"generation":3,"since":2,"spec":{"command":["a","{port}"]}}"#);
        assert_eq!(serde_json::from_str::<Release>(&text).unwrap(), release);
        assert_eq!(serde_json::from_str::<Release>("{}").unwrap(), Release::default());
    }
}
