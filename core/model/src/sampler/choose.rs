//! One token from one row of logits.

use super::Settings;
use crate::error::{Error, Result};

/// The token that `words` (one counter's random bits) choose: the inverse of the cumulative distribution at a uniform
/// number of 53 bits, tokens in order of id.
///
/// # Errors
/// Logits that are not finite.
pub(super) fn token(logits: &[f32], settings: &Settings, words: [u32; 4]) -> Result<u32> {
    let best = argmax(logits)?;
    if settings.temperature == 0.0 {
        return Ok(best as u32);
    }
    let weights = weights(logits, logits[best], settings);
    let bits = u64::from(words[0]) << 32 | u64::from(words[1]);
    let uniform = (bits >> 11) as f64 / (1u64 << 53) as f64;
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut sum = 0.0;
    let reached = weights.iter().position(|&weight| {
        sum += f64::from(weight);
        sum > uniform * total
    });
    // Rounding may keep the sum from passing the total by a hair; the likeliest token is always allowed.
    Ok(reached.unwrap_or(best) as u32)
}

/// The lowest index of the greatest value.
fn argmax(logits: &[f32]) -> Result<usize> {
    let mut best = 0;
    for (i, &logit) in logits.iter().enumerate() {
        if !logit.is_finite() {
            return Err(Error::Request(
                "the model gave logits that are not finite: its weights have diverged; lower the learning rate".into(),
            ));
        }
        if logit > logits[best] {
            best = i;
        }
    }
    Ok(best)
}

/// Unnormalised probabilities at the temperature, 0 where top-k or top-p removed a token.
fn weights(logits: &[f32], max: f32, settings: &Settings) -> Vec<f32> {
    let inverse = (1.0 / settings.temperature) as f32;
    let mut weights: Vec<f32> = logits.iter().map(|&logit| (logit - max) * inverse).collect();
    kernels::math::exp_all(&mut weights);
    if settings.top_k.is_none_or(|k| k >= logits.len()) && settings.top_p.is_none_or(|p| p >= 1.0) {
        return weights;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let mut kept = order.len();
    if let Some(k) = settings.top_k.filter(|&k| k < kept) {
        let least = logits[order[k - 1]];
        kept = order.iter().take_while(|&&i| logits[i] >= least).count();
    }
    if let Some(p) = settings.top_p.filter(|&p| p < 1.0) {
        let total: f64 = order[..kept].iter().map(|&i| f64::from(weights[i])).sum();
        let mut before = 0.0;
        kept = order[..kept]
            .iter()
            .take_while(|&&i| {
                // The token that crosses p is the last one kept.
                let keep = before < p * total;
                before += f64::from(weights[i]);
                keep
            })
            .count();
    }
    for &removed in &order[kept..] {
        weights[removed] = 0.0;
    }
    weights
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn settings(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> Settings {
        Settings { temperature, top_k, top_p, max_tokens: 1, slots: 1 }
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
        let logits = rows("logits");
        let mut compared = 0;
        for (name, case) in json["cases"].as_object().unwrap() {
            let of = &case["settings"];
            if of.get("min_p").is_some() || of.get("repetition_penalty").is_some() {
                continue;
            }
            let settings = settings(
                of.get("temperature").and_then(Value::as_f64).unwrap_or(1.0),
                of.get("top_k").and_then(Value::as_u64).map(|k| k as usize),
                of.get("top_p").and_then(Value::as_f64),
            );
            let ties: Vec<usize> = serde_json::from_value(case["rows_with_a_tie_across_the_cut"].clone()).unwrap();
            for (row, expected) in rows(&format!("{name}.probs")).iter().enumerate() {
                let best = argmax(&logits[row]).unwrap();
                let weights = weights(&logits[row], logits[row][best], &settings);
                let count = |values: &[f32]| values.iter().filter(|&&x| x > 0.0).count();
                assert_eq!(count(&weights), count(expected), "{name}, row {row}");
                let total: f32 = weights.iter().sum();
                for (weight, expected) in weights.iter().zip(expected).filter(|_| !ties.contains(&row)) {
                    assert!((weight / total - expected).abs() < 1e-6, "{name}, row {row}");
                }
                compared += 1;
            }
        }
        assert!(compared >= 60, "only {compared} rows were compared");
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let key = base::RngKey::new(3, "choose");
        let mut counts = [0usize; 4];
        let draws = 100_000;
        for i in 0..draws {
            counts[token(&logits, &settings(0.7, None, None), key.words([0, 0, 0, i])).unwrap() as usize] += 1;
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
        assert_eq!(token(&[1.0, 3.0, 3.0], &settings(0.0, None, None), [0; 4]).unwrap(), 1);
        let error = token(&[1.0, f32::NAN], &settings(1.0, None, None), [0; 4]).unwrap_err();
        assert!(error.to_string().contains("not finite"));
    }
}
