//! What the majority of a question's completions answers: cons@k.
//!
//! Answers are equal if the verifier says so, not if their texts are: classes of equivalent answers are counted.

use std::collections::BTreeMap;

/// A completion as the majority vote sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ballot<'a> {
    /// The canonical answer; without one it votes for nothing.
    pub answer: Option<&'a str>,
    /// Whether the answer is right.
    pub right: bool,
}

/// The classes of equivalent answers of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    /// For each completion the number of its class, in the order of their first completions.
    pub of: Vec<Option<usize>>,
    /// The largest class. Of equal ones that which appeared first: samples come in no particular order, so this is as good
    /// as a draw, and repeats.
    pub majority: Option<usize>,
}

/// With how many answers of a question, those given most often, the others are compared at most.
const ASKED: usize = 16;

/// The classes of equivalent answers, as far as they decide what the majority is worth.
///
/// Answers with one canonical text are equal, and so are all that are right, being equal to the reference; the right and
/// the wrong never are. Whether two wrong ones are equal the verifier is asked, and only where it matters: where some
/// answers are right, but not more than half of them. Equality is taken to be transitive.
///
/// `equal(reference, others)` says for each of the completions `others` whether its answer equals that of the completion
/// `reference`. It is called at most 16 times.
pub(crate) fn classes<E>(
    ballots: &[Ballot<'_>],
    mut equal: impl FnMut(usize, &[usize]) -> Result<Vec<bool>, E>,
) -> Result<Classes, E> {
    // The members of each class, by the number of its first completion.
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut first_of: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for (number, ballot) in ballots.iter().enumerate() {
        let Some(answer) = ballot.answer else { continue };
        // All right answers go under one key.
        let first = *first_of.entry((!ballot.right).then_some(answer)).or_insert(number);
        members.entry(first).or_default().push(number);
    }
    let right = first_of.get(&None).and_then(|first| members.get(first)).map_or(0, Vec::len);
    let wrong: usize = members.values().map(Vec::len).sum::<usize>() - right;
    if right > 0 && right <= wrong {
        let mut waiting: Vec<usize> =
            first_of.iter().filter(|(key, _)| key.is_some()).map(|(_, first)| *first).collect();
        waiting.sort_by_key(|first| (std::cmp::Reverse(members[first].len()), *first));
        merge(&mut members, waiting, &mut equal)?;
    }
    let mut of = vec![None; ballots.len()];
    let mut majority: Option<(usize, usize)> = None;
    for (class, numbers) in members.values().enumerate() {
        for number in numbers {
            of[*number] = Some(class);
        }
        if majority.is_none_or(|(_, most)| numbers.len() > most) {
            majority = Some((class, numbers.len()));
        }
    }
    Ok(Classes { of, majority: majority.map(|(class, _)| class) })
}

/// Puts classes whose answers are equal together. `waiting` are their first completions, those of large classes first.
fn merge<E>(
    members: &mut BTreeMap<usize, Vec<usize>>,
    waiting: Vec<usize>,
    equal: &mut impl FnMut(usize, &[usize]) -> Result<Vec<bool>, E>,
) -> Result<(), E> {
    // Which of `waiting` each is known to equal, by position: a forest that leads to the first.
    let mut parents: Vec<usize> = (0..waiting.len()).collect();
    fn root(parents: &[usize], mut at: usize) -> usize {
        while parents[at] != at {
            at = parents[at];
        }
        at
    }
    for reference in 0..waiting.len().min(ASKED) {
        let own = root(&parents, reference);
        let others: Vec<usize> = (reference + 1..waiting.len()).filter(|other| root(&parents, *other) != own).collect();
        if others.is_empty() {
            continue;
        }
        let completions: Vec<usize> = others.iter().map(|other| waiting[*other]).collect();
        let answers = equal(waiting[reference], &completions)?;
        for other in others.into_iter().zip(answers).filter(|(_, equal)| *equal).map(|(other, _)| other) {
            let (one, two) = (root(&parents, reference), root(&parents, other));
            parents[one.max(two)] = one.min(two);
        }
    }
    let mut merged: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, first) in waiting.iter().enumerate() {
        merged.entry(root(&parents, at)).or_default().extend(members.remove(first).unwrap_or_default());
    }
    for mut numbers in merged.into_values() {
        numbers.sort_unstable();
        if let Some(first) = numbers.first().copied() {
            members.insert(first, numbers);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    /// Ballots from words: `-` gives no answer, `3!` is right.
    fn ballots<'a>(words: &'a str) -> Vec<Ballot<'a>> {
        let ballot = |word: &'a str| Ballot {
            answer: (word != "-").then(|| word.trim_end_matches('!')),
            right: word.ends_with('!'),
        };
        words.split_whitespace().map(ballot).collect()
    }

    /// A reference, and the answers that were held against it.
    type Call = (usize, Vec<usize>);

    /// The classes by completion, the majority, and the calls. Wrong answers are equal if they have the same first letter.
    fn vote(words: &str) -> (String, Option<usize>, Vec<Call>) {
        let ballots = ballots(words);
        let calls = RefCell::new(Vec::new());
        let letter = |number: usize| ballots[number].answer.unwrap().chars().next();
        let classes = classes::<Infallible>(&ballots, |reference, others| {
            calls.borrow_mut().push((reference, others.to_vec()));
            Ok(others.iter().map(|other| letter(*other) == letter(reference)).collect())
        });
        let Classes { of, majority } = classes.unwrap();
        let of = of.iter().map(|class| class.map_or("-".to_owned(), |class| class.to_string()));
        (of.collect::<Vec<_>>().join(" "), majority, calls.into_inner())
    }

    #[test]
    fn the_largest_class_wins_and_of_equal_ones_the_first() {
        assert_eq!(vote("a b! b! a b!"), ("0 1 1 0 1".to_owned(), Some(1), vec![]));
        assert_eq!(vote("b! a a b!"), ("0 1 1 0".to_owned(), Some(0), vec![]), "one wrong class: nothing to ask");
        assert_eq!(vote("a b! b! a").1, Some(0));
        assert_eq!(vote("- - -"), ("- - -".to_owned(), None, vec![]));
        assert_eq!(vote("").1, None);
    }

    #[test]
    fn right_answers_are_one_class_whatever_their_texts() {
        assert_eq!(vote("1/2! a 0.5! a 2/4!"), ("0 1 0 1 0".to_owned(), Some(0), vec![]));
    }

    #[test]
    fn wrong_answers_that_are_equal_count_together() {
        // Two right ones, and three wrong texts that mean the same: by their texts the right ones would win.
        let (of, majority, calls) = vote("r! a1 r! a2 - a3");
        assert_eq!((of.as_str(), majority), ("0 1 0 1 - 1", Some(1)));
        assert_eq!(calls, [(1, vec![3, 5])], "one call: afterwards all are known to be equal");
        let (of, majority, calls) = vote("r! r! b1 a1 b2 c1");
        assert_eq!((of.as_str(), majority), ("0 0 1 2 1 3", Some(0)));
        assert_eq!(calls, [(2, vec![3, 4, 5]), (3, vec![4, 5]), (4, vec![5])]);
    }

    #[test]
    fn equality_is_transitive() {
        let ballots = ballots("r! r! a b c");
        // a = b and b = c, but the verifier would not see a = c.
        let classes = classes::<Infallible>(&ballots, |reference, others| {
            Ok(others.iter().map(|other| other.abs_diff(reference) == 1).collect())
        });
        let expected = Classes { of: [0, 0, 1, 1, 1].map(Some).to_vec(), majority: Some(1) };
        assert_eq!(classes, Ok(expected));
    }

    #[test]
    fn nobody_is_asked_where_it_can_not_matter_and_never_too_often() {
        assert!(vote("a1 a2 b1 b2").2.is_empty(), "none is right");
        assert!(vote("r! r! a1 a2 r!").2.is_empty(), "most are right");
        let words: Vec<String> = (0..64).map(|i| format!("{}{i}", char::from_u32(200 + i).unwrap())).collect();
        assert_eq!(vote(&format!("r! {}", words.join(" "))).2.len(), ASKED);
    }
}
