//! Log-probabilities of tokens, by chunks of rows.

use candle_core::{Result, Tensor, bail};

use super::gpu::{Factor, Gpu, at, launch, on_gpu, start};
use super::linear::{backward_input, backward_weight, forward};
use super::node::node;
use crate::Param;
use crate::math::inverse;
use crate::ops::slow;

/// The elements of logits that exist at once.
const CHUNK: usize = 1 << 25;

/// See [`crate::ops::token_logprobs`].
///
/// # Errors
/// Shapes that don't fit, a target beyond the head, a temperature that is not above 0.
pub fn token_logprobs(hidden: &Tensor, head: &Param, targets: &[u32], temperature: f64) -> Result<Tensor> {
    let weight = head.value();
    if !on_gpu(&[hidden, &weight]) {
        return slow::token_logprobs(hidden, head, targets, temperature);
    }
    let (gpu, x) = (Gpu::of(hidden)?, &hidden.contiguous()?);
    let ((n, d), (vocab, width)) = (x.dims2()?, head.shape().dims2()?);
    if d == 0 || d != width || n != targets.len() || temperature.is_nan() || temperature <= 0.0 {
        bail!(
            "token_logprobs: a target for each row and a temperature above 0, not {} for {:?} by {:?} at {temperature}",
            targets.len(),
            x.shape(),
            head.shape()
        );
    }
    if let Some(target) = targets.iter().find(|&&target| target as usize >= vocab) {
        bail!("token_logprobs: target {target} of {vocab}");
    }
    let (factor, told) = (inverse(temperature), gpu.told(targets)?);
    let rows = (CHUNK / vocab).clamp(1, n.max(1));
    let out = gpu.memory::<f32>(2 * n)?;
    let logits = gpu.memory::<f32>(rows * vocab)?;
    let chunks = move || (0..n).step_by(rows).map(move |first| (first, rows.min(n - first)));
    for (first, m) in chunks() {
        forward(&gpu, row(start(x)?, first, d), head, at(&logits), (m, vocab, d))?;
        launch!(
            gpu, "token_logprobs", m, 256, 0;
            at(&logits), row(at(&told), first, 1), row(at(&out), first, 2), factor, vocab as u32,
        );
    }
    drop(logits);
    let backward = {
        let (gpu, x, head) = (gpu.clone(), x.clone(), head.clone());
        move |out: &Tensor, grad: &Tensor| {
            let (values, dx) = (start(&x)?, gpu.memory::<f32>(n * d)?);
            let logits = gpu.memory::<f32>(rows * vocab)?;
            for (first, m) in chunks() {
                let sizes = (m, vocab, d);
                forward(&gpu, row(values, first, d), &head, at(&logits), sizes)?;
                launch!(
                    gpu, "token_logprobs_backward", m, 256, 0;
                    at(&logits), row(at(&told), first, 1), row(start(out)?, first, 2), row(start(grad)?, first, 2),
                    factor, vocab as u32,
                );
                let slopes = Factor::of(&gpu, at(&logits), m * vocab, head.compute_dtype())?;
                if x.track_op() {
                    backward_input(&gpu, &slopes, &head, row(at(&dx), first, d), sizes)?;
                }
                if head.is_tracked() {
                    let x = Factor::of(&gpu, row(values, first, d), m * d, head.compute_dtype())?;
                    head.accumulate_on_device(|sums| backward_weight(&gpu, &slopes, &x, start(sums)?, sizes))?;
                }
            }
            Ok([x.track_op().then(|| gpu.tensor(dx, x.shape())), None])
        }
    };
    node(&gpu, "token_logprobs", [x, &weight], out, (n, 2), backward)
}

/// The begin of a row of `width` elements of four bytes.
fn row(begin: u64, row: usize, width: usize) -> u64 {
    begin + (4 * row * width) as u64
}
