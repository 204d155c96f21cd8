//! A configuration that changes while the balancer runs: it is read again on SIGHUP and when its
//! file has changed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::task::{JoinError, spawn_blocking};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::settings::Settings;
use crate::config::{Config, ConfigFile};
use crate::descriptors;
use crate::proxy::Common;
use crate::stamp::Stamp;
use crate::state::Shared;
use crate::telemetry::chain;

/// How often the file is looked at. What has changed is taken when the next look finds the same,
/// untouched since: one that is written in place is empty, or cut short, for a moment.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its file, if it has one, as it was at the start.
    pub file: Option<ConfigFile>,
    /// The environment and the flags, which stay as they are.
    pub settings: Settings,
}

/// The file, good or bad, or why it cannot be read.
type Read = Result<ConfigFile, String>;

/// What a look at the file found; nothing where there is none to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    file: Option<Read>,
    stamp: Option<Stamp>,
}

/// Which of the looks are taken.
#[derive(Debug)]
struct Looks {
    /// What the last that was taken found.
    taken: Option<Read>,
    last: Option<Found>,
    /// Whether the look that was taken last found a file that sets nothing, which set something
    /// before: it was truncated, so what it set stays.
    emptied: bool,
    /// Whether the configuration in force sets something.
    is_set: bool,
}

// === impl Source ===

impl Source {
    /// Follows it for ever: what is good takes effect as far as it can, what is not changes nothing.
    /// `running` is what the balancer began with.
    ///
    /// # Errors
    /// When there is no hearing of signals.
    pub async fn follow(
        self,
        mut running: Config,
        common: Arc<Common>,
        shared: Arc<Shared>,
    ) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut looks = Looks::new(self.file.clone());
        let path = self.file.as_ref().map(|file| file.path().to_owned());
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = sleep(LOOK_EVERY), if path.is_some() => false,
            };
            if !looks.next(Found::at(path.clone()).await, asked) {
                continue;
            }
            if looks.emptied {
                warn!("configuration file is empty: it is ignored");
                continue;
            }
            match self.config(looks.taken.clone()) {
                Ok(config) => {
                    running = apply(config, running, &common);
                    if let Err(error) = shared.configure(running.release()).await {
                        warn!(error = chain(&error), "replicas stay as they are");
                    }
                }
                Err(error) => {
                    warn!(error, "configuration is not good; the one that was read before stays");
                }
            }
        }
    }

    fn config(&self, file: Option<Read>) -> Result<Config, String> {
        let file = file.transpose()?;
        Config::new(file.as_ref(), self.settings.clone()).map_err(|error| chain(&error))
    }
}

// === impl Found ===

impl Found {
    async fn at(path: Option<PathBuf>) -> Self {
        let Some(path) = path else { return Self::default() };
        let look = move || {
            let file = ConfigFile::read(&path).map_err(|error| chain(&error));
            Self { file: Some(file), stamp: Stamp::of(&path) }
        };
        let failed = |error: JoinError| Self { file: Some(Err(chain(&error))), stamp: None };
        spawn_blocking(look).await.unwrap_or_else(failed)
    }
}

// === impl Looks ===

impl Looks {
    fn new(begun: Option<ConfigFile>) -> Self {
        let is_set = begun.as_ref().is_some_and(|file| !file.is_blank());
        Self { taken: begun.map(Ok), last: None, emptied: false, is_set }
    }

    /// Whether the next look is one to take: it stands and says something new, or was `asked` for.
    fn next(&mut self, found: Found, asked: bool) -> bool {
        let stands = self.last.as_ref() == Some(&found);
        let take = asked || stands && found.file != self.taken;
        if take {
            self.taken.clone_from(&found.file);
            if let Some(Ok(file)) = &found.file {
                self.emptied = file.is_blank() && self.is_set;
                self.is_set |= !file.is_blank();
            } else {
                self.emptied = false;
            }
        }
        self.last = Some(found);
        take
    }
}

/// Lets a configuration take effect; what cannot is told, and stays as it is.
fn apply(mut config: Config, running: Config, common: &Common) -> Config {
    if let Some(limit) = descriptors::limit() {
        descriptors::share_out(&mut config, limit);
    }
    let (config, stays) = config.after(running);
    if !stays.is_empty() {
        let keys = stays.join(", ");
        warn!(keys, "these settings have changed and need a restart of the balancer");
    }
    common.reload(config.clone());
    info!(routes = config.routes.len(), "configuration was read again");
    config
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use super::*;

    /// A file that is followed, with this in it from the start.
    struct Followed {
        folder: tempfile::TempDir,
        looks: Looks,
    }

    impl Followed {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("balancer.toml");
            fs::write(&path, text).unwrap();
            let looks = Looks::new(Some(ConfigFile::read(&path).unwrap()));
            Self { folder, looks }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("balancer.toml")
        }

        /// Written in place, at a time that no other write had.
        fn write(&self, text: &str, second: u64) {
            fs::write(self.path(), text).unwrap();
            let file = File::options().write(true).open(self.path()).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }

        /// What the next look has taken, if anything.
        async fn look(&mut self, asked: bool) -> Option<Read> {
            let found = Found::at(Some(self.path())).await;
            if self.looks.next(found, asked) { self.looks.taken.clone() } else { None }
        }

        /// As above, as the file is now.
        fn now(&self) -> Option<Read> {
            Some(ConfigFile::read(&self.path()).map_err(|error| chain(&error)))
        }
    }

    #[tokio::test]
    async fn a_change_is_taken_once_when_it_stands() {
        let mut file = Followed::new("a");
        assert_eq!(file.look(false).await, None);
        assert_eq!(file.look(false).await, None);
        file.write("b", 1);
        assert_eq!(file.look(false).await, None);
        assert_eq!(file.look(false).await, file.now());
        assert_eq!(file.look(false).await, None);
        fs::remove_file(file.path()).unwrap();
        assert_eq!(file.look(false).await, None);
        let gone = file.look(false).await;
        assert!(gone.clone().unwrap().unwrap_err().contains("No such file"), "{gone:?}");
        assert_eq!(file.look(false).await, None);
    }

    #[tokio::test]
    async fn what_is_the_same_twice_but_was_written_between_does_not_stand() {
        let mut file = Followed::new("a");
        for second in 1..5 {
            // As every look may find a file that is written again and again.
            file.write("", second);
            assert_eq!(file.look(false).await, None, "{second}");
        }
        assert_eq!(file.look(false).await, file.now());
    }

    #[tokio::test]
    async fn what_changed_since_the_start_is_taken_and_what_is_as_it_was_is_not() {
        let mut file = Followed::new("a");
        file.write("b", 1);
        assert_eq!(file.look(false).await, None);
        file.write("a", 2);
        assert_eq!(file.look(false).await, None);
        assert_eq!(file.look(false).await, None);
        file.write("b", 3);
        assert_eq!(file.look(false).await, None);
        assert_eq!(file.look(false).await, file.now());
    }

    #[tokio::test]
    async fn a_file_that_has_become_empty_is_ignored_and_one_that_always_was_is_not() {
        let mut file = Followed::new("access_log = true");
        for (second, text) in [(1, ""), (2, " \n\t\n"), (3, "# access_log = true\n")] {
            file.write(text, second);
            assert_eq!(file.look(false).await, None, "{text:?}");
            assert_eq!(file.look(false).await, file.now(), "{text:?}");
            assert!(file.looks.emptied, "{text:?}");
            assert_eq!(file.look(false).await, None, "{text:?}: told once");
            assert_eq!(file.look(true).await, file.now());
            assert!(file.looks.emptied, "{text:?}: also where it is asked for");
        }
        file.write("access_log = false", 4);
        assert_eq!(file.look(true).await, file.now());
        assert!(!file.looks.emptied);

        let mut file = Followed::new("# nothing");
        file.write("", 1);
        assert_eq!(file.look(true).await, file.now());
        assert!(!file.looks.emptied);
    }

    #[tokio::test]
    async fn who_asks_is_given_what_is_there_and_it_is_not_taken_again() {
        let mut file = Followed::new("a");
        assert_eq!(file.look(true).await, file.now());
        file.write("b", 1);
        assert_eq!(file.look(true).await, file.now());
        assert_eq!(file.look(false).await, None);
        assert_eq!(file.look(false).await, None);
    }
}
