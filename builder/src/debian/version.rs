//! The order of versions (Debian Policy §5.6.12). Pure.

use std::cmp::Ordering;

/// Compares two versions: epoch, then upstream version, then revision.
///
/// Texts that are no versions are ordered, too: the order is total.
pub fn compare(left: &str, right: &str) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    let (left, right) = (Parts::of(left), Parts::of(right));
    compare_part(left.epoch, right.epoch)
        .then_with(|| compare_part(left.upstream, right.upstream))
        .then_with(|| compare_part(left.revision, right.revision))
}

/// Is this a version? Not empty, of letters, digits and `.+-~:`, with a digit first and an epoch that is a number.
pub fn is_version(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'~' | b':');
    let parts = Parts::of(text);
    let epoch_fits = parts.epoch.bytes().all(|byte| byte.is_ascii_digit())
        && (!text.contains(':') || !parts.epoch.is_empty());
    epoch_fits && !parts.upstream.is_empty() && text.bytes().all(allowed)
}

struct Parts<'t> {
    epoch: &'t str,
    upstream: &'t str,
    revision: &'t str,
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Self {
        let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self {
            epoch,
            upstream,
            revision,
        }
    }
}

/// Parts without digits and numbers in turn, from the left.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let (words, numbers) = (split(left, false), split(right, false));
        let order = compare_words(words.0, numbers.0);
        if order != Ordering::Equal {
            return order;
        }
        let (a, b) = (split(words.1, true), split(numbers.1, true));
        let order = compare_numbers(a.0, b.0);
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (a.1, b.1);
    }
    Ordering::Equal
}

/// What it begins with of digits, or of anything else, and the rest.
fn split(text: &[u8], digits: bool) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|byte| byte.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `~` before the end, the end before letters, letters before everything else.
fn compare_words(left: &[u8], right: &[u8]) -> Ordering {
    let rank = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    (0..left.len().max(right.len()))
        .map(|at| rank(left.get(at)).cmp(&rank(right.get(at))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// As numbers of any length; none is 0.
fn compare_numbers(left: &[u8], right: &[u8]) -> Ordering {
    let significant = |digits: &'_ [u8]| {
        let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
        digits[zeros..].to_vec()
    };
    let (left, right) = (significant(left), significant(right));
    left.len().cmp(&right.len()).then_with(|| left.cmp(&right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_ordered_as_policy_says() {
        // Each is older than the next.
        let ordered = [
            "~~",
            "~~a",
            "~",
            "0~a",
            "",
            "0.1",
            "1.0~rc1-1",
            "1.0-0.1",
            "1.0-1~bpo1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u1",
            "1.0a-1",
            "1.0+dfsg-1",
            "1.0.1-1",
            "1.2-1-1",
            "1.10-1",
            "10-1",
            "10a",
            "10+",
            "a",
            "+",
            "1:0.1-1",
            "1:0.10",
            "2:0",
        ];
        for (at, left) in ordered.iter().enumerate() {
            for (other, right) in ordered.iter().enumerate() {
                assert_eq!(compare(left, right), at.cmp(&other), "{left} {right}");
            }
        }
    }

    #[test]
    fn zeros_and_a_missing_revision_say_nothing() {
        for (left, right) in [
            ("1.0", "1.00"),
            ("0:1", "1"),
            ("1-0", "1"),
            ("1.0-", "1.0"),
            ("1.", "1.0"),
            ("00000000000000000000000000001", "1"),
        ] {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} {right}");
        }
        assert_eq!(
            compare("99999999999999999999999999", "100000000000000000000000000"),
            Ordering::Less
        );
    }

    #[test]
    fn what_is_no_version_is_told() {
        for text in ["1", "1:1.2.13.dfsg-1", "2.36-9+deb12u13", "0~0", "1-2-3"] {
            assert!(is_version(text), "{text}");
        }
        for text in ["", ":", "1:", ":1", "a:1", "1 2", "1_2", "1\n", "é", "-1"] {
            assert!(!is_version(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_one(a in "[0-2a+~.:-]{0,6}", b in "[0-2a+~.:-]{0,6}", c in "[0-2a+~.:-]{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le(), "{} {} {}", a, b, c);
            }
        }
    }
}
