//! Stacks as values: which layers, in which order.

use std::fmt;
use std::str::FromStr;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The name of a layer: 128 random bits, 32 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(u128);

/// A text that names no layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a layer is called by 32 lower-case hexadecimal digits")]
pub struct BadLayerId;

impl LayerId {
    pub(super) fn random() -> Result<Self, Errno> {
        let mut bytes = [0; 16];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if filled < bytes.len() {
            return Err(Errno::IO);
        }
        Ok(Self(u128::from_le_bytes(bytes)))
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LayerId {
    type Err = BadLayerId;

    fn from_str(text: &str) -> Result<Self, BadLayerId> {
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(digits) {
            return Err(BadLayerId);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| BadLayerId)
    }
}

impl TryFrom<String> for LayerId {
    type Error = BadLayerId;

    fn try_from(text: String) -> Result<Self, BadLayerId> {
        text.parse()
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.to_string()
    }
}

/// A state that never changes again: frozen layers, the lowest first, above the packed ones. A
/// snapshot, or a baseline, is one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Point(Vec<LayerId>);

impl Point {
    /// The packed layers alone.
    #[must_use]
    pub const fn packed() -> Self {
        Self(Vec::new())
    }

    /// Its layers, the lowest first.
    #[must_use]
    pub fn layers(&self) -> &[LayerId] {
        &self.0
    }

    /// Whether `self` is what `later` was once: changes from here to there are those of the
    /// layers above.
    #[must_use]
    pub fn is_beneath(&self, later: &Point) -> bool {
        later.0.starts_with(&self.0)
    }
}

/// A stack: frozen layers and the writable one on top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackSpec {
    /// What the writable layer lies upon.
    frozen: Point,
    /// The writable layer.
    writable: LayerId,
}

impl StackSpec {
    /// A new stack over `point`, with `top` to write to: the first one, a branch, or what a reset
    /// goes back to.
    #[must_use]
    pub fn over(point: Point, top: LayerId) -> Self {
        Self {
            frozen: point,
            writable: top,
        }
    }

    /// The same stack with its writable layer frozen and `top` above it. The state that was frozen is
    /// [`StackSpec::beneath`] of the result.
    #[must_use]
    pub fn frozen_under(&self, top: LayerId) -> Self {
        Self::over(self.whole(), top)
    }

    /// What the writable layer lies upon.
    #[must_use]
    pub fn beneath(&self) -> &Point {
        &self.frozen
    }

    /// The writable layer.
    #[must_use]
    pub fn top(&self) -> LayerId {
        self.writable
    }

    /// All its layers as if they were frozen: what is read of a stopped stack.
    #[must_use]
    pub fn whole(&self) -> Point {
        let mut layers = self.frozen.0.clone();
        layers.push(self.writable);
        Point(layers)
    }
}
