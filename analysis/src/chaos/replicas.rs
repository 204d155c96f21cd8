//! The replicas of one balancer seen from outside, by what the kernel or the engine says of them,
//! and what can be done to them.

use rustix::process::Signal;

use crate::system::signal;
use crate::system::victim::{Marked, docker, marked};

/// Where the replicas of one balancer are looked for.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Processes with this journal in their environment: no others have it.
    Processes { journal: String },
    /// Containers with the label of this pool.
    Containers { pool: String, network: String },
}

/// A replica as it is seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) handle: Handle,
    /// None for a spare.
    pub(crate) seat: Option<u32>,
    /// As `/rep` has it, where that is known.
    pub(crate) hostname: Option<String>,
    /// Whether it is alive; a hung one is.
    pub(crate) runs: bool,
}

/// By which it is hurt. No other replica ever has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    Process(u32),
    Container(String),
}

/// What can be done to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    Kill,
    Hang,
    WakeUp,
    Stop,
    Remove,
    Disconnect,
    Connect,
}

/// The variable that tells a process replica's name.
pub(crate) const HOSTNAME: &str = "REPLICA_HOSTNAME";
/// The variable that tells where its journal is.
pub(crate) const JOURNAL: &str = "SERVER_JOURNAL";

const COLUMNS: &str = "{{.ID}}\t{{.State}}\t{{.Names}}\t{{.Label \"balancer.seat\"}}\t\
                       {{.Label \"balancer.hostname\"}}";

// === impl Place ===

impl Place {
    /// All that there are, dead containers included.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or the engine does not answer.
    pub(crate) async fn all(&self) -> anyhow::Result<Vec<Found>> {
        match self {
            Self::Processes { journal } => {
                Ok(marked(JOURNAL, journal)?.iter().map(Found::of_process).collect())
            }
            Self::Containers { pool, .. } => {
                let filter = format!("label=balancer.pool={pool}");
                let listed = ["ps", "--all", "--no-trunc", "--filter", &filter];
                let lines = docker(&[&listed[..], &["--format", COLUMNS]].concat()).await?;
                lines.lines().map(Found::of_line).collect()
            }
        }
    }

    /// Does it to one of them.
    ///
    /// # Errors
    /// When it is gone, or it cannot be done.
    pub(crate) async fn strike(&self, handle: &Handle, strike: Strike) -> anyhow::Result<()> {
        match (self, handle) {
            (Self::Containers { network, .. }, Handle::Container(id)) => {
                docker(&words(strike, id, network)).await.map(drop)
            }
            (_, Handle::Process(pid)) => signal(*pid, signal_of(strike)?),
            (Self::Processes { .. }, Handle::Container(id)) => {
                anyhow::bail!("{id} is a container, not a process")
            }
        }
    }
}

fn words<'a>(strike: Strike, id: &'a str, network: &'a str) -> Vec<&'a str> {
    match strike {
        Strike::Kill => vec!["kill", "--signal", "KILL", id],
        Strike::Hang => vec!["pause", id],
        Strike::WakeUp => vec!["unpause", id],
        Strike::Stop => vec!["stop", id],
        Strike::Remove => vec!["rm", "--force", id],
        Strike::Disconnect => vec!["network", "disconnect", network, id],
        Strike::Connect => vec!["network", "connect", network, id],
    }
}

fn signal_of(strike: Strike) -> anyhow::Result<Signal> {
    match strike {
        Strike::Kill => Ok(Signal::KILL),
        Strike::Hang => Ok(Signal::STOP),
        Strike::WakeUp => Ok(Signal::CONT),
        Strike::Stop => Ok(Signal::TERM),
        Strike::Remove | Strike::Disconnect | Strike::Connect => {
            anyhow::bail!("{strike:?} is nothing that can be done to a process")
        }
    }
}

// === impl Found ===

impl Found {
    fn of_process(process: &Marked) -> Self {
        Self {
            handle: Handle::Process(process.pid),
            seat: process.seat(),
            hostname: process.variable(HOSTNAME).map(str::to_owned),
            runs: true,
        }
    }

    /// Of a line of `docker ps`, in the order of [`COLUMNS`].
    fn of_line(line: &str) -> anyhow::Result<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [id, state, name, seat, hostname] = columns[..] else {
            anyhow::bail!("docker ps says {line:?}");
        };
        Ok(Self {
            handle: Handle::Container(id.to_owned()),
            seat: seat_of(seat, name),
            hostname: Some(hostname).filter(|name| !name.is_empty()).map(str::to_owned),
            runs: matches!(state, "running" | "paused"),
        })
    }
}

/// The seat of a container: its label says it, but that of one which began as a spare cannot be
/// changed, so that its name does once it has one.
fn seat_of(label: &str, name: &str) -> Option<u32> {
    match label {
        "spare" => name.rsplit_once(".seat-")?.1.parse().ok(),
        seat => seat.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Found {
        Found::of_line(line).unwrap()
    }

    #[test]
    fn a_container_is_told_by_its_labels() {
        let expected = Found {
            handle: Handle::Container("abc".to_owned()),
            seat: Some(3),
            hostname: Some("S3".to_owned()),
            runs: true,
        };
        assert_eq!(found("abc\trunning\ts3\t3\tS3"), expected);
        assert!(found("abc\tpaused\ts3\t3\tS3").runs);
        assert!(!found("abc\texited\ts3\t3\tS3").runs);
        assert!(Found::of_line("abc running").is_err());
    }

    #[test]
    fn a_spare_has_a_seat_once_its_name_says_so() {
        assert_eq!(found("abc\trunning\tx77.seat-12\tspare\tX77").seat, Some(12));
        assert_eq!(found("abc\trunning\tx77\tspare\tX77").seat, None);
        assert_eq!(found("abc\trunning\tx77.seat-12\t4\tX77").seat, Some(4));
    }

    #[test]
    fn what_a_process_has_no_part_in_cannot_be_done_to_it() {
        assert_eq!(signal_of(Strike::Hang).unwrap(), Signal::STOP);
        assert!(signal_of(Strike::Disconnect).is_err());
        assert_eq!(words(Strike::Disconnect, "abc", "net1")[1..], ["disconnect", "net1", "abc"]);
    }

    #[tokio::test]
    async fn no_process_has_a_journal_that_nobody_named() {
        let place = Place::Processes { journal: "nowhere:0".to_owned() };
        assert_eq!(place.all().await.unwrap(), []);
    }
}
