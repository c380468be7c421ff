//! What a step's groups amount to, under the names that practitioners know (TRL's, unless said otherwise).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Decision, Finish, Group, Verdict};
use host::Spent;

/// What each plugin spent in a step; what it spent nothing of is left out.
pub(crate) fn of_plugins(spent: &BTreeMap<String, Spent>) -> Vec<(String, f64)> {
    let of = |(plugin, spent): (&String, &Spent)| {
        let Spent { fuel, operations, runs, run_fuel, .. } = *spent;
        [("fuel", fuel), ("operations", operations), ("runs", runs), ("run_fuel", run_fuel)]
            .into_iter()
            .filter(|(_, units)| *units > 0)
            .map(|(name, units)| (format!("plugin/{plugin}/{name}"), units as f64))
            .collect::<Vec<_>>()
    };
    spent.iter().flat_map(of).collect()
}

/// Metrics of the completions, rewards and verdicts of a step.
pub(crate) fn of_groups(groups: &[(Arc<Group>, Vec<f64>)]) -> Vec<(String, f64)> {
    let completions = || groups.iter().flat_map(|(group, _)| &group.completions);
    let mut metrics = Vec::new();
    if completions().next().is_none() {
        return metrics;
    }
    let mut put = |name: &str, value: f64| metrics.push((name.to_owned(), value));

    let lengths: Vec<f64> = completions().map(|completion| completion.tokens.len() as f64).collect();
    let ended = completions().filter(|completion| completion.finish == Finish::Stop);
    let terminated: Vec<f64> = ended.map(|completion| completion.tokens.len() as f64).collect();
    put("completions/mean_length", mean(&lengths));
    put("completions/min_length", lengths.iter().copied().fold(f64::INFINITY, f64::min));
    put("completions/max_length", lengths.iter().copied().fold(0.0, f64::max));
    if !terminated.is_empty() {
        put("completions/mean_terminated_length", mean(&terminated));
    }
    put("completions/clipped_ratio", 1.0 - terminated.len() as f64 / lengths.len() as f64);

    let stages: Vec<&str> = groups
        .first()
        .map(|(group, _)| group.judgements.iter().map(|one| one.stage.as_str()).collect())
        .unwrap_or_default();
    for stage in stages {
        let verdicts = groups.iter().flat_map(|(group, _)| group.judgements.iter().filter(|one| one.stage == stage));
        let scores: Vec<f64> = verdicts
            .flat_map(|judgement| &judgement.verdicts)
            .filter_map(|verdict| match verdict {
                Verdict::Decided(finding) => Some(finding.score),
                _ => None,
            })
            .collect();
        if !scores.is_empty() {
            put(&format!("rewards/{stage}/mean"), mean(&scores));
            put(&format!("rewards/{stage}/std"), deviation(&scores));
        }
    }

    // What plugins measured beside their scores.
    let mut measured: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for judgement in groups.iter().flat_map(|(group, _)| &group.judgements) {
        for verdict in &judgement.verdicts {
            let Verdict::Decided(finding) = verdict else { continue };
            for (name, number) in &finding.metrics {
                measured.entry((&judgement.stage, name)).or_default().push(*number);
            }
        }
    }
    for ((stage, name), numbers) in measured {
        put(&format!("plugin/{stage}/{name}/mean"), mean(&numbers));
    }

    let rewards: Vec<Vec<f64>> = groups
        .iter()
        .map(|(group, _)| group.rewards.iter().flatten().copied().collect())
        .filter(|rewards: &Vec<f64>| !rewards.is_empty())
        .collect();
    if !rewards.is_empty() {
        let all: Vec<f64> = rewards.iter().flatten().copied().collect();
        let spreads: Vec<f64> = rewards.iter().map(|rewards| deviation(rewards)).collect();
        put("reward", mean(&all));
        put("reward_std", mean(&spreads));
        put(
            "frac_reward_zero_std",
            spreads.iter().filter(|spread| **spread == 0.0).count() as f64 / spreads.len() as f64,
        );
    }
    let decisions = groups.iter().flat_map(|(group, _)| &group.decisions);
    put("completions/dropped", decisions.filter(|decision| matches!(decision, Decision::Drop(_))).count() as f64);
    metrics
}

/// How many optimiser steps the weights were ahead of those that sampled what was learned from, `version` being that of the
/// step's beginning. Apart from how much sampler and learner differ at the same weights.
pub(crate) fn lag(groups: &[(Arc<Group>, Vec<f64>)], version: u64) -> Option<(String, f64)> {
    let learned = groups.iter().filter(|(_, advantages)| !advantages.is_empty());
    let lags: Vec<f64> = learned
        .flat_map(|(group, _)| group.completions.iter().zip(&group.decisions))
        .filter(|(_, decision)| **decision == Decision::Keep)
        .map(|(completion, _)| version.saturating_sub(completion.weights_version) as f64)
        .collect();
    (!lags.is_empty()).then(|| ("sampling/policy_lag/mean".to_owned(), mean(&lags)))
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    // A sum of nothing is -0.0.
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The standard deviation with ddof 1, as TRL logs it; 0 for equal values, exactly.
fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 || values.iter().all(|value| *value == values[0]) {
        return 0.0;
    }
    let mean = mean(values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}
