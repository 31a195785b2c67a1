//! Kubernetes quantities: `250m`, `0.5`, `128Mi`, `1e3`. They are read as Kubernetes reads them, digit by digit and
//! without loss.

const NANOS_PER_UNIT: i64 = 1_000_000_000;

/// What a quantity stands for. Kubernetes rounds up to whole billionths, away from zero, and caps at 2^63 - 1 units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// Rounded down.
    units: i64,
    /// The billionths above `units`, less than a unit.
    nanos: i64,
}

impl Amount {
    const MAX: Self = Amount::of(i64::MAX);

    /// So many whole units.
    pub const fn of(units: i64) -> Self {
        Amount { units, nanos: 0 }
    }

    /// The number of whole units, rounded up.
    pub fn units(self) -> i64 {
        self.units + i64::from(self.nanos > 0)
    }

    /// The number of billionths.
    #[allow(dead_code, reason = "the backends that need it are features")]
    pub fn nanos(self) -> i128 {
        i128::from(self.units) * i128::from(NANOS_PER_UNIT) + i128::from(self.nanos)
    }

    /// The amount that a text stands for; `None` if the text is not a quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.bytes().position(|byte| !(byte.is_ascii_digit() || byte == b'.')).unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let Scale { factor, exponent } = Scale::parse(suffix)?;
        // Kubernetes counts decimal places in 32 bits and lets them wrap: `1e-4294967293` is 1000 to it. What would wrap
        // is refused here.
        let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        let amount = Self::round_up(&product(whole.bytes().chain(fraction.bytes()).rev(), factor), places.into());
        Some(if is_negative { amount.negated() } else { amount })
    }

    /// The amount of a decimal number. `digits` begins with the last digit and has no leading zero. The last `places`
    /// of the number are behind the point.
    fn round_up(digits: &[u8], places: i64) -> Self {
        if digits.is_empty() {
            return Amount::of(0);
        }
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        // The cap has 19 digits before the point.
        if count.saturating_sub(places) > 19 {
            return Self::MAX;
        }
        // The digits from one position to another, as a number. Beyond the number's own digits there are zeros.
        let number = |from: i64, to: i64| {
            let digit = |at: i64| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
            (from..to).rev().fold(0_i64, |number, at| number.saturating_mul(10).saturating_add(digit(at).into()))
        };
        let has_more = digits.iter().zip(0..places - 9).any(|(digit, _)| *digit != 0);
        let nanos = number(places - 9, places) + i64::from(has_more);
        let units = number(places, count.max(places)).saturating_add(nanos / NANOS_PER_UNIT);
        Amount { units, nanos: nanos % NANOS_PER_UNIT }.min(Self::MAX)
    }

    fn negated(self) -> Self {
        match self.nanos {
            0 => Amount::of(-self.units),
            nanos => Amount { units: -self.units - 1, nanos: NANOS_PER_UNIT - nanos },
        }
    }
}

/// The digits of a number times a factor, the last digit first, without leading zeros.
fn product(ascii_digits: impl Iterator<Item = u8>, factor: u64) -> Vec<u8> {
    let mut carry = 0;
    let mut next = |digit: u8| {
        carry += u64::from(digit) * factor;
        let next = (carry % 10) as u8;
        carry /= 10;
        next
    };
    let mut digits: Vec<u8> = ascii_digits.map(|digit| next(digit - b'0')).collect();
    // The carry is below the factor, and the largest factor, 2^60, has 19 digits.
    digits.extend((0..19).map(|_| next(0)));
    let length = digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
    digits.truncate(length);
    digits
}

/// What a suffix multiplies by: `factor` × 10 to the `exponent`.
struct Scale {
    factor: u64,
    exponent: i32,
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        let decimal = |exponent| Some(Scale { factor: 1, exponent });
        let binary = |bits| Some(Scale { factor: 1_u64 << bits, exponent: 0 });
        match suffix {
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "" => decimal(0),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => binary(10),
            "Mi" => binary(20),
            "Gi" => binary(30),
            "Ti" => binary(40),
            "Pi" => binary(50),
            "Ei" => binary(60),
            _ => decimal(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
        }
    }
}

#[cfg(test)]
mod tests;
