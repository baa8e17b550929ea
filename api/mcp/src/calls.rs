//! Calls that go on.
//!
//! Hosts give up on a call after about a minute. So a call that takes longer is put aside: the model is
//! told to ask again with the same arguments, which joins it. A call that is cancelled, and every one
//! when the adapter ends, is dropped where it is, and with it the connection to the daemon, which
//! then stops what it does for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// How long the result of a call that was put aside is kept.
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
    aside: Arc<Mutex<HashMap<Key, Going>>>,
    /// Work that outlives its call, such as cancelling what it began.
    pub(crate) tasks: TaskTracker,
}

/// A call that goes on.
#[derive(Debug)]
pub(crate) struct Going {
    work: AbortOnDropHandle<Outcome>,
    status: Status,
    began: Instant,
}

impl Going {
    /// Begins a call.
    pub(crate) fn new(
        status: Status,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Self {
        Self {
            work: AbortOnDropHandle::new(tokio::spawn(work)),
            status,
            began: Instant::now(),
        }
    }
}

impl Calls {
    fn aside(&self) -> MutexGuard<'_, HashMap<Key, Going>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
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
        let joined = self.aside().remove(&key);
        let mut going = joined.unwrap_or_else(begin);
        let mut ticks = tokio::time::interval(PROGRESS);
        ticks.tick().await;
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = &mut going.work => return Some(match ended {
                    Ok(outcome) => outcome,
                    Err(error) => Err(Error::new(
                        "adapter_failed",
                        format!("{tool} broke off: {error}"),
                        "call it again, and report it if it happens again",
                    )),
                }),
                () = cancelled.cancelled() => return None,
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
        aside.retain(|_, going| !going.work.is_finished() || going.began.elapsed() < KEPT);
        if aside.len() >= MOST_ASIDE {
            let oldest = aside.iter().min_by_key(|(_, going)| going.began);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                aside.remove(&oldest);
            }
        }
        aside.insert(key, going);
    }

    /// Drops what was put aside, and waits a little for what is being stopped.
    pub(crate) async fn end(&self) {
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
        let begin = || Going::new(Status::default(), async move { Ok(ended.await.unwrap()) });

        let first = calls
            .run("t", "{}".into(), &token, Duration::ZERO, begin, quiet)
            .await;
        assert_eq!(first.unwrap().unwrap_err().0.code, "still_running");
        let other = || Going::new(Status::default(), async { Ok(Value::Null) });
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
            Going::new(Status::default(), async move {
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
        let begin = || Going::new(Status::default(), async { panic!("on purpose") });

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
            let begin = || Going::new(Status::default(), std::future::pending());
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
}
