//! What every part works with while it has its turn.

use std::time::Instant;

use crate::frames::Frames;
use crate::poller::Poller;

/// The guest's link, what is waited for, and the time.
pub(crate) struct World<'a> {
    pub(crate) frames: &'a mut Frames,
    pub(crate) poller: &'a Poller,
    /// When the round began.
    pub(crate) now: Instant,
}
