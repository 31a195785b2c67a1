//! Kubernetes quantities: those of policies, and those of pods as numbers.

use crate::shared::quantity::Nanos;
use std::fmt;

/// More than nothing, as a Kubernetes quantity.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    nanos: Nanos,
}

impl Quantity {
    /// The quantity that a text stands for; `None` if it stands for none.
    pub fn parse(text: &str) -> Option<Self> {
        let nanos = Nanos::parse(text).filter(|nanos| *nanos > Nanos::of(0))?;
        Some(Quantity { text: text.into(), nanos })
    }

    /// As a number of bytes.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.nanos.get() / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// Whether another is within this one. To Kubernetes, zero is no limit at all.
    pub(crate) fn admits(&self, other: &str) -> bool {
        Quantity::parse(other).is_some_and(|other| other.nanos <= self.nanos)
    }
}

/// As it was written.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
