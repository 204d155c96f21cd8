//! Listed servers: those of the configuration itself, and a file of more.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::ConfigError;
use super::check::must;
use crate::fleet::listed::{self, BadList, Server};

/// Listed servers.
#[derive(Clone, Debug)]
pub struct ServersConfig {
    /// Those of the configuration itself: they stay, whatever the file says.
    pub servers: Vec<Server>,
    /// More of them, followed when it changes.
    pub file: Option<ServersFile>,
    /// How many there may be, where the placement has a bound.
    pub capacity: Option<usize>,
}

/// What is in the file changes by itself: two are equal that follow the same one.
impl PartialEq for ServersConfig {
    fn eq(&self, other: &Self) -> bool {
        let path = |config: &Self| config.file.as_ref().map(|file| file.path.clone());
        self.servers == other.servers
            && path(self) == path(other)
            && self.capacity == other.capacity
    }
}

/// A file of servers, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServersFile {
    /// Where it is.
    pub path: PathBuf,
    /// What was in it.
    pub content: Vec<u8>,
}

/// Why a file of servers is not taken.
#[derive(Debug, Error)]
pub enum ServersError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is a folder, a pipe or a device.
    #[error("it must be a regular file")]
    NotAFile,
    /// It is too large.
    #[error("it must be at most {FILE_MAX} bytes")]
    TooLarge,
    /// It is not text.
    #[error("line {line}: it must be UTF-8")]
    NotText {
        /// Where it ceases to be.
        line: usize,
    },
    /// It lists no good servers.
    #[error(transparent)]
    List(#[from] BadList),
    /// It lists a server that the configuration lists, too.
    #[error("{0:?} is listed already, in 'servers'")]
    Twice(String),
    /// It lists too many.
    #[error("there must be at most {most} servers in all, as many as the placement has seats")]
    TooMany {
        /// How many there may be.
        most: usize,
    },
}

/// The largest file that is read: room for tens of thousands of servers.
const FILE_MAX: u64 = 4 << 20;

pub(super) fn servers(
    servers: Vec<Server>,
    path: Option<PathBuf>,
    capacity: Option<usize>,
) -> Result<ServersConfig, ConfigError> {
    if servers.is_empty() && path.is_none() {
        let why = "must list at least one host:port for runtime static, unless 'servers_file' does";
        return Err(must("servers", why));
    }
    let mut known = BTreeSet::new();
    if let Some(twice) = servers.iter().find(|server| !known.insert(server.id())) {
        return Err(must("servers", format!("must not list {:?} twice", twice.address)));
    }
    let mut config = ServersConfig { servers, file: None, capacity };
    let Some(path) = path else {
        config.union(Vec::new()).map_err(|bad| must("servers", format!("are wrong: {bad}")))?;
        return Ok(config);
    };
    let read = ServersFile::read(&path).and_then(|file| {
        config.all(&file.content)?;
        Ok(file)
    });
    config.file = Some(read.map_err(|source| ConfigError::Servers { path, source })?);
    Ok(config)
}

// === impl ServersConfig ===

impl ServersConfig {
    /// All servers, when this is in the file.
    ///
    /// # Errors
    /// [`ServersError`], which names the line.
    pub fn all(&self, content: &[u8]) -> Result<Vec<Server>, ServersError> {
        let text = str::from_utf8(content).map_err(|bad| {
            let good = &content[..bad.valid_up_to()];
            ServersError::NotText { line: 1 + good.iter().filter(|c| **c == b'\n').count() }
        })?;
        self.union(listed::read(text)?)
    }

    /// All servers as the file was at the start.
    pub fn first(&self) -> Vec<Server> {
        let all = self.file.as_ref().and_then(|file| self.all(&file.content).ok());
        all.unwrap_or_else(|| self.servers.clone())
    }

    fn union(&self, listed: Vec<Server>) -> Result<Vec<Server>, ServersError> {
        let known: BTreeSet<String> = self.servers.iter().map(Server::id).collect();
        if let Some(twice) = listed.iter().find(|server| known.contains(&server.id())) {
            return Err(ServersError::Twice(twice.address.clone()));
        }
        let all: Vec<Server> = self.servers.iter().cloned().chain(listed).collect();
        match self.capacity {
            Some(most) if all.len() > most => Err(ServersError::TooMany { most }),
            Some(_) | None => Ok(all),
        }
    }
}

// === impl ServersFile ===

impl ServersFile {
    /// Reads a file, whatever is in it.
    ///
    /// # Errors
    /// [`ServersError`].
    pub fn read(path: &Path) -> Result<Self, ServersError> {
        // A pipe would keep whoever opens it waiting.
        if !fs::metadata(path).map_err(ServersError::Read)?.is_file() {
            return Err(ServersError::NotAFile);
        }
        let file = File::open(path).map_err(ServersError::Read)?;
        let mut content = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut content).map_err(ServersError::Read)?;
        if content.len() as u64 > FILE_MAX {
            return Err(ServersError::TooLarge);
        }
        Ok(Self { path: path.to_owned(), content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(servers: &[&str]) -> ServersConfig {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        ServersConfig { servers, file: None, capacity: Some(3) }
    }

    fn told(servers: &[&str], content: &[u8]) -> String {
        config(servers).all(content).unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_added_to_the_configuration() {
        let all = config(&["a:1"]).all(b"b:1\nc:1 weight=2").unwrap();
        let all: Vec<String> = all.iter().map(|server| server.address.clone()).collect();
        assert_eq!(all, ["a:1", "b:1", "c:1"]);
    }

    #[test]
    fn what_cannot_be_added_is_named() {
        assert_eq!(told(&["a:1"], b"http://A:1"), "\"A:1\" is listed already, in 'servers'");
        let many = "there must be at most 3 servers in all, as many as the placement has seats";
        assert_eq!(told(&["a:1"], b"b:1\nc:1\nd:1"), many);
        assert_eq!(told(&[], b"a:1\nb:1\xff"), "line 2: it must be UTF-8");
        assert!(told(&[], b"").contains("it lists no server"));
    }

    #[test]
    fn only_a_file_that_can_be_read_whole_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers");
        assert!(matches!(ServersFile::read(&path), Err(ServersError::Read(_))));
        assert!(matches!(ServersFile::read(folder.path()), Err(ServersError::NotAFile)));
        fs::write(&path, vec![b'#'; FILE_MAX as usize]).unwrap();
        assert!(ServersFile::read(&path).is_ok());
        fs::write(&path, vec![b'#'; FILE_MAX as usize + 1]).unwrap();
        assert!(matches!(ServersFile::read(&path), Err(ServersError::TooLarge)));
    }
}
