//! The CPU and memory of a container, for backends that take numbers.

use super::{Error, PodSpec};
use crate::shared::quantity::Amount;

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
    /// One of them is not a quantity, or is negative.
    pub fn of(spec: &PodSpec) -> Result<Self, Error> {
        let nano_cpus = amount("cpu", &spec.cpu)?.nanos();
        let memory = amount("memory", &spec.memory)?.units();
        // More CPUs than fit are as many as can be.
        Ok(Resources { nano_cpus: nano_cpus.try_into().unwrap_or(u64::MAX), memory: memory.unsigned_abs() })
    }
}

fn amount(what: &str, text: &str) -> Result<Amount, Error> {
    Amount::parse(text)
        .filter(|amount| *amount >= Amount::of(0))
        .ok_or_else(|| Error::Invalid(format!("{what}: {text:?} is not a Kubernetes quantity")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::fractions("250m", "64.5Gi", Some((250_000_000, (64 << 30) + (1 << 29))))]
    #[case::less_than_there_is("0.1n", "0.1", Some((1, 1)))]
    #[case::more_than_there_is("1e99", "1e99", Some((u64::MAX, i64::MAX as u64)))]
    #[case::zero("0", "0", Some((0, 0)))]
    #[case::negative_cpu("-1n", "1", None)]
    #[case::negative_memory("1", "-0.1n", None)]
    #[case::not_a_quantity("lots", "1", None)]
    fn a_pods_quantities_become_numbers(#[case] cpu: &str, #[case] memory: &str, #[case] expected: Option<(u64, u64)>) {
        let spec = PodSpec { cpu: cpu.into(), memory: memory.into(), ..PodSpec::new("default", "a") };
        let found = Resources::of(&spec).ok();
        assert_eq!(found.map(|resources| (resources.nano_cpus, resources.memory)), expected);
    }
}
