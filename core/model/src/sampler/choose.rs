//! One token from one row of logits, by the filters of transformers in their order: repetition penalty, temperature,
//! top-k, top-p, min-p.

use kernels::distribution::{self, Distribution};

use super::Settings;
use crate::error::{Error, Result};

/// A token, and its natural log-probability under the logits at the sampling temperature (at 1 when that is 0), as if
/// nothing had been penalised or filtered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// Memory that one choice leaves to the next.
#[derive(Default)]
pub struct Scratch {
    distribution: distribution::Scratch,
    penalised: Vec<f32>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    weight: f32,
}

/// The token that `words` (one counter's random bits) choose from logits `[V]`: the inverse of the cumulative
/// distribution at a uniform number of 53 bits, tokens in order of id. `history` is what the repetition penalty looks
/// at: tokens below V.
///
/// # Errors
/// Logits that are not finite.
pub fn token(
    logits: &[f32],
    history: [&[u32]; 2],
    settings: &Settings,
    words: [u32; 4],
    scratch: &mut Scratch,
) -> Result<Chosen> {
    let Scratch { distribution, penalised, candidates } = scratch;
    let greedy = settings.temperature == 0.0;
    let temperature = if greedy { 1.0 } else { settings.temperature };
    let whole = Distribution::new(logits, temperature, distribution).ok_or_else(not_finite)?;
    let normaliser = whole.normaliser();
    let mut left = match settings.repetition_penalty {
        None => whole,
        Some(penalty) => {
            penalise(logits, history, penalty as f32, penalised);
            Distribution::new(penalised, temperature, distribution).ok_or_else(not_finite)?
        }
    };
    let token = if greedy {
        left.likeliest()
    } else {
        filter(&mut left, settings, candidates);
        let bits = u64::from(words[0]) << 32 | u64::from(words[1]);
        left.draw((bits >> 11) as f64 / (1u64 << 53) as f64)
    };
    Ok(Chosen { token, logprob: normaliser.logprob(logits[token as usize]) })
}

fn not_finite() -> Error {
    Error::Request(
        "the model gave logits that are not finite: its weights have diverged; lower the learning rate, or raise a \
         sampling temperature that is nearly 0"
            .into(),
    )
}

/// CTRL's penalty (Keskar et al., arXiv 1909.05858, section 4.1) as transformers has it: positive logits of tokens that
/// have been are divided by it, negative ones multiplied, each once.
fn penalise(logits: &[f32], history: [&[u32]; 2], penalty: f32, out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(logits);
    for &token in history.into_iter().flatten() {
        let logit = logits[token as usize];
        out[token as usize] = if logit < 0.0 { logit * penalty } else { logit / penalty };
    }
}

/// Removes the tokens that the settings leave out.
fn filter(distribution: &mut Distribution<'_>, settings: &Settings, candidates: &mut Vec<Candidate>) {
    let top_k = settings.top_k.filter(|&k| k < distribution.len());
    let top_p = settings.top_p.filter(|&p| p < 1.0);
    let mut least = f32::NEG_INFINITY;
    let mut tied = 0..0;
    candidates.clear();
    if let Some(k) = top_k {
        let bound = distribution.reached_by(k);
        gather(distribution, bound, candidates);
        candidates.select_nth_unstable_by(k - 1, best_first);
        least = candidates[k - 1].logit;
        candidates.retain(|candidate| candidate.logit >= least);
    }
    if let Some(p) = top_p {
        let mass = match top_k {
            Some(_) => p * mass(candidates),
            None => {
                let mass = p * distribution.total();
                gather_mass(distribution, mass, settings.temperature, candidates);
                mass
            }
        };
        let kept = reach(candidates, mass);
        least = candidates[kept - 1].logit;
        // Of tokens that tie at the cut, the lowest ids are kept.
        tied = kept..candidates.len();
    }
    if least > f32::NEG_INFINITY || settings.min_p.is_some() {
        let removed = candidates[tied].iter().filter(|candidate| candidate.logit == least);
        let least_weight = settings.min_p.unwrap_or(0.0) as f32; // the likeliest weighs 1
        distribution.keep(least, least_weight, removed.map(|candidate| candidate.token));
    }
}

/// The tokens whose logits are at least `least`.
fn gather(distribution: &Distribution<'_>, least: f32, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    distribution.each_from(least, |token, logit, weight| candidates.push(Candidate { token, logit, weight }));
}

/// The likeliest tokens, so many that their weights sum to `mass`, or all that have a weight.
fn gather_mass(distribution: &Distribution<'_>, mass: f64, temperature: f64, candidates: &mut Vec<Candidate>) {
    // In nats below the likeliest; what lies 88 below has no weight.
    for depth in (2..=90).step_by(2) {
        let least = f64::from(distribution.greatest()) - f64::from(depth) * temperature;
        gather(distribution, least as f32, candidates);
        if self::mass(candidates) >= mass {
            return;
        }
    }
}

fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

fn best_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// How many of the candidates, best first, it takes to reach `mass`: at least one, the one that crosses it included.
/// They are put first.
fn reach(candidates: &mut [Candidate], mut mass: f64) -> usize {
    let (mut start, mut end) = (0, candidates.len());
    while end - start > 1 {
        let middle = start.midpoint(end);
        candidates[start..end].select_nth_unstable_by(middle - start, best_first);
        let better = self::mass(&candidates[start..middle]);
        if better >= mass {
            end = middle;
        } else {
            mass -= better;
            start = middle;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The weights that are left of each token's.
    fn weights(logits: &[f32], history: [&[u32]; 2], settings: &Settings) -> Vec<f32> {
        let Scratch { mut distribution, mut penalised, mut candidates } = Scratch::default();
        penalise(logits, history, settings.repetition_penalty.unwrap_or(1.0) as f32, &mut penalised);
        let mut left = Distribution::new(&penalised, settings.temperature, &mut distribution).unwrap();
        filter(&mut left, settings, &mut candidates);
        let mut weights = vec![0.0; logits.len()];
        left.each_from(f32::NEG_INFINITY, |token, _, weight| weights[token as usize] = weight);
        weights
    }

    #[test]
    fn filters_agree_with_those_of_transformers() {
        let json: Value = serde_json::from_str(include_str!("../../../../tests/parity/sampling.json")).unwrap();
        let bytes = include_bytes!("../../../../tests/parity/sampling.safetensors");
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let rows = |name: &str| -> Vec<Vec<f32>> {
            let view = file.tensor(name).unwrap();
            let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            values.chunks(view.shape()[1]).map(<[f32]>::to_vec).collect()
        };
        let (logits, history) = (rows("logits"), file.tensor("history").unwrap());
        let history: Vec<u32> = history.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as u32).collect();
        let mut compared = 0;
        for (name, case) in json["cases"].as_object().unwrap() {
            let number = |key: &str| case["settings"].get(key).and_then(Value::as_f64);
            let settings = Settings {
                repetition_penalty: number("repetition_penalty"),
                temperature: number("temperature").unwrap_or(1.0),
                top_k: number("top_k").map(|k| k as usize),
                top_p: number("top_p"),
                min_p: number("min_p"),
                ..Settings::new(1, 1)
            };
            let ties: Vec<usize> = serde_json::from_value(case["rows_with_a_tie_across_the_cut"].clone()).unwrap();
            for (row, expected) in rows(&format!("{name}.probs")).iter().enumerate() {
                let (prompt, completion) = history[row * 9..(row + 1) * 9].split_at(4);
                let weights = weights(&logits[row], [prompt, completion], &settings);
                let count = |values: &[f32]| values.iter().filter(|&&x| x > 0.0).count();
                assert_eq!(count(&weights), count(expected), "{name}, row {row}");
                let total: f32 = weights.iter().sum();
                for (weight, expected) in weights.iter().zip(expected).filter(|_| !ties.contains(&row)) {
                    assert!((weight / total - expected).abs() < 1e-6, "{name}, row {row}");
                }
                compared += 1;
            }
        }
        assert_eq!(compared, 18 * 5);
    }

    /// The filters by sorting everything.
    fn sorted(logits: &[f32], settings: &Settings) -> Vec<bool> {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |i: usize| (f64::from(logits[i] - greatest) / settings.temperature).exp();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if let Some(k) = settings.top_k.filter(|&k| k < order.len()) {
            let least = logits[order[k - 1]];
            order.retain(|&i| logits[i] >= least);
        }
        if let Some(p) = settings.top_p {
            let total: f64 = order.iter().map(|&i| weight(i)).sum();
            let mut before = 0.0;
            let kept = order.iter().take_while(|&&i| {
                let keep = before < p * total;
                before += weight(i);
                keep
            });
            order.truncate(kept.count());
        }
        let mut kept = vec![false; logits.len()];
        order.into_iter().for_each(|i| kept[i] = weight(i) >= settings.min_p.unwrap_or(0.0));
        kept
    }

    #[test]
    fn filters_keep_what_sorting_would() {
        let key = base::RngKey::new(5, "filters");
        let mut cuts = 0;
        for case in 0..300 {
            let words = key.words([case, 0, 0, 0]);
            let pick =
                |i: u32, of: &[f64]| Some(of[(key.words([case, 1, i, 0])[0] as usize) % of.len()]).filter(|&x| x > 0.0);
            let n = [1, 25, 300, 5000][words[0] as usize % 4];
            // Flat rows and peaked ones; few distinct logits make ties.
            let (spread, steps) = ([0.3, 4.0, 30.0][words[1] as usize % 3], [10.0, 1e6][words[2] as usize % 2]);
            let logit = |i: u32| ((key.uniform([case, 2, i, 0]) * 2.0 - 1.0) * steps).round() / steps * spread;
            let logits: Vec<f32> = (0..n).map(logit).collect();
            let settings = Settings {
                temperature: pick(0, &[0.6, 1.0, 1.7]).unwrap(),
                top_k: pick(1, &[0.0, 0.0, 1.0, 7.0, 40.0, 3000.0]).map(|k| k as usize),
                top_p: pick(2, &[0.0, 0.0, 0.31, 0.83, 0.957]),
                min_p: pick(3, &[0.0, 0.0, 0.011, 0.27]),
                ..Settings::new(1, 1)
            };
            let kept: Vec<bool> = weights(&logits, [&[], &[]], &settings).iter().map(|&weight| weight > 0.0).collect();
            let mut expected = sorted(&logits, &settings);
            // What is too unlikely to be drawn has no weight.
            let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let drawable = |i: usize| f64::from(logits[i] - greatest) / settings.temperature > -87.0;
            expected.iter_mut().enumerate().for_each(|(i, kept)| *kept &= drawable(i));
            assert_eq!(kept, expected, "case {case}: {settings:?} of {n} with {spread}");
            cuts += usize::from(expected.contains(&false));
        }
        assert!(cuts > 150, "{cuts} of 300 removed something");
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let key = base::RngKey::new(3, "choose");
        let settings = Settings { temperature: 0.7, ..Settings::new(1, 1) };
        let mut scratch = Scratch::default();
        let mut counts = [0usize; 4];
        let draws = 100_000;
        for i in 0..draws {
            let chosen = token(&logits, [&[], &[]], &settings, key.words([0, 0, 0, i]), &mut scratch).unwrap();
            counts[chosen.token as usize] += 1;
        }
        let weights: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / 0.7).exp()).collect();
        for (count, weight) in counts.iter().zip(&weights) {
            let p = weight / weights.iter().sum::<f64>();
            let error = 4.0 * (p * (1.0 - p) * f64::from(draws)).sqrt();
            assert!((*count as f64 - p * f64::from(draws)).abs() < error, "{counts:?} against {weights:?}");
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_best_and_bad_logits_are_an_error() {
        let greedy = Settings { temperature: 0.0, ..Settings::new(1, 1) };
        let mut scratch = Scratch::default();
        let mut choose = |logits: &[f32], history: &[u32], settings: &Settings| {
            token(logits, [history, &[]], settings, [0; 4], &mut scratch)
        };
        let plain = choose(&[1.0, 3.0, 3.0], &[], &greedy).unwrap();
        assert_eq!(plain.token, 1);
        let penalised = Settings { repetition_penalty: Some(1.5), ..greedy.clone() };
        let other = choose(&[1.0, 3.0, 3.0], &[1, 1, 0], &penalised).unwrap();
        assert_eq!((other.token, other.logprob), (2, plain.logprob), "a penalty changes no recorded probability");
        let error = choose(&[1.0, f32::NAN], &[], &greedy).unwrap_err();
        assert!(error.to_string().contains("not finite"));
        let error = choose(&[1.0, 1e30], &[1], &Settings { repetition_penalty: Some(1e-30), ..greedy }).unwrap_err();
        assert!(error.to_string().contains("not finite"));
    }
}
