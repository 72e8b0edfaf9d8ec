//! Many things to do, a few at a time: checks build hundreds of images, each of which keeps one processor busy at most.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

/// How many processors a check may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Does `count` things on `threads` threads; `job` is given which thing and which thread, both from 0. Results in order;
/// after an error no more is begun.
pub fn abreast<T: Send>(
    threads: usize,
    count: usize,
    job: impl Fn(usize, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (next, results, job) = (&next, &results, &job);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let result = job(at, thread);
                    if result.is_err() {
                        next.store(count, Ordering::Relaxed);
                    }
                    let mut results = results.lock().expect("no job panics with the lock");
                    results.insert(at, result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no job panics with the lock");
    results.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_threads_have_numbers() {
        let squares = abreast(3, 50, |at, thread| {
            assert!(thread < 3);
            Ok(at * at)
        });
        let wanted: Vec<usize> = (0..50).map(|at| at * at).collect();
        assert_eq!(squares.unwrap(), wanted);
    }

    #[test]
    fn an_error_ends_it() {
        let begun = AtomicUsize::new(0);
        let result: Result<Vec<()>> = abreast(1, 50, |at, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            anyhow::ensure!(at < 3, "no more");
            Ok(())
        });
        assert_eq!(result.unwrap_err().to_string(), "no more");
        assert_eq!(begun.into_inner(), 4);
    }
}
