//! How a step's work is cut: into optimiser updates, and each of those into passes that fit the memory.

use std::ops::Range;

use base::RngKey;

/// Shuffles `0..groups` and cuts it into minibatches whose sizes differ by at most one, the larger ones first: `count` of
/// them, or fewer so that none is empty.
pub fn minibatches(groups: usize, count: usize, key: RngKey, step: u64) -> Vec<Vec<usize>> {
    let order = key.permutation(step as u32, groups);
    let count = count.clamp(1, groups.max(1));
    let (size, larger) = (groups / count, groups % count);
    let mut rest = order.as_slice();
    let mut batches = Vec::with_capacity(count);
    for batch in 0..count {
        let (this, others) = rest.split_at(size + usize::from(batch < larger));
        rest = others;
        if !this.is_empty() {
            batches.push(this.to_vec());
        }
    }
    batches
}

/// Cuts sequences of the given lengths, in order, into passes of at most `tokens_per_pass` tokens. A sequence that is
/// longer than that has a pass for itself.
pub fn pack(lengths: &[usize], tokens_per_pass: usize) -> Vec<Range<usize>> {
    let mut passes = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, length) in lengths.iter().enumerate() {
        if i > start && tokens + length > tokens_per_pass {
            passes.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        passes.push(start..lengths.len());
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minibatches_hold_each_group_once_and_differ_by_at_most_one() {
        let key = RngKey::new(17, "update");
        for (groups, count) in [(10, 3), (3, 10), (16, 16), (1, 1), (7, 2), (512, 16)] {
            let batches = minibatches(groups, count, key, 5);
            let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
            assert_eq!(sizes.len(), count.min(groups));
            assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] - sizes[sizes.len() - 1] <= 1, "{sizes:?}");
            let mut all = batches.concat();
            all.sort_unstable();
            assert_eq!(all, (0..groups).collect::<Vec<_>>());
        }
        assert_eq!(minibatches(9, 2, key, 5), minibatches(9, 2, key, 5));
        assert_ne!(minibatches(9, 2, key, 5), minibatches(9, 2, key, 6));
        assert!(minibatches(0, 4, key, 0).is_empty());
    }

    #[test]
    fn passes_are_filled_in_order() {
        assert_eq!(pack(&[3, 4, 5, 20, 1, 1], 8), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(pack(&[4, 4], 8), std::iter::once(0..2).collect::<Vec<_>>());
        assert!(pack(&[], 8).is_empty());
    }
}
