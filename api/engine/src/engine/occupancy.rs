//! Whether anything is going on, so that a daemon knows when it may end.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

/// Counts what is going on.
#[derive(Debug)]
pub(super) struct Occupancy {
    count: watch::Sender<usize>,
    since: watch::Sender<Option<Instant>>,
}

/// Something that is going on, until it is dropped: an operation, or a guest that runs.
#[derive(Debug)]
pub(super) struct Occupied(Arc<Occupancy>);

impl Occupancy {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            count: watch::Sender::new(0),
            since: watch::Sender::new(Some(Instant::now())),
        })
    }

    /// Something begins.
    pub(super) fn enter(self: &Arc<Self>) -> Occupied {
        self.change(|count| count + 1);
        Occupied(Arc::clone(self))
    }

    /// Since when nothing is going on.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Instant>> {
        self.since.subscribe()
    }

    /// Both values change under the lock of the first, so the last word is the right one.
    fn change(&self, change: impl FnOnce(usize) -> usize) {
        self.count.send_modify(|count| {
            let was = *count;
            *count = change(was);
            if (was == 0) != (*count == 0) {
                let since = (*count == 0).then(Instant::now);
                self.since.send_replace(since);
            }
        });
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.change(|count| count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_when_the_last_thing_ended() {
        let occupancy = Occupancy::new();
        let watch = occupancy.watch();
        let first = watch.borrow().expect("idle at first");
        let one = occupancy.enter();
        let two = occupancy.enter();
        assert_eq!(*watch.borrow(), None);
        drop(one);
        assert_eq!(*watch.borrow(), None);
        drop(two);
        assert!(watch.borrow().expect("idle again") >= first);
    }
}
