//! Calls that go on.
//!
//! Hosts give up on a call after about a minute. So a call that takes longer is put aside: the model is
//! told to ask again with the same arguments, which joins it. Of several such calls each is joined
//! once, the oldest first. A call that is cancelled, and every one when the adapter ends, is dropped
//! where it is: its connection to the daemon, which then stops what it does for it, and what it has
//! made, which is undone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::Error;
use crate::call::Status;

/// Longest that a call is answered after.
pub(crate) const PATIENCE: Duration = Duration::from_secs(50);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(3);
/// Most calls that are put aside; the oldest gives way.
const MOST_ASIDE: usize = 32;
/// How long the result of a call that was put aside is kept after its end.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// How long the end of the adapter waits for what it stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a call gives.
pub(crate) type Outcome = Result<Value, Error>;

/// Which call it is: the tool and its arguments.
type Key = (&'static str, String);

/// The calls of one adapter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    /// In the order in which they were put aside.
    aside: Arc<Mutex<VecDeque<(Key, Going)>>>,
    /// The calls' work, and what outlives it, such as cancelling what it began.
    pub(crate) tasks: TaskTracker,
    ending: CancellationToken,
}

/// A call that goes on.
#[derive(Debug)]
pub(crate) struct Going {
    work: AbortOnDropHandle<Outcome>,
    status: Status,
    began: Instant,
    ended: Arc<OnceLock<Instant>>,
}

impl Going {
    /// Begins a call. The end of the adapter waits for its work to be dropped.
    pub(crate) fn new(
        tasks: &TaskTracker,
        status: Status,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Self {
        let ended = Arc::new(OnceLock::new());
        let end = Arc::clone(&ended);
        let work = tasks.spawn(async move {
            let outcome = work.await;
            let _ = end.set(Instant::now());
            outcome
        });
        Self {
            work: AbortOnDropHandle::new(work),
            status,
            began: Instant::now(),
            ended,
        }
    }

    fn is_stale(&self) -> bool {
        match self.ended.get() {
            Some(end) => end.elapsed() > KEPT,
            // It broke off.
            None => self.work.is_finished() && self.began.elapsed() > KEPT,
        }
    }
}

impl Calls {
    fn aside(&self) -> MutexGuard<'_, VecDeque<(Key, Going)>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest of such calls that were put aside.
    fn join(&self, key: &Key) -> Option<Going> {
        let mut aside = self.aside();
        let at = aside.iter().position(|(other, _)| other == key)?;
        aside.remove(at).map(|(_, going)| going)
    }

    /// Joins the same call if it was put aside, begins it otherwise, and waits for its end.
    /// `progress` is told how long it goes on, in seconds, and the last word about it. `None` when it
    /// was cancelled.
    pub(crate) async fn run<P: Future<Output = ()>>(
        &self,
        tool: &'static str,
        arguments: String,
        cancelled: &CancellationToken,
        patience: Duration,
        begin: impl FnOnce() -> Going,
        progress: impl Fn(f64, String) -> P,
    ) -> Option<Outcome> {
        let key = (tool, arguments);
        let mut going = self.join(&key).unwrap_or_else(begin);
        let now = tokio::time::Instant::now();
        let mut ticks = tokio::time::interval_at(now + PROGRESS, PROGRESS);
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return None,
                () = self.ending.cancelled() => return None,
                ended = &mut going.work => return Some(match ended {
                    Ok(outcome) => outcome,
                    Err(error) => Err(Error::new(
                        "adapter_failed",
                        format!("{tool} broke off: {error}"),
                        "call it again, and report it if it happens again",
                    )),
                }),
                () = &mut deadline => {
                    let seconds = going.began.elapsed().as_secs();
                    self.put_aside(key, going);
                    return Some(Err(Error::new(
                        "still_running",
                        format!("{tool} goes on since {seconds} seconds"),
                        "call it again with the same arguments: that waits for it, and does not \
                         start it anew",
                    )));
                }
                _ = ticks.tick() => {
                    progress(going.began.elapsed().as_secs_f64(), going.status.get()).await;
                }
            }
        }
    }

    fn put_aside(&self, key: Key, going: Going) {
        let mut aside = self.aside();
        aside.retain(|(_, going)| !going.is_stale());
        if aside.len() >= MOST_ASIDE {
            aside.pop_front();
        }
        aside.push_back((key, going));
    }

    /// Drops every call, and waits a little for what is being stopped and undone.
    pub(crate) async fn end(&self) {
        self.ending.cancel();
        self.aside().clear();
        self.tasks.close();
        let _ = tokio::time::timeout(FAREWELL, self.tasks.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    async fn quiet(_: f64, _: String) {}

    fn never() -> Going {
        panic!("the call that goes on is joined")
    }

    #[tokio::test]
    async fn a_long_call_is_joined_by_the_same_call() {
        let calls = Calls::default();
        let token = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let work = async move { Ok(ended.await.unwrap()) };
        let begin = || Going::new(&calls.tasks, Status::default(), work);

        let first = calls
            .run("t", "{}".into(), &token, Duration::ZERO, begin, quiet)
            .await;
        assert_eq!(first.unwrap().unwrap_err().0.code, "still_running");
        let other = || Going::new(&calls.tasks, Status::default(), async { Ok(Value::Null) });
        let other = calls
            .run("t", "{\"a\":1}".into(), &token, PATIENCE, other, quiet)
            .await;
        assert_eq!(other, Some(Ok(Value::Null)));
        end.send(Value::Bool(true)).unwrap();
        let joined = calls
            .run("t", "{}".into(), &token, PATIENCE, never, quiet)
            .await;

        assert_eq!(joined, Some(Ok(Value::Bool(true))));
    }

    #[tokio::test]
    async fn a_cancelled_call_is_dropped() {
        let calls = Calls::default();
        let token = CancellationToken::new();
        let (held, dropped) = oneshot::channel::<()>();
        let begin = || {
            Going::new(&calls.tasks, Status::default(), async move {
                let _held = held;
                std::future::pending().await
            })
        };
        token.cancel();

        let outcome = calls
            .run("t", "{}".into(), &token, PATIENCE, begin, quiet)
            .await;

        assert_eq!(outcome, None);
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_call_that_panics_is_an_error() {
        let calls = Calls::default();
        let begin = || {
            Going::new(&calls.tasks, Status::default(), async {
                panic!("on purpose")
            })
        };

        let outcome = calls
            .run(
                "t",
                "{}".into(),
                &CancellationToken::new(),
                PATIENCE,
                begin,
                quiet,
            )
            .await;

        assert_eq!(outcome.unwrap().unwrap_err().0.code, "adapter_failed");
    }

    #[tokio::test]
    async fn only_so_many_calls_are_kept() {
        let calls = Calls::default();
        for index in 0..=MOST_ASIDE {
            let begin = || Going::new(&calls.tasks, Status::default(), std::future::pending());
            let arguments = index.to_string();
            calls
                .run(
                    "t",
                    arguments,
                    &CancellationToken::new(),
                    Duration::ZERO,
                    begin,
                    quiet,
                )
                .await;
        }
        assert_eq!(calls.aside().len(), MOST_ASIDE);
        calls.end().await;
        assert!(calls.aside().is_empty());
    }

    #[tokio::test]
    async fn of_equal_calls_each_is_joined_once() {
        let calls = Calls::default();
        let token = CancellationToken::new();
        let call = |ended: oneshot::Receiver<u8>| {
            let work = async move { Ok(ended.await.unwrap().into()) };
            let begin = || Going::new(&calls.tasks, Status::default(), work);
            calls.run("t", String::new(), &token, Duration::ZERO, begin, quiet)
        };
        let (one, first) = oneshot::channel();
        let (two, second) = oneshot::channel();
        let (first, second) = tokio::join!(call(first), call(second));
        for told in [first, second] {
            assert_eq!(told.unwrap().unwrap_err().0.code, "still_running");
        }
        one.send(1_u8).unwrap();
        two.send(2).unwrap();
        let mut joined = Vec::new();
        for _ in 0..2 {
            let join = calls.run("t", String::new(), &token, PATIENCE, never, quiet);
            joined.push(join.await.unwrap().unwrap());
        }
        joined.sort_by_key(Value::as_u64);
        assert_eq!(joined, [1, 2]);
    }

    #[tokio::test]
    async fn the_end_waits_for_what_calls_undo() {
        struct Undoes(TaskTracker, Option<oneshot::Sender<()>>);
        impl Drop for Undoes {
            fn drop(&mut self) {
                let undone = self.1.take().unwrap();
                self.0.spawn(async move {
                    tokio::task::yield_now().await;
                    undone.send(()).unwrap();
                });
            }
        }
        let calls = Calls::default();
        let (undone, mut seen) = oneshot::channel();
        let undoes = Undoes(calls.tasks.clone(), Some(undone));
        let begin = || {
            Going::new(&calls.tasks, Status::default(), async move {
                let _undoes = undoes;
                std::future::pending().await
            })
        };
        let token = CancellationToken::new();
        let call = calls.run("t", String::new(), &token, PATIENCE, begin, quiet);

        let (outcome, ()) = tokio::join!(call, calls.end());

        assert_eq!(outcome, None);
        assert_eq!(seen.try_recv(), Ok(()));
    }
}
