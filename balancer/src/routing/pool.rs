//! What the replicas of a fleet have together: the requests in flight, and those that wait until
//! there is room for them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// See the module.
#[derive(Debug, Default)]
pub struct Pool {
    in_flight: AtomicUsize,
    /// How many stand in the line: what who leaves a replica looks at.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

/// Those that wait, in the order in which they came.
#[derive(Debug, Default)]
struct Line {
    places: BTreeMap<u64, Place>,
    next: u64,
}

/// One of them: it is called when there may be room, and tries.
#[derive(Debug, Default)]
struct Place {
    called: bool,
    waker: Option<Waker>,
}

/// A place in the line, until dropped. Whoever is first may try at once and then whenever
/// [`called`](Self::called) says so; everybody else only then.
#[derive(Debug)]
pub struct Waiting {
    pool: Arc<Pool>,
    ticket: u64,
}

/// Until one is called.
#[derive(Debug)]
pub struct Called<'a>(&'a Waiting);

// === impl Pool ===

impl Pool {
    /// Requests in flight at all replicas, those among them that take no new ones.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Joins the end of the line, unless `most` stand there already.
    pub fn wait(self: &Arc<Self>, most: usize) -> Option<Waiting> {
        let mut line = self.line();
        if line.places.len() >= most {
            return None;
        }
        let ticket = line.next;
        line.next += 1;
        line.places.insert(ticket, Place::default());
        self.waiting.store(line.places.len(), Ordering::SeqCst);
        // Whoever leaves a replica from here on sees the line; what others left before is seen by
        // whoever looks at the replicas from here on.
        fence(Ordering::SeqCst);
        Some(Waiting { pool: Arc::clone(self), ticket })
    }

    /// There may be room for everybody.
    pub fn call_all(&self) {
        let mut line = self.line();
        line.places.values_mut().for_each(Place::call);
    }

    /// Counts a request in; tells how many there were before.
    pub(super) fn enter(&self) -> usize {
        self.in_flight.fetch_add(1, Ordering::SeqCst)
    }

    /// Counts a request out that has left its replica.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.line().call_next();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A line is right whatever panicked while it was locked.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Line ===

impl Line {
    /// Calls the first that is not called yet.
    fn call_next(&mut self) {
        if let Some(place) = self.places.values_mut().find(|place| !place.called) {
            place.call();
        }
    }
}

// === impl Place ===

impl Place {
    fn call(&mut self) {
        self.called = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Whether nobody stands before this one.
    pub fn is_first(&self) -> bool {
        let line = self.pool.line();
        line.places.first_key_value().is_some_and(|(ticket, _)| *ticket == self.ticket)
    }

    /// Until this one is called. A call that comes while it tries is not lost: it is called again.
    pub fn called(&self) -> Called<'_> {
        Called(self)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut line = self.pool.line();
        line.places.remove(&self.ticket);
        self.pool.waiting.store(line.places.len(), Ordering::SeqCst);
        // Where it got in, there may be room for one more; where it gave up, it may have been
        // called.
        line.call_next();
    }
}

// === impl Called ===

impl Future for Called<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self(waiting) = *self;
        let mut line = waiting.pool.line();
        let Some(place) = line.places.get_mut(&waiting.ticket) else { return Poll::Ready(()) };
        if std::mem::take(&mut place.called) {
            return Poll::Ready(());
        }
        if !place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            place.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_called(waiting: &Waiting) -> bool {
        let mut called = waiting.called();
        Pin::new(&mut called).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn who_leaves_calls_the_next_in_their_order() {
        let pool = Arc::<Pool>::default();
        assert_eq!(pool.enter(), 0);
        assert_eq!(pool.enter(), 1);
        let (first, second) = (pool.wait(2).unwrap(), pool.wait(2).unwrap());
        assert!(pool.wait(2).is_none(), "no more than two");
        assert!(first.is_first() && !second.is_first());
        assert!(!is_called(&first));
        pool.leave();
        pool.leave();
        assert!(is_called(&first) && is_called(&second));
        assert!(!is_called(&first), "a call is one try");
        assert_eq!((pool.in_flight(), pool.waiting()), (0, 2));
    }

    #[test]
    fn a_call_to_one_that_gives_up_goes_to_the_next() {
        let pool = Arc::<Pool>::default();
        pool.enter();
        let (first, second) = (pool.wait(9).unwrap(), pool.wait(9).unwrap());
        pool.leave();
        drop(first);
        assert!(second.is_first());
        assert!(is_called(&second));
        drop(second);
        assert_eq!(pool.waiting(), 0);
    }

    #[test]
    fn all_are_called_where_there_may_be_room_for_all() {
        let pool = Arc::<Pool>::default();
        let all: Vec<Waiting> = (0..3).filter_map(|_| pool.wait(9)).collect();
        pool.call_all();
        assert!(all.iter().all(is_called));
        assert!(!all.iter().any(is_called));
    }

    /// Threads that take turns on few rooms: nobody waits for ever, and never are more inside than
    /// there is room for.
    #[test]
    fn no_call_is_lost() {
        const ROOM: usize = 2;
        let pool = Arc::<Pool>::default();
        let inside = AtomicUsize::new(0);
        let try_enter = || {
            if pool.enter() >= ROOM {
                pool.leave();
                return false;
            }
            assert!(inside.fetch_add(1, Ordering::SeqCst) < ROOM);
            true
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if pool.waiting() > 0 || !try_enter() {
                            let waiting = pool.wait(usize::MAX).unwrap();
                            if !waiting.is_first() || !try_enter() {
                                loop {
                                    park_until(waiting.called());
                                    if try_enter() {
                                        break;
                                    }
                                }
                            }
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        pool.leave();
                    }
                });
            }
        });
        assert_eq!((pool.in_flight(), pool.waiting()), (0, 0));
    }

    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn park_until(mut called: Called<'_>) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        while Pin::new(&mut called).poll(&mut Context::from_waker(&waker)).is_pending() {
            std::thread::park_timeout(std::time::Duration::from_secs(20));
        }
    }
}
