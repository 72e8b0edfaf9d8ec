//! A few threads that take jobs from one stack until none is left. Must never know what a job is.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The jobs that wait. The newest is taken first, so that a walk goes down before it goes on.
pub(super) struct Jobs<J, E> {
    state: Mutex<State<J, E>>,
    changed: Condvar,
}

struct State<J, E> {
    waiting: Vec<J>,
    running: usize,
    error: Option<E>,
    stopped: bool,
}

impl<J, E> Jobs<J, E> {
    /// Lets one more job wait.
    pub(super) fn push(&self, job: J) {
        self.state().waiting.push(job);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State<J, E>> {
        // A thread that panics marks the pool as stopped, so a poisoned state is only read to end the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; none when all is done or something failed.
    fn take(&self) -> Option<J> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = state.waiting.pop() {
                state.running += 1;
                return Some(job);
            }
            if state.running == 0 {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Counts a job as done also when it panics, so that no other thread waits for it.
struct Running<'a, J, E>(&'a Jobs<J, E>);

impl<J, E> Drop for Running<'_, J, E> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.stopped |= thread::panicking();
        if state.stopped || (state.running == 0 && state.waiting.is_empty()) {
            self.0.changed.notify_all();
        }
    }
}

/// Does `first` and every job pushed meanwhile on this many threads. Each thread has a worker of its own, made by
/// `worker`; all are given back.
///
/// # Errors
/// The first error of a job; jobs that wait are dropped then.
pub(super) fn run<J: Send, E: Send, W: Send>(
    threads: NonZeroUsize,
    first: Vec<J>,
    worker: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, J, &Jobs<J, E>) -> Result<(), E> + Sync,
) -> Result<Vec<W>, E> {
    let jobs = Jobs {
        state: Mutex::new(State {
            waiting: first,
            running: 0,
            error: None,
            stopped: false,
        }),
        changed: Condvar::new(),
    };
    let one = || {
        let mut worker = worker();
        while let Some(job) = jobs.take() {
            let running = Running(&jobs);
            if let Err(error) = work(&mut worker, job, &jobs) {
                let mut state = jobs.state();
                state.error.get_or_insert(error);
                state.stopped = true;
            }
            drop(running);
        }
        worker
    };
    let workers = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(one)).collect();
        let mut workers = vec![one()];
        for other in others {
            match other.join() {
                Ok(worker) => workers.push(worker),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        workers
    });
    let state = jobs
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    state.error.map_or(Ok(workers), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    #[test]
    fn jobs_pushed_by_jobs_are_done_too() {
        let workers = run(
            TWO,
            vec![10_u64],
            || 0,
            |sum, job, jobs| {
                *sum += job;
                if job > 0 {
                    jobs.push(job - 1);
                }
                Ok::<(), ()>(())
            },
        );
        assert_eq!(workers.unwrap().into_iter().sum::<u64>(), 55);
    }

    #[test]
    fn an_error_ends_all() {
        let result = run(
            TWO,
            vec![1_u32],
            || (),
            |(), job, jobs| {
                jobs.push(job + 1);
                if job == 100 { Err(job) } else { Ok(()) }
            },
        );
        assert_eq!(result.unwrap_err(), 100);
    }

    #[test]
    fn a_panic_ends_all() {
        let panic = std::panic::catch_unwind(|| {
            run(
                TWO,
                vec![0, 1],
                || (),
                |(), job, _| {
                    assert_ne!(job, 0, "as the test wants it");
                    Ok::<(), ()>(())
                },
            )
        });
        assert!(panic.is_err());
    }
}
