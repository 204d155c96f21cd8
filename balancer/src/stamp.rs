//! How a file lies there: what changes whenever somebody writes it, or puts another in its place.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that changed so shortly before a look may change again without a trace: its time of
/// change only has some hundredths of a second.
const FRESH: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
    device: u64,
}

impl Stamp {
    /// That of the file that is there now, if one is.
    pub fn of(path: &Path) -> Option<Self> {
        let about = fs::metadata(path).ok()?;
        Some(Self {
            modified: about.modified().ok(),
            length: about.len(),
            inode: about.ino(),
            device: about.dev(),
        })
    }

    /// Whether the file may have changed again since without changing this.
    pub fn is_fresh(&self) -> bool {
        // A time to come says as little.
        self.modified.and_then(|at| at.elapsed().ok()).is_none_or(|age| age < FRESH)
    }
}
