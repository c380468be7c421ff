//! The optimiser's arithmetic on the device.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, Tensor};

use super::gpu::{Gpu, at, blocks, launch, start};
use crate::optim::Factors;

/// The sums of squares of tensors, in f64: one download for all of them.
pub(crate) fn squares(tensors: &[Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let gpu = Gpu::of(first)?;
    let sums = gpu.memory::<f64>(tensors.len())?;
    for (i, tensor) in tensors.iter().enumerate() {
        let n = tensor.elem_count();
        let count = n.div_ceil(256).clamp(1, 512);
        let parts: CudaSlice<f64> = gpu.memory(count)?;
        launch!(gpu, "squares", count, 256, 0; start(tensor)?, at(&parts), n as u64);
        launch!(gpu, "add_squares", 1usize, 256, 0; at(&parts), at(&sums) + 8 * i as u64, count as u32);
    }
    gpu.download(&sums)
}

/// One AdamW update, in place: value, gradient, first and second moment, all of one shape.
pub(crate) fn adamw([value, grad, mean, square]: [&Tensor; 4], f: &Factors) -> Result<()> {
    let (gpu, n) = (Gpu::of(value)?, value.elem_count());
    launch!(
        gpu, "adamw", blocks(n), 256, 0;
        start(value)?, start(grad)?, start(mean)?, start(square)?, n as u64,
        f.keep, f.beta.0, f.beta.1, f.fresh.0, f.fresh.1, f.step, f.root, f.eps, f.scale,
    );
    Ok(())
}
