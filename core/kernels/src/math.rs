//! Scalar functions whose bits we own: std's differ by platform.

/// `e^x`.
pub fn exp(x: f32) -> f32 {
    libm::expf(x)
}

/// The natural logarithm.
pub fn ln(x: f32) -> f32 {
    libm::logf(x)
}

/// `ln(sum(exp(row)))`.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    max + ln(row.iter().map(|x| exp(x - max)).sum())
}

/// The log-probability of `target` under `logits_row` (`[V]`) at a temperature above 0.
pub fn logprob_of(logits_row: &[f32], target: u32, temperature: f64) -> f32 {
    let scaled: Vec<f32> = logits_row.iter().map(|x| x * (1.0 / temperature) as f32).collect();
    scaled[target as usize] - log_sum_exp(&scaled)
}
