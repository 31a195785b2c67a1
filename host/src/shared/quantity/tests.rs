#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use num_bigint::BigInt;
use proptest::prelude::*;
use rstest::rstest;

const UNIT: i128 = NANOS_PER_UNIT as i128;
const CAP: i128 = i64::MAX as i128 * UNIT;

/// What `ParseQuantity` of k8s.io/apimachinery v0.34.1 makes of the same texts, in billionths.
#[rstest]
#[case("250m", 250_000_000)]
#[case("1", UNIT)]
#[case("+1", UNIT)]
#[case("-1", -UNIT)]
#[case("0", 0)]
#[case("-0", 0)]
#[case("0.5", UNIT / 2)]
#[case("-0.5", -UNIT / 2)]
#[case(".5", UNIT / 2)]
#[case("5.", 5 * UNIT)]
#[case("0.", 0)]
#[case(".0", 0)]
#[case("128Mi", (128 << 20) * UNIT)]
#[case("1.Ki", 1024 * UNIT)]
#[case("1.5Ki", 1536 * UNIT)]
#[case("100M", 100_000_000 * UNIT)]
#[case("12u", 12_000)]
#[case("5n", 5)]
#[case("7Ei", (7 << 60) * UNIT)]
#[case("9E", 9_000_000_000_000_000_000 * UNIT)]
#[case("1E3", 1000 * UNIT)]
#[case("1e3", 1000 * UNIT)]
#[case("1e+3", 1000 * UNIT)]
#[case("1e03", 1000 * UNIT)]
#[case("1e-3", UNIT / 1000)]
#[case("1e-0", UNIT)]
#[case("0e99", 0)]
#[case("0.000e-3", 0)]
fn a_quantity_is_read_as_kubernetes_reads_it(#[case] text: &str, #[case] nanos: i128) {
    assert_eq!(Amount::parse(text).map(Amount::nanos), Some(nanos));
}

/// As above: the same in Kubernetes.
#[rstest]
#[case::many_decimal_places("1099511627776.000000000000000000000000000000", 1_099_511_627_776 * UNIT)]
#[case::more_decimal_places("64.000000000000000000000000000000000000000", 64 * UNIT)]
#[case::decimal_places_of_a_mebibyte("1.00000000000000000000000000000000000000000000Mi", (1 << 20) * UNIT)]
#[case::many_leading_zeros("0000000000000000000000000000000000000000000000000250m", 250_000_000)]
#[case::many_zeros_on_both_sides("00000000000000000000.00000000000000000000", 0)]
#[case::many_digits(
    "9999999999999999999999999999999999999999999999999999e-36",
    10_000_000_000_000_000 * UNIT
)]
#[case::many_zeros_and_a_small_exponent("10000000000000000000000000000000000000000e-40", UNIT)]
#[case::many_decimal_places_and_a_large_exponent("0.00000000000000000000000000000000000000025e40", 5 * UNIT / 2)]
fn no_digit_is_lost_however_many_there_are(#[case] text: &str, #[case] nanos: i128) {
    assert_eq!(Amount::parse(text).map(Amount::nanos), Some(nanos));
}

/// As above: the same in Kubernetes.
#[rstest]
#[case("0.5n", 1)]
#[case("-0.5n", -1)]
#[case("1.5n", 2)]
#[case("0.0000000001", 1)]
#[case("1e-10", 1)]
#[case("-1e-10", -1)]
#[case("1e-400", 1)]
#[case("1.0000000001", UNIT + 1)]
#[case("-1.0000000001", -UNIT - 1)]
#[case("1.0000000000000000000000000000000000000000000000001", UNIT + 1)]
#[case("0.9999999999", UNIT)]
#[case("1.00000000000000000000000000000000", UNIT)]
#[case("0.0000000001Ki", 103)]
#[case("0.0000000000000000001Ei", 115_292_151)]
#[case("1.0000000000000000000000000000000000000000000000001Ei", (1 << 60) * UNIT + 1)]
#[case("0e-400", 0)]
fn less_than_a_billionth_is_rounded_up_away_from_zero(#[case] text: &str, #[case] nanos: i128) {
    assert_eq!(Amount::parse(text).map(Amount::nanos), Some(nanos));
}

/// As above: the same in Kubernetes for binary suffixes. To the others it does not apply the cap that it documents.
#[rstest]
#[case::binary("8Ei", CAP)]
#[case::negative("-8Ei", -CAP)]
#[case::binary_with_digits("99999999999999999999Ki", CAP)]
#[case::just_below("9223372036854775806", CAP - UNIT)]
#[case::just_below_with_a_fraction("9223372036854775806.9999999999", CAP)]
#[case::just_there("9223372036854775807", CAP)]
#[case::just_above("9223372036854775807.1", CAP)]
#[case::as_many_digits_as_the_cap("9999999999999999999", CAP)]
#[case::suffix("10E", CAP)]
#[case::digits_and_a_negative_exponent("9999999999999999999999999999999999999999999999999999e-30", CAP)]
#[case::exponent("1e30", CAP)]
#[case::large_exponent("1e999999999", CAP)]
#[case::digits("99999999999999999999999999999999999999999999", CAP)]
fn more_than_the_cap_is_the_cap(#[case] text: &str, #[case] nanos: i128) {
    assert_eq!(Amount::parse(text).map(Amount::nanos), Some(nanos));
}

/// As above: Kubernetes refuses the same.
#[rstest]
#[case::empty("")]
#[case::two_points("1.2.3")]
#[case::two_points_together("1..2")]
#[case::space("1 core")]
#[case::leading_space(" 1")]
#[case::unit("128MB")]
#[case::lower_case("128mi")]
#[case::upper_case("1K")]
#[case::range("1-2")]
#[case::two_signs("--1")]
#[case::exponent_without_digits("1e")]
#[case::exponent_with_a_sign_alone("1E+")]
#[case::exponent_with_a_fraction("1e1.5")]
#[case::exponent_and_suffix("1e3k")]
#[case::two_exponents("1ee3")]
#[case::exponent_beyond_64_bits("1e99999999999999999999")]
#[case::other_digits("١")]
#[case::fraction_of_another_alphabet("½")]
#[case::hexadecimal("0x10")]
#[case::infinity("inf")]
fn what_is_not_a_quantity_is_refused(#[case] text: &str) {
    assert_eq!(Amount::parse(text), None);
}

/// Kubernetes reads a number without digits as 0, and lets exponents beyond 32 bits wrap.
#[rstest]
#[case::point(".")]
#[case::sign("+")]
#[case::suffix("Mi")]
#[case::wraps_to_1000("1e-4294967293")]
#[case::wraps_to_a_thousandth("1e4294967293")]
#[case::wraps_with_its_fraction("1.5e-2147483648")]
#[case::smallest_of_32_bits("1e-2147483648")]
fn what_kubernetes_misreads_is_refused(#[case] text: &str) {
    assert_eq!(Amount::parse(text), None);
}

#[rstest]
#[case("1e2147483647", CAP)]
#[case("0e2147483647", 0)]
#[case("0e-2147483647", 0)]
#[case("1e-2147483647", 1)]
fn a_large_exponent_takes_no_time(#[case] text: &str, #[case] nanos: i128) {
    assert_eq!(Amount::parse(text).map(Amount::nanos), Some(nanos));
}

#[rstest]
#[case("1", 1)]
#[case("0.1", 1)]
#[case("1.000000001", 2)]
#[case("-0.1", 0)]
#[case("-1.5", -1)]
#[case("8Ei", i64::MAX)]
fn whole_units_are_rounded_up(#[case] text: &str, #[case] units: i64) {
    assert_eq!(Amount::parse(text).unwrap().units(), units);
}

/// The billionths in digits × 2^bits × 10^exponent, in numbers of any size.
fn reference(is_negative: bool, digits: &str, bits: u32, exponent: i32) -> i128 {
    let number: BigInt = digits.parse::<BigInt>().unwrap() << bits;
    let power = BigInt::from(10).pow((exponent + 9).unsigned_abs());
    let nanos = if exponent + 9 >= 0 { number * power } else { (number + &power - 1) / power };
    let capped = i128::try_from(nanos.min(CAP.into())).unwrap();
    if is_negative { -capped } else { capped }
}

/// Digits with runs of zeros and nines, where rounding and carrying happen.
fn any_digits() -> impl Strategy<Value = String> {
    let run = prop_oneof!["0{0,25}", "9{0,25}", "[0-9]{0,25}"];
    prop::collection::vec(run, 0..4).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn any_quantity_is_what_big_integers_make_of_it(
        sign in prop::sample::select(vec!["", "+", "-"]),
        whole in any_digits(),
        fraction in prop::option::of(any_digits()),
        suffix in prop_oneof![
            prop::sample::select(vec![
                ("", 0, 0), ("n", 0, -9), ("u", 0, -6), ("m", 0, -3), ("k", 0, 3), ("M", 0, 6), ("G", 0, 9),
                ("T", 0, 12), ("P", 0, 15), ("E", 0, 18), ("Ki", 10, 0), ("Mi", 20, 0), ("Gi", 30, 0), ("Ti", 40, 0),
                ("Pi", 50, 0), ("Ei", 60, 0),
            ]).prop_map(|(suffix, bits, exponent)| (suffix.to_owned(), bits, exponent)),
            (-99..99_i32).prop_map(|exponent| (format!("e{exponent}"), 0, exponent)),
            (-99..99_i32).prop_map(|exponent| (format!("E{exponent:+}"), 0, exponent)),
        ],
    ) {
        let digits = whole.clone() + fraction.as_deref().unwrap_or_default();
        prop_assume!(!digits.is_empty());
        let point = fraction.as_ref().map(|fraction| format!(".{fraction}")).unwrap_or_default();
        let (suffix, bits, exponent) = suffix;
        let text = format!("{sign}{whole}{point}{suffix}");
        let places = i32::try_from(fraction.unwrap_or_default().len()).unwrap();
        let expected = reference(sign == "-", &digits, bits, exponent - places);
        prop_assert_eq!(Amount::parse(&text).map(Amount::nanos), Some(expected), "{}", text);
    }

    #[test]
    fn amounts_are_ordered_as_their_billionths(a in "-?[0-9]{0,3}[.]?[0-9]{1,11}", b in "-?[0-9]{0,3}[.]?[0-9]{1,11}") {
        let (a, b) = (Amount::parse(&a).unwrap(), Amount::parse(&b).unwrap());
        prop_assert_eq!(a.cmp(&b), a.nanos().cmp(&b.nanos()));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,20}|[-+0-9.eEKMGimnu]{0,20}") {
        let _ = Amount::parse(&text);
    }
}
