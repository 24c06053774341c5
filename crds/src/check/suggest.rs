//! What somebody may have meant.

/// The candidate closest to what was written, if it is close enough to be a slip.
pub(crate) fn closest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Of one or two letters, every other word of that length would be a slip.
    let limit = match written.chars().count() {
        0..=2 => 0,
        letters => (letters / 3).max(1),
    };
    let distances = candidates
        .into_iter()
        .map(|candidate| (distance(written, candidate), candidate));
    distances
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words; case counts for nothing.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).flat_map(char::to_lowercase).collect();
    let right: Vec<char> = right
        .chars()
        .take(64)
        .flat_map(char::to_lowercase)
        .collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let at =
                |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, column) + usize::from(from != to))
                .min(at(&above, column + 1) + 1)
                .min(at(&current, column) + 1);
            let swapped = row > 0
                && column > 0
                && left.get(row - 1) == Some(to)
                && right.get(column - 1) == Some(from);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant_and_another_word_does_not() {
        let fields = ["prefix", "capture", "storage", "replicas", "startOn"];
        for (written, expected) in [
            ("perfix", Some("prefix")),
            ("startsOn", Some("startOn")),
            ("starton", Some("startOn")),
            ("replica", Some("replicas")),
            ("x", None),
            ("PREFIX", Some("prefix")),
            ("", None),
            ("partitions", None),
        ] {
            assert_eq!(closest(written, fields), expected, "{written}");
        }
    }
}
