//! Numbers that a seed says.

use super::SIZE_MAX;

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    pub(super) fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    /// A range of a file; often one that begins or ends with a page.
    pub(super) fn range(&mut self) -> (usize, usize) {
        const PAGE: usize = 4096;
        let (mut offset, mut len) = (self.below(SIZE_MAX - 1), 1 + self.below(40_000));
        if self.below(3) == 0 {
            offset -= offset % PAGE;
        }
        if self.below(3) == 0 {
            len = len.next_multiple_of(PAGE) - offset % PAGE;
        }
        (offset, len.min(SIZE_MAX - offset))
    }
}
