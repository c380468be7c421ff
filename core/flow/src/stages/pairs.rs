//! `pairs`: of two responses to a prompt the better one and the other, as a language model judges them.
//!
//! As DeepSeek-R1's preference data was made (arXiv 2501.12948, the helpful reward model): each pair is judged several times,
//! half of them with the two in the other order, so that a liking for the first place takes no part; it is kept where the
//! mean is clear; and the lengths of chosen and rejected are balanced over the data set.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Decision, Finding, Group, Judgement, RngKey, Verdict};
use serde::{Deserialize, Serialize};
use spec::OnUndecided;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::stages::ask::{Asker, Question, scores_in_words};
use crate::stages::judged::{Ruling, Tally, judged_text};

pub(crate) struct PairsStage {
    pub name: String,
    pub spec: spec::Pairs,
    pub asker: Asker,
    pub key: RngKey,
    pub lengths: Mutex<Lengths>,
}

/// The lengths of all pairs that were kept, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lengths {
    chosen: u64,
    rejected: u64,
}

impl Lengths {
    /// How much longer the chosen are, as a share of the mean length of both.
    fn difference(self) -> f64 {
        let mean = (self.chosen + self.rejected) as f64 / 2.0;
        if mean > 0.0 { (self.chosen as f64 - self.rejected as f64) / mean } else { 0.0 }
    }
}

/// Two completions of a group, by number.
struct Pair<'a> {
    group: &'a Arc<Group>,
    numbers: [usize; 2],
    texts: [&'a str; 2],
}

/// What became of a pair.
struct Judged {
    verdict: Verdict,
    /// Why it is not kept.
    dropped: Option<String>,
    /// Which of the two is better, once it is known.
    better: usize,
    /// The lengths of the better one and of the other.
    lengths: (u64, u64),
}

impl PairsStage {
    /// The pairs of a group: of its completions that were kept, in a random order, each with the next.
    fn pairs_of<'a>(&self, step: u64, group: &'a Arc<Group>) -> Vec<Pair<'a>> {
        let kept = (0..group.completions.len()).filter(|&i| {
            group.decisions.get(i).is_none_or(|decision| *decision == Decision::Keep)
                && judged_text(&group.prompt, &group.completions[i], self.spec.input).is_ok()
        });
        let kept: Vec<usize> = kept.collect();
        let order = self.key.derive(&format!("pairs-{}", group.index)).permutation(step as u32, kept.len());
        let text = |i: usize| judged_text(&group.prompt, &group.completions[i], self.spec.input).unwrap_or_default();
        let pair = |two: &[usize; 2]| {
            let numbers = two.map(|place| kept[place]);
            Pair { group, numbers, texts: numbers.map(text) }
        };
        order.as_chunks().0.iter().take(self.spec.pairs_per_prompt).map(pair).collect()
    }

    /// What the judge says about a pair, from its verdicts on the two orders.
    fn judged(&self, pair: &Pair<'_>, found: &[Vec<Verdict>]) -> Judged {
        let lengths = pair.texts.map(|text| text.chars().count() as u64);
        let undecided = |reason: &str| Judged {
            verdict: Verdict::Undecided(reason.to_owned()),
            dropped: Some(format!("undecided by `{}`: {reason}", self.name)),
            better: 0,
            lengths: (lengths[0], lengths[1]),
        };
        let mut sum = 0.0;
        for (verdicts, sign) in found.iter().zip([1.0, -1.0]) {
            for verdict in verdicts {
                match verdict {
                    Verdict::Decided(finding) => sum += sign * finding.score,
                    Verdict::Undecided(reason) => return undecided(reason),
                    Verdict::NotApplicable => return undecided("the plugin reads nothing from the judge's text"),
                }
            }
        }
        let mean = sum / self.spec.judgements as f64;
        let better = usize::from(mean < 0.0);
        let note = found.iter().map(|verdicts| scores_in_words(verdicts)).collect::<Vec<_>>().join("; swapped: ");
        let close = mean.abs() <= self.spec.margin;
        Judged {
            verdict: Verdict::Decided(Finding { score: mean.abs(), note: Some(note), ..Finding::default() }),
            dropped: close.then(|| format!("the margin is {}, not above {}", mean.abs(), self.spec.margin)),
            better,
            lengths: (lengths[better], lengths[1 - better]),
        }
    }

    /// A pair as a group of two: the better completion, and the other. `answer` is a completion's number.
    fn group(&self, index: usize, pair: &Pair<'_>, judged: Judged) -> Arc<Group> {
        let order = [judged.better, 1 - judged.better];
        let numbers = order.map(|place| pair.numbers[place]);
        let verdict = |(number, sign): (usize, f64)| match &judged.verdict {
            Verdict::Decided(finding) => {
                let (score, answer) = (sign * finding.score, Some(number.to_string()));
                Verdict::Decided(Finding { score, answer, ..finding.clone() })
            }
            other => other.clone(),
        };
        let verdicts = numbers.into_iter().zip([1.0, -1.0]).map(verdict).collect();
        // What earlier stages found about the two.
        let before = pair.group.judgements.iter().map(|judgement| {
            let verdicts = numbers.iter().filter_map(|&number| judgement.verdicts.get(number).cloned()).collect();
            Arc::new(Judgement { stage: judgement.stage.clone(), verdicts })
        });
        let mut judgements: Vec<Arc<Judgement>> = before.collect();
        judgements.push(Arc::new(Judgement { stage: self.name.clone(), verdicts }));
        let decision = judged.dropped.map_or(Decision::Keep, Decision::Drop);
        Arc::new(Group {
            step: pair.group.step,
            index,
            prompt: pair.group.prompt.clone(),
            completions: numbers.iter().map(|&number| pair.group.completions[number].clone()).collect(),
            judgements,
            rewards: Vec::new(),
            decisions: vec![decision; 2],
        })
    }

    fn file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("lengths-{}.json", self.name))
    }
}

/// Drops pairs until the lengths of chosen and rejected differ by at most `most`: of the pairs that are left in this step,
/// always the one that differs most in the direction of the surplus, of equal ones the last. What earlier steps kept stays. Gives the
/// number of those that were dropped.
fn balance(pairs: &mut [Judged], lengths: &mut Lengths, most: Option<f64>) -> usize {
    let kept = |pairs: &[Judged]| -> Vec<usize> { (0..pairs.len()).filter(|&i| pairs[i].dropped.is_none()).collect() };
    for i in kept(pairs) {
        lengths.chosen += pairs[i].lengths.0;
        lengths.rejected += pairs[i].lengths.1;
    }
    let mut dropped = 0;
    while let Some(most) = most.filter(|most| lengths.difference().abs() > *most) {
        let sign = if lengths.difference() > 0.0 { 1 } else { -1 };
        let surplus = |i: usize| sign * (pairs[i].lengths.0 as i64 - pairs[i].lengths.1 as i64);
        let Some(furthest) = kept(pairs).into_iter().filter(|&i| surplus(i) > 0).max_by_key(|&i| (surplus(i), i))
        else {
            break;
        };
        let pair = &mut pairs[furthest];
        lengths.chosen -= pair.lengths.0;
        lengths.rejected -= pair.lengths.1;
        let (chosen, rejected) = pair.lengths;
        pair.dropped = Some(format!(
            "its lengths, {chosen} and {rejected}, would part those of all chosen and rejected by more than {most}"
        ));
        dropped += 1;
    }
    dropped
}

impl Work for PairsStage {
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let before = self.asker.plugin.spent();
        let groups = inbox.whole_step()?;
        let mut pairs: Vec<Pair<'_>> = Vec::new();
        let mut questions = Vec::new();
        for group in &groups {
            for (number, pair) in self.pairs_of(step, group).into_iter().enumerate() {
                let index = 2 * (group.index * self.spec.pairs_per_prompt + number) as u64;
                for (swapped, [first, second]) in [[0, 1], [1, 0]].into_iter().enumerate() {
                    questions.push(Question {
                        about: vec![("first", pair.texts[first].to_owned()), ("second", pair.texts[second].to_owned())],
                        prompt: group.prompt.clone(),
                        index: index + swapped as u64,
                        texts: self.spec.judgements / 2,
                    });
                }
                pairs.push(pair);
            }
        }
        let found = self.asker.ask(step, &questions)?;
        let mut judged: Vec<Judged> =
            pairs.iter().zip(found.as_chunks::<2>().0).map(|(pair, found)| self.judged(pair, found)).collect();

        let mut tally = Tally::default();
        for (pair, judged) in pairs.iter().zip(&judged) {
            tally.add(pair.group.index, std::slice::from_ref(&judged.verdict));
        }
        let undecided = tally.undecided as usize;
        let close = judged.iter().filter(|judged| judged.dropped.is_some()).count() - undecided;
        let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        let unbalanced = balance(&mut judged, &mut lengths, self.spec.length_difference);

        let ruling = Ruling { stage: &self.name, on_undecided: OnUndecided::Drop, most: self.spec.max_undecided };
        let mut report = tally.report(&ruling, "pairs");
        let mut put = |name: &str, value: f64| report.metrics.push((format!("pairs/{}/{name}", self.name), value));
        put("judged", judged.len() as f64);
        put("kept", (judged.len() - undecided - close - unbalanced) as f64);
        put("too_close", close as f64);
        put("unbalanced", unbalanced as f64);
        put("length_difference", lengths.difference());
        // How much the judge likes whatever stands first.
        let scores: Vec<f64> = found
            .iter()
            .flatten()
            .filter_map(|verdict| match verdict {
                Verdict::Decided(finding) => Some(finding.score),
                _ => None,
            })
            .collect();
        if !scores.is_empty() {
            put("position_bias", crate::metrics::mean(&scores));
        }
        for (index, (pair, judged)) in pairs.iter().zip(judged).enumerate() {
            outbox.send(&self.group(index, pair, judged))?;
        }
        report.spent = Some((self.asker.plugin.name().to_owned(), self.asker.plugin.spent().since(before)));
        Ok(report)
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        let path = self.file(folder);
        let lengths = *self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_string(&lengths).map_err(|error| Error::Defect(error.to_string()))?;
        std::fs::write(&path, text)
            .map_err(|error| Error::Model(format!("failed to write {}: {error}", path.display())))
    }

    fn load(&self, folder: &Path) -> Result<(), Error> {
        let path = self.file(folder);
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        let lengths = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        let unusable = |why| Error::Resume(format!("{} can't be used: {why}", path.display()));
        *self.lengths.lock().unwrap_or_else(PoisonError::into_inner) = lengths.map_err(unusable)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(chosen: u64, rejected: u64) -> Judged {
        let verdict = Verdict::Decided(Finding::default());
        Judged { verdict, dropped: None, better: 0, lengths: (chosen, rejected) }
    }

    #[test]
    fn lengths_are_balanced_by_dropping_what_differs_most() {
        let mut pairs = [pair(100, 100), pair(400, 100), pair(110, 100), pair(90, 120), pair(300, 100)];
        let mut lengths = Lengths::default();
        assert_eq!(balance(&mut pairs, &mut lengths, Some(0.1)), 2);
        let dropped: Vec<bool> = pairs.iter().map(|pair| pair.dropped.is_some()).collect();
        assert_eq!(dropped, [false, true, false, false, true]);
        assert_eq!(lengths, Lengths { chosen: 300, rejected: 320 });

        // What was kept before counts, and stays.
        let mut more = [pair(100, 200), pair(150, 100)];
        assert_eq!(balance(&mut more, &mut lengths, Some(0.08)), 1);
        assert_eq!(lengths, Lengths { chosen: 450, rejected: 420 });
        let mut any = [pair(1000, 1)];
        assert_eq!(balance(&mut any, &mut lengths, None), 0);
        assert_eq!(balance(&mut [pair(1, 500)], &mut lengths, Some(0.08)), 0, "what is left can't help");
    }
}
