//! Nodes of candle's graph for what kernels have computed.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor, bail,
};

use super::gpu::Gpu;

/// Gradients of a node's inputs, given its output and the gradient of that, both contiguous: `None` for those that take
/// none, or have taken theirs already (a parameter's goes straight into its accumulator).
type Backward<const N: usize> = dyn Fn(&Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync;

/// An operation whose output is there already.
struct Node<const N: usize> {
    name: &'static str,
    out: Mutex<Option<(CudaStorage, Shape)>>,
    backward: Box<Backward<N>>,
}

/// The tensor that `out` is, and a node of the graph that leads to the inputs if one of them is tracked.
pub(super) fn node<const N: usize>(
    gpu: &Gpu,
    name: &'static str,
    inputs: [&Tensor; N],
    out: CudaSlice<f32>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !inputs.iter().any(|input| input.track_op()) {
        return Ok(gpu.tensor(out, shape));
    }
    let out = Mutex::new(Some((gpu.storage(out), shape.into())));
    let node = Node { name, out, backward: Box::new(backward) };
    match inputs.as_slice() {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => bail!("{name}: a node has one to three inputs"),
    }
}

impl<const N: usize> Node<N> {
    fn take(&self) -> Result<(CudaStorage, Shape)> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner).take();
        out.ok_or_else(|| Error::Msg(format!("{}: the output was taken already", self.name)))
    }

    fn not_on_the_cpu<T>(&self) -> Result<T> {
        bail!("{}: this node was made for a GPU", self.name)
    }

    /// The gradients, as many as the trait at hand wants.
    fn gradients<const M: usize>(&self, out: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; M]> {
        let mut found = (self.backward)(out, &grad.contiguous()?)?.into_iter();
        Ok(std::array::from_fn(|_| found.next().flatten()))
    }
}

impl<const N: usize> CustomOp1 for Node<N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.not_on_the_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, _: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients(out, grad)?;
        Ok(a)
    }
}

impl<const N: usize> CustomOp2 for Node<N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.not_on_the_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients(out, grad)?;
        Ok((a, b))
    }
}

impl<const N: usize> CustomOp3 for Node<N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.not_on_the_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.take()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients(out, grad)?;
        Ok((a, b, c))
    }
}
