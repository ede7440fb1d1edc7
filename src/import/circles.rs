//! Sections that include each other: pure.

use std::collections::BTreeSet;

/// A section, and one that it includes.
pub(super) type Inclusion<'s> = (&'s str, &'s str);

/// The inclusions that would close a circle if they were added in their order.
pub(super) fn circular<'s>(inclusions: &[Inclusion<'s>]) -> BTreeSet<Inclusion<'s>> {
    let mut kept: BTreeSet<Inclusion<'s>> = BTreeSet::new();
    let mut circular = BTreeSet::new();
    for inclusion @ (section, included) in inclusions {
        if reached_from(included, &kept).contains(section) {
            circular.insert(*inclusion);
        } else {
            kept.insert(*inclusion);
        }
    }
    circular
}

/// `from` and all sections that it includes, themselves or through others.
fn reached_from<'s>(from: &'s str, kept: &BTreeSet<Inclusion<'s>>) -> BTreeSet<&'s str> {
    let mut reached = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(section) = open.pop() {
        for (_, included) in kept.iter().filter(|(of, _)| *of == section) {
            if reached.insert(included) {
                open.push(included);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_closes_a_circle_is_circular() {
        let inclusions = [
            ("a", "b"),
            ("b", "c"),
            ("a", "c"),
            ("c", "a"),
            ("c", "d"),
            ("d", "d"),
        ];
        let expected = BTreeSet::from([("c", "a"), ("d", "d")]);
        assert_eq!(circular(&inclusions), expected);
    }
}
