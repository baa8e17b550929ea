//! Flow control (virtio 1.2 §5.10.6.3): each side tells how large its buffer is and how many bytes
//! it has taken out of it; the other never sends more than what is then free.
//!
//! The counters are free-running 32-bit numbers that wrap.

use std::num::Wrapping;

use super::limits::{BUF_ALLOC, CREDIT_UPDATE_THRESHOLD};

/// Both directions' counters of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Credit {
    /// Bytes of the guest's that we have passed on to the host.
    fwd_cnt: Wrapping<u32>,
    /// The last `fwd_cnt` that the guest was told.
    told_fwd_cnt: Wrapping<u32>,
    /// Bytes that we have sent to the guest.
    tx_cnt: Wrapping<u32>,
    /// The size of the guest's buffer.
    peer_buf_alloc: u32,
    /// Bytes that the guest has taken out of its buffer.
    peer_fwd_cnt: Wrapping<u32>,
}

impl Credit {
    /// Takes what the guest says of its buffer; every packet of a connection says it.
    pub(super) fn heard(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_buf_alloc = buf_alloc;
        self.peer_fwd_cnt = Wrapping(fwd_cnt);
    }

    /// Bytes the guest has room for: `peer_buf_alloc - (tx_cnt - peer_fwd_cnt)`. A guest whose
    /// numbers make no sense gets nothing until they do.
    pub(super) fn peer_free(&self) -> u32 {
        let in_flight = (self.tx_cnt - self.peer_fwd_cnt).0;
        self.peer_buf_alloc.saturating_sub(in_flight)
    }

    /// `count` bytes went to the guest.
    pub(super) fn sent(&mut self, count: u32) {
        self.tx_cnt += count;
    }

    /// `count` bytes of the guest's left our buffer.
    pub(super) fn forwarded(&mut self, count: u32) {
        self.fwd_cnt += count;
    }

    /// The `buf_alloc` and `fwd_cnt` for a packet that is being sent now.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told_fwd_cnt = self.fwd_cnt;
        (BUF_ALLOC, self.fwd_cnt.0)
    }

    /// So much was freed since the guest was last told that it should be told without having
    /// asked. The threshold is below the buffer's size, so a guest never waits for news that
    /// would not come.
    pub(super) fn update_due(&self) -> bool {
        (self.fwd_cnt - self.told_fwd_cnt).0 >= CREDIT_UPDATE_THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_the_buffer_less_what_is_in_flight() {
        let mut credit = Credit::default();
        assert_eq!(credit.peer_free(), 0);
        credit.heard(1000, 0);
        credit.sent(400);
        assert_eq!(credit.peer_free(), 600);
        credit.heard(1000, 400);
        assert_eq!(credit.peer_free(), 1000);
    }

    #[test]
    fn counters_wrap_without_losing_room() {
        let mut credit = Credit::default();
        credit.heard(1000, 0);
        credit.sent(u32::MAX);
        credit.heard(1000, u32::MAX);
        credit.sent(200);
        assert_eq!(credit.peer_free(), 800);
        credit.heard(1000, 199);
        assert_eq!(credit.peer_free(), 1000);
    }

    #[test]
    fn nonsense_from_the_guest_gives_no_room() {
        let mut credit = Credit::default();
        credit.heard(1000, 5); // has taken out what never was in
        assert_eq!(credit.peer_free(), 0);
        credit.heard(0, 0);
        assert_eq!(credit.peer_free(), 0);
        credit.sent(500);
        credit.heard(100, 0); // shrank its buffer below what is in flight
        assert_eq!(credit.peer_free(), 0);
    }

    #[test]
    fn an_update_is_due_only_after_enough_was_freed() {
        let mut credit = Credit::default();
        credit.forwarded(CREDIT_UPDATE_THRESHOLD - 1);
        assert!(!credit.update_due());
        credit.forwarded(1);
        assert!(credit.update_due());
        assert_eq!(credit.tell(), (BUF_ALLOC, CREDIT_UPDATE_THRESHOLD));
        assert!(!credit.update_due());
    }
}
