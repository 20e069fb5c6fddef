//! Finding the versions of rows that held at a moment. Pure, without I/O.
//!
//! A version held over a range of positions, and a question is about one position. An index on either end
//! of the ranges finds too much: all that began before, or all that ended after. So each range has a *node*
//! in a binary tree over all positions, as in Kriegel, Pötke and Seidl, "Managing Intervals Efficiently in
//! Object-Relational Databases" (VLDB 2000). The ranges that hold a position have their nodes on the way
//! from the root to it, at most 63. At a node before the position, the ranges that end after it are
//! answers; at a node behind it, those that begin at or before it. Two B-trees find these and no others,
//! so a question costs what its answer has, however long the history is.

/// The node of the positions from `first` up to before `past`: of these, the one that divides by the
/// highest power of two.
pub(crate) fn node(first: i64, past: i64) -> i64 {
    let last = past - 1;
    match (first - 1) ^ last {
        0 => last,
        different => last & (i64::MAX << different.ilog2()),
    }
}

/// In SQL, the nodes at or before a position on the way to it.
pub(crate) fn nodes_before(position: &str) -> String {
    format!("array(select distinct {position} >> k << k from generate_series(0, 62) k)")
}

/// In SQL, the nodes behind a position on the way to it.
pub(crate) fn nodes_behind(position: &str) -> String {
    format!("array(select distinct ({position} >> k) + 1 << k from generate_series(0, 62) k)")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn before(position: i64) -> Vec<i64> {
        (0..63).map(|k| position >> k << k).collect()
    }

    fn behind(position: i64) -> Vec<i64> {
        (0..62).map(|k| ((position >> k) + 1) << k).collect()
    }

    fn is_found(first: i64, past: i64, position: i64) -> bool {
        let node = node(first, past);
        (before(position).contains(&node) && past > position)
            || (behind(position).contains(&node) && first <= position)
    }

    #[test]
    fn the_node_is_in_the_range() {
        assert_eq!(node(5, 6), 5);
        assert_eq!(node(5, 7), 6);
        assert_eq!(node(1, 9), 8);
        assert_eq!(node(9, 16), 12);
    }

    proptest! {
        #[test]
        fn a_range_is_found_at_the_positions_in_it_and_at_no_others(
            first in 1..200i64, length in 1..100i64, position in 0..400i64,
        ) {
            let past = first + length;
            prop_assert!((first..past).contains(&node(first, past)));
            prop_assert_eq!(
                is_found(first, past, position),
                (first..past).contains(&position)
            );
        }

        #[test]
        fn far_positions_are_found_too(
            first in 1..i64::MAX / 4, length in 1..i64::MAX / 4, share in 0.0..1.0f64,
        ) {
            let past = first + length;
            let position = first + ((length - 1) as f64 * share) as i64;
            let position = position.min(past - 1);
            prop_assert!(is_found(first, past, position));
            prop_assert!(!is_found(first, past, past));
            prop_assert!(!is_found(first, past, first - 1));
        }
    }
}
