//! The file of servers, and whether it has changed.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::config::{ServersConfig, ServersError, ServersFile};
use crate::fleet::listed::Server;
use crate::stamp::Stamp;
use crate::telemetry::chain;

/// How often it is looked at, and how long that may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// A file that changes is read again after so long, until it is the same twice: whoever writes it
/// may be in the midst of it.
const SETTLES: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Watched {
    config: ServersConfig,
    path: PathBuf,
    /// What was found last, good or bad.
    last: Content,
    /// What is in force.
    good: Content,
    /// How it looked when it was read last; none when that says nothing.
    stamp: Option<Stamp>,
}

/// What was found in the file, or why nothing was.
type Content = Result<Vec<u8>, String>;

// === impl Watched ===

impl Watched {
    /// Watches the file of a configuration, if it has one.
    pub(super) fn new(config: &ServersConfig) -> Option<Self> {
        let ServersFile { path, content } = config.file.clone()?;
        let (last, good) = (Ok(content.clone()), Ok(content));
        Some(Self { config: config.clone(), path, last, good, stamp: None })
    }

    /// Waits until it lists other servers; tells all that there are to be then, with those of the
    /// configuration. A file that is no good is told in the log, once, and changes nothing.
    pub(super) async fn changed(&mut self) -> Vec<Server> {
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(servers) = self.look().await {
                return servers;
            }
        }
    }

    async fn look(&mut self) -> Option<Vec<Server>> {
        let stamp = self.stamp().await;
        if stamp.is_some() && stamp == self.stamp {
            return None;
        }
        let content = self.read().await;
        if content == self.last {
            self.stamp = stamp.filter(|stamp| !stamp.is_fresh());
            return None;
        }
        sleep(SETTLES).await;
        // It may be the same though it was written between: empty twice, say.
        if self.read().await != content || self.stamp().await != stamp {
            return None;
        }
        self.stamp = None;
        self.last.clone_from(&content);
        self.judge(content)
    }

    /// Takes what the file has become.
    fn judge(&mut self, content: Content) -> Option<Vec<Server>> {
        if content == self.good {
            return None;
        }
        let all = match &content {
            Ok(text) => self.config.all(text).map_err(|error| chain(&error)),
            Err(error) => Err(error.clone()),
        };
        match all {
            Ok(servers) => {
                self.good = content;
                Some(servers)
            }
            Err(error) => {
                let file = self.path.display();
                warn!(%file, error, "servers file is no good; the list stays as it is");
                None
            }
        }
    }

    async fn stamp(&self) -> Option<Stamp> {
        let path = self.path.clone();
        blocking(move || Stamp::of(&path)).await.flatten()
    }

    async fn read(&self) -> Content {
        let path = self.path.clone();
        let read = blocking(move || ServersFile::read(&path)).await;
        let late = || format!("it was not read within {LOOK_WITHIN:?}");
        let read: Result<ServersFile, ServersError> = read.ok_or_else(late)?;
        read.map(|file| file.content).map_err(|error| chain(&error))
    }
}

/// A file can be on a disk that does not answer: then there is no result.
async fn blocking<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(LOOK_WITHIN, spawn_blocking(look)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file with this in it, watched.
    fn watched(content: &str) -> (tempfile::TempDir, Watched) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers");
        fs::write(&path, content).unwrap();
        let servers = vec!["own:1".parse().unwrap()];
        let file = Some(ServersFile::read(&path).unwrap());
        let config = ServersConfig { servers, file, capacity: None };
        (folder, Watched::new(&config).unwrap())
    }

    async fn look(watched: &mut Watched) -> Option<Vec<String>> {
        let servers = watched.look().await?;
        Some(servers.into_iter().map(|server| server.address).collect())
    }

    #[tokio::test]
    async fn a_changed_file_lists_all_with_those_of_the_configuration() {
        let (_folder, mut watched) = watched("a:1");
        assert_eq!(look(&mut watched).await, None);
        fs::write(&watched.path, "b:1\na:1").unwrap();
        let all = ["own:1", "b:1", "a:1"].map(str::to_owned).to_vec();
        assert_eq!(look(&mut watched).await, Some(all));
        assert_eq!(look(&mut watched).await, None);
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_by_one_of_the_same_size_is_seen() {
        let (folder, mut watched) = watched("a:1");
        let next = folder.path().join("next");
        for (round, name) in (0..).zip(["b:1", "c:1", "d:1"]) {
            fs::write(&next, name).unwrap();
            fs::rename(&next, &watched.path).unwrap();
            let all = vec!["own:1".to_owned(), name.to_owned()];
            assert_eq!(look(&mut watched).await, Some(all), "round {round}");
        }
    }

    #[tokio::test]
    async fn what_is_no_good_changes_nothing_and_what_was_good_is_no_news() {
        let (_folder, mut watched) = watched("a:1");
        for bad in ["", "a:1\nb", "own:1", "# a:1"] {
            fs::write(&watched.path, bad).unwrap();
            assert_eq!(look(&mut watched).await, None, "{bad}");
        }
        fs::remove_file(&watched.path).unwrap();
        assert_eq!(look(&mut watched).await, None);
        fs::create_dir(&watched.path).unwrap();
        assert_eq!(look(&mut watched).await, None);
        fs::remove_dir(&watched.path).unwrap();
        fs::write(&watched.path, "a:1").unwrap();
        assert_eq!(look(&mut watched).await, None);
        fs::write(&watched.path, "a:2").unwrap();
        assert!(look(&mut watched).await.is_some());
    }
}
