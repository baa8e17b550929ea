//! Kills the daemon, monitors and networks.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::random::Random;
use super::story::Story;
use crate::daemon::Daemon;

/// Most calls of owners that are answered between two kills, so that the load gets somewhere on any
/// host.
const ANSWERS: u64 = 9;
/// Longest that they are waited for.
const ANSWERS_MS: u64 = 40_000;
/// Longest time from then on to the kill.
const PAUSE_MS: u64 = 800;

pub(super) struct Killer<'a> {
    daemon: &'a Daemon,
    story: &'a Arc<Story>,
    random: Random,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Daemon,
    Monitor,
    Network,
    Everything,
}

impl<'a> Killer<'a> {
    pub(super) fn new(daemon: &'a Daemon, story: &'a Arc<Story>, random: Random) -> Self {
        Self {
            daemon,
            story,
            random,
        }
    }

    /// Kills so many times, or until somebody has failed.
    pub(super) async fn kill(mut self, mut kills: u64, failed: impl Fn() -> bool) {
        while kills > 0 && !failed() {
            // Now and then nobody is waited for: that hits daemons that start.
            if self.random.below(4) > 0 {
                let answers = self.story.answers(self.random.below(ANSWERS));
                let _ = tokio::time::timeout(Duration::from_millis(ANSWERS_MS), answers).await;
            }
            let pause = Duration::from_millis(self.random.below(PAUSE_MS));
            tokio::time::sleep(pause).await;
            let target = self.random.weighted(&[
                (9, Target::Daemon),
                (8, Target::Monitor),
                (4, Target::Network),
                (3, Target::Everything),
            ]);
            let daemons = || self.daemon.pids("pyro");
            let monitors = || self.daemon.pids("pyro-vmm");
            let networks = || self.daemon.pids("pyro-net");
            let pids = match target {
                Target::Daemon => daemons(),
                Target::Monitor => {
                    let monitors = monitors();
                    self.random.of(&monitors).copied().into_iter().collect()
                }
                Target::Network => {
                    let networks = networks();
                    self.random.of(&networks).copied().into_iter().collect()
                }
                Target::Everything => [daemons(), monitors(), networks()].concat(),
            };
            let mut killed = false;
            for pid in pids {
                let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
                killed |= kill_process(pid, Signal::KILL).is_ok();
            }
            if killed {
                kills -= 1;
                self.story.tell(format!("KILLED {target:?}"));
                self.story.count(&format!("kill of {target:?}"));
            }
        }
    }
}
