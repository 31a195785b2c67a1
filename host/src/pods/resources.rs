//! The CPU and memory of a container, for backends that take numbers.

use super::{Error, PodSpec};
use crate::shared::quantity::Nanos;

/// What the user's container may use, request and limit in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resources {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Resources {
    /// The resources that a pod asks for.
    ///
    /// # Errors
    /// One of them is no quantity.
    pub fn of(spec: &PodSpec) -> Result<Self, Error> {
        Ok(Resources {
            nano_cpus: number("cpu", &spec.cpu, 1)?,
            memory: number("memory", &spec.memory, 1_000_000_000)?,
        })
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
