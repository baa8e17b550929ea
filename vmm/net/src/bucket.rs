//! A limit of bandwidth: a bucket of bytes that fills with time.

use std::time::{Duration, Instant};

/// How long a bucket that was full lasts at twice its rate: what may pass at once.
const BURST: Duration = Duration::from_millis(100);
/// No bucket is smaller: one frame of the longest kind, so that any frame can pass.
const SMALLEST: u64 = 1 << 16;

/// A bucket, or none. It may be overdrawn by one taking, so that a frame is never too large for it.
#[derive(Debug)]
pub(crate) struct Bucket {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    per_second: u64,
    size: u64,
    /// When it will be, or was, empty: the bytes in it, told as time.
    empty_at: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: Option<u64>, now: Instant) -> Self {
        let limit = per_second.map(|per_second| {
            let per_second = per_second.max(1);
            let burst = u128::from(per_second) * BURST.as_nanos() / 1_000_000_000;
            let size = u64::try_from(burst).unwrap_or(u64::MAX).max(SMALLEST);
            Limit {
                per_second,
                size,
                empty_at: now,
            }
        });
        Self { limit }
    }

    /// Takes bytes out.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) {
        if let Some(limit) = &mut self.limit {
            let full = now.checked_sub(limit.time(limit.size)).unwrap_or(now);
            limit.empty_at = limit.empty_at.max(full) + limit.time(bytes as u64);
        }
    }

    /// Whether something may be taken now.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.opens_at(now).is_none()
    }

    /// When something may be taken, if not now.
    pub(crate) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let limit = self.limit.as_ref()?;
        (limit.empty_at > now).then_some(limit.empty_at)
    }
}

impl Limit {
    /// How long the bucket takes to gain this much.
    fn time(&self, bytes: u64) -> Duration {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_in_a_long_time_is_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1_000_000), start);
        let (mut now, mut passed) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match bucket.opens_at(now) {
                Some(opens) => now = opens,
                None => {
                    bucket.take(1500, now);
                    passed += 1500;
                }
            }
        }
        assert!((9_900_000..10_200_000).contains(&passed), "{passed}");
    }

    #[test]
    fn what_was_not_used_is_kept_only_for_a_moment() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(10_000_000), start);
        let now = start + Duration::from_secs(60);
        let mut passed = 0;
        while bucket.is_open(now) {
            bucket.take(1000, now);
            passed += 1000;
        }
        assert!((1_000_000..1_010_000).contains(&passed), "{passed}");
    }

    #[test]
    fn without_a_limit_it_is_always_open() {
        let now = Instant::now();
        let mut bucket = Bucket::new(None, now);
        bucket.take(usize::MAX, now);
        assert!(bucket.is_open(now));
    }
}
