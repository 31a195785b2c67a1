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
