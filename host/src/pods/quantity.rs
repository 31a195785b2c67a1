//! Kubernetes quantities of policies.

use crate::shared::quantity::Amount;
use std::fmt;

/// A Kubernetes quantity of more than zero.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    amount: Amount,
}

impl Quantity {
    /// The quantity that a text stands for; `None` if it is not a quantity or not more than zero.
    pub fn parse(text: &str) -> Option<Self> {
        let amount = Amount::parse(text).filter(|amount| *amount > Amount::of(0))?;
        Some(Quantity { text: text.into(), amount })
    }

    /// The quantity as a number of bytes, rounded up.
    pub fn bytes(&self) -> u64 {
        self.amount.units().unsigned_abs()
    }

    /// Whether another quantity is at most this one. Zero is not: Kubernetes takes it for no limit at all.
    pub(crate) fn admits(&self, other: &str) -> bool {
        Quantity::parse(other).is_some_and(|other| other.amount <= self.amount)
    }
}

/// As it was written.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::many_decimal_places("256Mi", "1099511627776.000000000000000000000000000000", false)]
    #[case::many_decimal_places_of_a_small_number("1", "64.000000000000000000000000000000000000000", false)]
    #[case::many_digits_and_a_negative_exponent(
        "256Mi",
        "9999999999999999999999999999999999999999999999999999e-30",
        false
    )]
    #[case::many_decimal_places_within_the_limit("2Gi", "1073741824.0000000000000000000000000000000000", true)]
    #[case::many_leading_zeros("1", "000000000000000000000000000000000000000000000001", true)]
    #[case::a_trifle_over("1", "1.0000000000000000000000000000000000000000001", false)]
    #[case::a_trifle("1", "0.0000000000000000000000000000000000000000001", true)]
    #[case::more_than_there_can_be("7Ei", "1e99", false)]
    // To Kubernetes, which counts exponents in 32 bits, this is 1000.
    #[case::an_exponent_that_wraps("1", "1e-4294967293", false)]
    #[case::zero("1", "0", false)]
    #[case::negative("1", "-1", false)]
    fn a_limit_admits_what_is_within_it_however_it_is_written(
        #[case] limit: &str,
        #[case] asked: &str,
        #[case] admits: bool,
    ) {
        assert_eq!(Quantity::parse(limit).unwrap().admits(asked), admits);
    }
}
