//! Much work of one kind, on all processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context as _;
use tokio::sync::oneshot;

/// Works something out of every job; in the order of the jobs.
///
/// # Errors
/// The first of those of `work`.
pub(crate) fn side_by_side<J: Sync, T: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let until_none_is_left = || {
        while let Some((index, job)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(index).map(|job| (index, job))
        } {
            let found = work(job);
            done.lock().expect("nobody panics while it is locked").push((index, found));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(until_none_is_left);
        }
    });
    let mut done = done.into_inner().expect("nobody panics while it is locked");
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, found)| found).collect()
}

/// Works in a thread of its own, so that whoever waits can be interrupted: the thread ends with the
/// program then.
///
/// # Errors
/// Those of `work`, and when it panics.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, receiver) = oneshot::channel();
    // Whoever is not waited for any longer tells nobody.
    thread::spawn(move || drop(sender.send(work())));
    receiver.await.context("the work panicked")?
}

#[cfg(test)]
mod tests {
    use actix_web::rt::System;

    use super::*;

    #[test]
    fn what_is_worked_out_side_by_side_is_in_order_and_an_error_is_not_lost() {
        let jobs: Vec<u32> = (0..100).collect();
        let squares = side_by_side(&jobs, |number| Ok(number * number)).unwrap();
        assert_eq!(squares, jobs.iter().map(|number| number * number).collect::<Vec<_>>());
        let error = side_by_side(&jobs, |number| match number {
            7 => anyhow::bail!("no {number}"),
            _ => Ok(()),
        });
        assert_eq!(error.unwrap_err().to_string(), "no 7");
    }

    #[test]
    fn what_is_worked_out_aside_comes_back_and_a_panic_is_an_error() {
        System::new().block_on(async {
            assert_eq!(aside(|| Ok(7)).await.unwrap(), 7);
            assert_eq!(aside::<()>(|| anyhow::bail!("no")).await.unwrap_err().to_string(), "no");
            let error = aside::<()>(|| panic!("as it is to be")).await.unwrap_err();
            assert_eq!(error.to_string(), "the work panicked");
        });
    }
}
