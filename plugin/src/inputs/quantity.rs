//! Kubernetes quantities: `250m`, `0.5`, `128Mi`, `1e3`.

/// The quantity's value; none if it is not one. Exact enough to compare with, not to calculate with.
pub(super) fn parse(text: &str) -> Option<f64> {
    let number_end =
        text.bytes().position(|byte| !(byte.is_ascii_digit() || b"+-.".contains(&byte))).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(number_end)?;
    // Signs stand first only; a digit is needed somewhere.
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    if unsigned.contains(['+', '-']) || !unsigned.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value = number.parse::<f64>().ok()? * scale(suffix)?;
    value.is_finite().then_some(value)
}

fn scale(suffix: &str) -> Option<f64> {
    Some(match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            10.0_f64.powi(exponent)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("250m", Some(0.25))]
    #[case("1", Some(1.0))]
    #[case("0.5", Some(0.5))]
    #[case(".5", Some(0.5))]
    #[case("5.", Some(5.0))]
    #[case("-1", Some(-1.0))]
    #[case("128Mi", Some(134_217_728.0))]
    #[case("1e3", Some(1000.0))]
    #[case("1E3", Some(1000.0))]
    #[case("12E", Some(12e18))]
    #[case("100M", Some(1e8))]
    #[case("", None)]
    #[case("m", None)]
    #[case(".", None)]
    #[case("1 core", None)]
    #[case("128MB", None)]
    #[case("128mi", None)]
    #[case("1-2", None)]
    #[case("--1", None)]
    #[case("1e", None)]
    #[case("1e999999999", None)]
    #[case("½", None)]
    fn quantities_are_read_as_kubernetes_reads_them(#[case] text: &str, #[case] value: Option<f64>) {
        assert_eq!(parse(text), value);
    }
}
