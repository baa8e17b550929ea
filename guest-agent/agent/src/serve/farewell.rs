//! The last words before the power goes.

use std::time::{Duration, Instant};

use pyro_agent_protocol::Event;

use super::stream::{Received, Stream};

/// How long the host may take to accept the last bytes before the power goes.
const GOODBYE: Duration = Duration::from_millis(500);

/// The stream of whoever asked for the power to go off.
#[derive(Debug)]
pub(crate) struct Farewell(pub(super) Stream);

impl Farewell {
    /// Tells the asker that all is done, and waits a little until it has heard.
    pub(crate) fn done(mut self) {
        self.0.say(&Event::Done);
        let limit = Instant::now() + GOODBYE;
        while self.0.queued() > 0 && Instant::now() < limit {
            if self.0.flush().is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The bytes may still be on their way; that the host closes says that they arrived.
        while Instant::now() < limit {
            if matches!(self.0.receive(), Received::End) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
