//! Whether anybody wants anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Counts the requests that are not answered in full.
#[derive(Debug)]
pub(crate) struct Busy {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    requests: usize,
    /// When the number became zero; the beginning at first.
    since: Instant,
}

impl State {
    fn idle(self) -> Option<Instant> {
        (self.requests == 0).then_some(self.since)
    }
}

/// A request, until it is dropped.
#[derive(Debug)]
pub(crate) struct Request(Arc<Busy>);

impl Busy {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: watch::Sender::new(State {
                requests: 0,
                since: Instant::now(),
            }),
        })
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Request {
        self.state.send_modify(|state| state.requests += 1);
        Request(Arc::clone(self))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| {
            state.requests -= 1;
            state.since = Instant::now();
        });
    }
}

/// Returns when for `limit` no request was under way and the engine had nothing to do.
pub(crate) async fn idle_for(
    busy: &Busy,
    mut engine: watch::Receiver<Option<Instant>>,
    limit: Duration,
) {
    let mut requests = busy.state.subscribe();
    loop {
        let since = match (
            requests.borrow_and_update().idle(),
            *engine.borrow_and_update(),
        ) {
            (Some(requests), Some(engine)) => Some(requests.max(engine)),
            _ => None,
        };
        let end = async {
            match since.and_then(|since| since.checked_add(limit)) {
                Some(end) => tokio::time::sleep_until(end.into()).await,
                None => std::future::pending().await,
            }
        };
        // Neither sender goes away before this future does: one is borrowed, the engine's is in the
        // engine that is being served.
        tokio::select! {
            biased;
            Ok(()) = requests.changed() => {}
            Ok(()) = engine.changed() => {}
            () = end => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_only_after_the_last_request_and_the_engine() {
        let busy = Busy::new();
        let engine = watch::Sender::new(None);
        let request = busy.enter();
        let limit = Duration::from_secs(60);
        let idle = idle_for(&busy, engine.subscribe(), limit);
        tokio::pin!(idle);
        let passes = tokio::time::Duration::from_secs(1_000);

        assert!(tokio::time::timeout(passes, &mut idle).await.is_err());
        drop(request);
        assert!(tokio::time::timeout(passes, &mut idle).await.is_err());
        engine.send_replace(Some(Instant::now()));
        assert!(tokio::time::timeout(passes, &mut idle).await.is_ok());
    }
}
