//! "Did you mean …?"

use std::cmp::Reverse;

/// The candidate that `word` is most likely a slip of, if any is near enough.
///
/// A slip is up to one letter in three wrong, missing, added or swapped with its neighbour. Of equally near ones
/// the one that begins most like it is taken, then the first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, candidate)| (*distance, Reverse(shared_start(word, candidate))))
        .map(|(_, candidate)| candidate)
}

/// In how many letters both begin alike.
fn shared_start(one: &str, other: &str) -> usize {
    let pairs = one.chars().zip(other.chars());
    pairs.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_does_not() {
        let words = ["entrypoint", "cmd", "env", "expose", "user"];
        assert_eq!(nearest("entry-point", words), Some("entrypoint"));
        assert_eq!(nearest("enrtypoint", words), Some("entrypoint"));
        assert_eq!(nearest("usr", words), Some("user"));
        assert_eq!(nearest("volumes", words), None);
        assert_eq!(
            nearest("nginx-lite", ["nginx-core", "nginx-light"]),
            Some("nginx-light")
        );
        assert_eq!(nearest("", words), None);
    }
}
