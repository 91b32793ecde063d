//! Taking out of a text what was once written into it, after others have changed it elsewhere.
//!
//! A pure function of three texts. It gives up where it is not sure, and never guesses.

use diffy::{DiffOptions, Line};

/// What `now` is without what turned `original` into `written`; none where the two changes are too near to each other.
pub(super) fn without(written: &str, now: &str, original: &str) -> Option<String> {
    diffy::merge(written, now, original).ok().or_else(|| piece_by_piece(written, now, original))
}

/// Finds each piece that was written, as it was written, and puts back what was there before. A piece that is not there
/// exactly once is no longer ours to judge, and one of which nothing was written says nothing of its place.
fn piece_by_piece(written: &str, now: &str, original: &str) -> Option<String> {
    let mut options = DiffOptions::new();
    options.set_context_len(0);
    let patch = options.create_patch(original, written);
    let mut lines: Vec<&str> = now.split_inclusive('\n').collect();
    for hunk in patch.hunks() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for line in hunk.lines() {
            match *line {
                Line::Insert(line) => ours.push(line),
                Line::Delete(line) => theirs.push(line),
                Line::Context(_) => return None,
            }
        }
        if ours.is_empty() {
            return None;
        }
        let mut places =
            lines.windows(ours.len()).enumerate().filter(|(_, window)| *window == ours.as_slice());
        let (place, _) = places.next()?;
        if places.next().is_some() {
            return None;
        }
        lines.splice(place..place + ours.len(), theirs);
    }
    Some(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = "a\nb\nc\n";
    const WRITTEN: &str = "a\nb\nc\nours 1\nours 2\n";

    #[test]
    fn a_change_beside_ours_stays() {
        assert_eq!(without(WRITTEN, "a\nb\nC\nours 1\nours 2\n", ORIGINAL).unwrap(), "a\nb\nC\n");
        assert_eq!(without(WRITTEN, "a\nb\nc\nours 1\nours 2\nd\n", ORIGINAL).unwrap(), "a\nb\nc\nd\n");
        assert_eq!(without(WRITTEN, "new\na\nb\nc\nours 1\nours 2\n", ORIGINAL).unwrap(), "new\na\nb\nc\n");
        assert_eq!(without("a\nB\nc\n", "a\nB\nC\n", ORIGINAL).unwrap(), "a\nb\nC\n");
    }

    #[test]
    fn a_change_within_ours_is_not_judged() {
        assert_eq!(without(WRITTEN, "a\nb\nc\nours 1\nours 3\n", ORIGINAL), None);
        assert_eq!(without(WRITTEN, "a\nb\nC\nours 1\nours 2\nours 1\nours 2\n", ORIGINAL), None);
        assert_eq!(without("a\nc\n", "A\nc\n", ORIGINAL), None);
    }
}
