//! What happened, for the person who has to find out why a test failed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use tokio::sync::watch;

/// Events that are printed.
const LAST: usize = 150;

/// Printed when the test fails.
#[derive(Debug)]
pub(super) struct Story {
    began: Instant,
    events: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
    answers: watch::Sender<u64>,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            events: Mutex::default(),
            counts: Mutex::default(),
            answers: watch::Sender::new(0),
        }
    }

    pub(super) fn tell(&self, event: impl std::fmt::Display) {
        let line = format!("{:9.3} {event}", self.began.elapsed().as_secs_f64());
        self.events.lock().expect("no panic").push(line);
    }

    /// Counts something for the summary.
    pub(super) fn count(&self, what: &str) {
        *self
            .counts
            .lock()
            .expect("no panic")
            .entry(what.to_string())
            .or_default() += 1;
    }

    /// A call was answered.
    pub(super) fn answer(&self, what: &str) {
        self.count(what);
        self.answers.send_modify(|answers| *answers += 1);
    }

    /// Waits until so many more calls are answered.
    pub(super) async fn answers(&self, more: u64) {
        let mut answers = self.answers.subscribe();
        let enough = *answers.borrow() + more;
        // The sender is ours.
        let _ = answers.wait_for(|answers| *answers >= enough).await;
    }

    /// How often what was counted.
    pub(super) fn summary(&self) -> String {
        let counts = self.counts.lock().expect("no panic");
        let words = counts.iter().map(|(what, count)| format!("{what} {count}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let events = self.events.lock().expect("no panic");
            for event in &events[events.len().saturating_sub(LAST)..] {
                eprintln!("{event}");
            }
            drop(events);
            eprintln!("{}", self.summary());
        }
    }
}
