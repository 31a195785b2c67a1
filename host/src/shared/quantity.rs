//! Kubernetes quantities: `250m`, `0.5`, `128Mi`, `1e3`.

/// A quantity in billionths, the finest unit there is. Too large ones are as large as can be.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Nanos(i128);

const PER_UNIT: i128 = 1_000_000_000;

impl Nanos {
    /// So many whole units.
    pub const fn of(units: i64) -> Self {
        Nanos(units as i128 * PER_UNIT)
    }

    /// The number of billionths.
    pub fn get(self) -> i128 {
        self.0
    }

    /// The quantity that a text stands for; none if it stands for none.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.bytes().position(|byte| !(byte.is_ascii_digit() || byte == b'.')).unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let scale = Scale::parse(suffix)?;
        let digits = || whole.bytes().chain(fraction.bytes()).map(|digit| i128::from(digit - b'0'));
        let value = digits().fold(0_i128, |value, digit| value.saturating_mul(10).saturating_add(digit));
        let places = i32::try_from(fraction.len()).ok()?;
        let exponent = scale.exponent.checked_sub(places)?.checked_add(9)?;
        let value = value.saturating_mul(scale.binary);
        let power = |exponent: i32| 10_i128.checked_pow(exponent.unsigned_abs());
        let nanos = match power(exponent) {
            Some(power) if exponent >= 0 => value.saturating_mul(power),
            Some(power) => value / power,
            None if exponent >= 0 && value > 0 => i128::MAX,
            None => 0,
        };
        Some(Nanos(if negative { -nanos } else { nanos }))
    }
}

/// What a suffix multiplies by: `binary` × 10 to the `exponent`.
struct Scale {
    binary: i128,
    exponent: i32,
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        let decimal = |exponent| Some(Scale { binary: 1, exponent });
        let binary = |power| Some(Scale { binary: 1024_i128.pow(power), exponent: 0 });
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
            "Ki" => binary(1),
            "Mi" => binary(2),
            "Gi" => binary(3),
            "Ti" => binary(4),
            "Pi" => binary(5),
            "Ei" => binary(6),
            _ => decimal(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("250m", Some(250_000_000))]
    #[case("1", Some(PER_UNIT))]
    #[case("0.5", Some(PER_UNIT / 2))]
    #[case(".5", Some(PER_UNIT / 2))]
    #[case("5.", Some(5 * PER_UNIT))]
    #[case("-1", Some(-PER_UNIT))]
    #[case("+1", Some(PER_UNIT))]
    #[case("128Mi", Some(128 * 1024 * 1024 * PER_UNIT))]
    #[case("1.5Ki", Some(1536 * PER_UNIT))]
    #[case("1e3", Some(1000 * PER_UNIT))]
    #[case("1E3", Some(1000 * PER_UNIT))]
    #[case("1e-3", Some(PER_UNIT / 1000))]
    #[case("12E", Some(12_000_000_000_000_000_000 * PER_UNIT))]
    #[case("100M", Some(100_000_000 * PER_UNIT))]
    #[case("5n", Some(5))]
    #[case("0.5n", Some(0))]
    #[case("99999999999999999999999999999999999999999999", Some(i128::MAX))]
    #[case("1e999999999", Some(i128::MAX))]
    #[case("1e-999999999", Some(0))]
    #[case("0e999999999", Some(0))]
    #[case("", None)]
    #[case("m", None)]
    #[case(".", None)]
    #[case("1.2.3", None)]
    #[case("1 core", None)]
    #[case("128MB", None)]
    #[case("128mi", None)]
    #[case("1-2", None)]
    #[case("--1", None)]
    #[case("1e", None)]
    #[case("1e99999999999", None)]
    #[case("½", None)]
    fn quantities_are_read_as_kubernetes_reads_them(#[case] text: &str, #[case] nanos: Option<i128>) {
        assert_eq!(Nanos::parse(text), nanos.map(Nanos));
    }
}
