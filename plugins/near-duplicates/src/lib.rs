//! Drops completions that say nearly the same as an earlier one of the step.
//!
//! Two texts are as similar as their sets of shingles (words in a row): the Jaccard index (Broder, "On the resemblance and
//! containment of documents", 1997). Pairs to compare are found by MinHash signatures that are equal in a band.

mod minhash;

use std::collections::BTreeMap;

use filtering::{Action, short, windows, words};
use minhash::Bands;
use pipeline_plugin::{Config, Context, Decision, Filterer, Group};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NearDuplicates {
    #[serde(default = "threshold")]
    threshold: f64,
    #[serde(default = "shingle")]
    shingle: usize,
    #[serde(default)]
    of: Of,
    #[serde(default)]
    action: Action,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    #[default]
    Step,
    Group,
}

fn threshold() -> f64 {
    0.8
}

fn shingle() -> usize {
    5
}

impl Config for NearDuplicates {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {
            "threshold": {
              "type": "number",
              "minimum": 0.5,
              "maximum": 1,
              "description": "The least similarity, from 0 to 1, at which a completion is a near duplicate. Default: 0.8."
            },
            "shingle": { "type": "integer", "minimum": 1, "maximum": 50, "description": "The words of a shingle. Default: 5." },
            "of": {
              "enum": ["step", "group"],
              "description": "Whether a completion is compared with all earlier ones of the step, or of its group. Default: step."
            },"#,
        filtering::action_schema!(),
        "} }"
    );
}

/// A completion that is kept.
struct Kept {
    group: usize,
    completion: usize,
    shingles: Vec<u64>,
}

impl Filterer for NearDuplicates {
    fn filter(&self, _: &Context, groups: &[Group], _: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        let bands = Bands::new(self.threshold);
        let mut kept: Vec<Kept> = Vec::new();
        let mut buckets: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut decisions = Vec::with_capacity(groups.len());
        for (at, group) in groups.iter().enumerate() {
            if self.of == Of::Group {
                (kept, buckets) = (Vec::new(), BTreeMap::new());
            }
            let mut decided = Vec::with_capacity(group.completions.len());
            for (i, completion) in group.completions.iter().enumerate() {
                let mut shingles: Vec<u64> = windows(&words(&completion.text), self.shingle).collect();
                shingles.sort_unstable();
                shingles.dedup();
                // A text without words is like no other.
                let keys = if shingles.is_empty() { Vec::new() } else { bands.keys(&shingles) };
                let mut candidates: Vec<usize> =
                    keys.iter().filter_map(|key| buckets.get(key)).flatten().copied().collect();
                candidates.sort_unstable();
                candidates.dedup();
                let similar = candidates.into_iter().find_map(|candidate| {
                    let similarity = jaccard(&shingles, &kept[candidate].shingles);
                    (similarity >= self.threshold).then_some((similarity, &kept[candidate]))
                });
                decided.push(self.action.unless_kept(similar.map(|(similarity, twin)| {
                    let of = if twin.group == at {
                        String::new()
                    } else {
                        format!(" of prompt {}", groups[twin.group].prompt_id)
                    };
                    format!("{} like completion {}{of}", short(similarity), twin.completion)
                })));
                if matches!(decided.last(), Some(Decision::Keep)) {
                    keys.into_iter().for_each(|key| buckets.entry(key).or_default().push(kept.len()));
                    kept.push(Kept { group: at, completion: i, shingles });
                }
            }
            decisions.push(decided);
        }
        Ok(decisions)
    }
}

/// The share of the elements of two ascending lists that are in both.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0_usize);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        both += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    both as f64 / (a.len() + b.len() - both).max(1) as f64
}

pipeline_plugin::filterer!(NearDuplicates);
