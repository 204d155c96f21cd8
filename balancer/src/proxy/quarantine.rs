//! Requests that kill replicas are not sent, see [`crate::routing::quarantine`] for the rule.
//!
//! While no connection was lost lately, a request costs one atomic load here. Otherwise it is
//! hashed, and looked up only if the filter says that it may be known.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use tracing::warn;

use super::Worker;
use super::message::Asked;
use crate::fleet::event::{Event, What};
use crate::routing::quarantine::{Begun, Lost, Suspects};
use crate::routing::table::Replica;

/// Maximum length in bytes of a request's method and path in events and in the log.
const NAME_MAX: usize = 200;

/// Words of the filter: 1,024 bits for at most 256 requests.
const WORDS: usize = 16;

/// The requests that lost a connection lately, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// The hash is keyed, so that no client finds a request with the hash of another one.
    hasher: RandomState,
    /// Number of requests that are remembered.
    known: AtomicUsize,
    /// A bit is set for each of them.
    filter: [AtomicU64; WORDS],
    suspects: Mutex<Suspects>,
}

// === impl Quarantine ===

impl Quarantine {
    /// Returns the hash of a request that may be known; `None` for any other.
    #[inline]
    fn find(&self, asked: &Asked<'_>) -> Option<u64> {
        if self.known.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let hash = self.hash(asked);
        let (word, bit) = place(hash);
        (self.filter[word].load(Ordering::Relaxed) & bit != 0).then_some(hash)
    }

    fn hash(&self, asked: &Asked<'_>) -> u64 {
        let (first, rest) = asked.request.target(asked.head);
        let mut hasher = self.hasher.build_hasher();
        hasher.write(asked.request.method.of(asked.head));
        hasher.write_u8(b' ');
        hasher.write(first);
        hasher.write(rest);
        hasher.finish()
    }

    /// Changes what is known, and the filter with it.
    fn change<T>(&self, change: impl FnOnce(&mut Suspects) -> T) -> T {
        let mut suspects = self.lock();
        let changed = change(&mut suspects);
        let mut filter = [0; WORDS];
        for request in suspects.requests() {
            let (word, bit) = place(request);
            filter[word] |= bit;
        }
        for (word, bits) in self.filter.iter().zip(filter) {
            word.store(bits, Ordering::Relaxed);
        }
        self.known.store(suspects.requests().len(), Ordering::Relaxed);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Suspects> {
        // Nothing is left half done by a panic.
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the word of the filter and the bit in it.
fn place(hash: u64) -> (usize, u64) {
    let bit = (hash >> 54) as usize;
    (bit / 64, 1 << (bit % 64))
}

/// Returns the method and the path, escaped and shortened. The query is left out: it may contain
/// secrets.
fn name(asked: &Asked<'_>) -> String {
    let method = asked.request.method.of(asked.head).escape_ascii();
    let mut name = format!("{method} {}", asked.request.path(asked.head).escape_ascii());
    if name.len() > NAME_MAX {
        // It is ASCII.
        name.truncate(NAME_MAX);
        name.push_str("...");
    }
    name
}

// === impl Worker ===

impl Worker {
    /// Reports whether a request must not be sent because it killed replicas. `is_retry` tells that it
    /// was sent before.
    #[inline]
    pub(super) fn is_quarantined(&self, asked: &Asked<'_>, is_retry: bool) -> bool {
        match self.common.quarantine.find(asked) {
            Some(request) => self.is_blocked(request, is_retry),
            None => false,
        }
    }

    #[cold]
    fn is_blocked(&self, request: u64, is_retry: bool) -> bool {
        let Some(cool_down) = self.cool_down() else { return false };
        let (now, mut begun) = (self.now(), Vec::new());
        let mut suspects = self.common.quarantine.lock();
        let blocks = suspects.blocks(request, is_retry, now, cool_down, &mut begun);
        drop(suspects);
        self.tell(begun);
        if blocks {
            self.shared.metrics().quarantined();
        }
        blocks
    }

    /// Notes that an attempt begun at `sent_at` lost its connection before its answer was whole.
    #[cold]
    pub(super) fn loses(&self, asked: &Asked<'_>, replica: &Arc<Replica>, sent_at: Instant) {
        if self.cool_down().is_none() {
            return;
        }
        let quarantine = &self.common.quarantine;
        let (request, at) = (quarantine.hash(asked), self.now());
        let sent_at = sent_at.saturating_duration_since(self.common.since).min(at);
        let lost = Lost { request, replica, sent_at, at };
        quarantine.change(|suspects| suspects.lost(lost, || name(asked)));
    }

    /// Notes that an attempt got its whole answer: the request does not kill.
    #[inline]
    pub(super) fn survives(&self, asked: &Asked<'_>) {
        if let Some(request) = self.common.quarantine.find(asked) {
            self.common.quarantine.change(|suspects| suspects.succeeded(request));
        }
    }

    /// Starts and ends quarantines.
    pub(super) fn sweep_quarantine(&self) {
        let quarantine = &self.common.quarantine;
        if quarantine.known.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(cool_down) = self.cool_down() else {
            return quarantine.change(|suspects| *suspects = Suspects::default());
        };
        let (now, mut begun) = (self.now(), Vec::new());
        quarantine.change(|suspects| suspects.sweep(now, cool_down, &mut begun));
        self.tell(begun);
    }

    /// Returns how long a request that killed two replicas is not sent; `None` where that is off.
    fn cool_down(&self) -> Option<Duration> {
        let cool_down = self.common.live.load().config().retry.quarantine;
        (!cool_down.is_zero()).then_some(cool_down)
    }

    fn tell(&self, begun: Vec<Begun>) {
        for Begun { name, replicas, cool_down } in begun {
            let what = What::Quarantined { request: name, replicas, cool_down };
            if let What::Quarantined { request, replicas: [first, second], .. } = &what {
                warn!(request, %first, %second, ?cool_down, "request quarantined");
            }
            self.shared.history().push(&Event { subject: None, what });
        }
    }
}
