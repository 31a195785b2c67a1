//! Kubernetes quantities: of policies, and a pod's limits as numbers for backends that have no word for them.

use super::{Error, PodSpec};
use crate::shared::quantity::Nanos;
use std::fmt;

/// More than nothing, as a Kubernetes quantity.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    nanos: Nanos,
}

impl Quantity {
    /// The quantity that a text stands for; none if it stands for none.
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

/// What the user's container may use, request and limit in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Limits {
    /// The limits of a pod.
    ///
    /// # Errors
    /// One of them is no quantity.
    pub fn of(spec: &PodSpec) -> Result<Self, Error> {
        Ok(Limits { nano_cpus: number("cpu", &spec.cpu, 1)?, memory: number("memory", &spec.memory, 1_000_000_000)? })
    }
}

/// A quantity in units of so many billionths. What is too large is as large as can be.
fn number(what: &str, text: &str, billionths: i128) -> Result<u64, Error> {
    match Nanos::parse(text).map(|nanos| nanos.get() / billionths) {
        Some(number @ 0..) => Ok(u64::try_from(number).unwrap_or(u64::MAX)),
        _ => Err(Error::Invalid(format!("{what}: {text:?} is not a Kubernetes quantity"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("250m", 1, Some(250_000_000))]
    #[case("64Gi", 1_000_000_000, Some(64 << 30))]
    #[case("1e99", 1, Some(u64::MAX))]
    #[case("-1", 1, None)]
    #[case("lots", 1, None)]
    fn quantities_become_numbers(#[case] text: &str, #[case] billionths: i128, #[case] expected: Option<u64>) {
        assert_eq!(number("cpu", text, billionths).ok(), expected);
    }
}
