//! Recomputation: a function whose graph exists only while its gradient is taken.

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Storage, Tensor, Var, bail};

use crate::ops::{fused, owning_node, read};
use crate::{Param, param, tape};

/// `f(x)` and what else `f` returns, without the graph inside: of all that `f` computes only the output stays. The backward
/// pass calls `f` again, with a graph, and walks that (Chen et al., arXiv 1604.06174). `f` computes the same at both
/// times, so that no bit differs from `f(x)`: not of the output, nor of the gradients of x and of the parameters that `f`
/// uses, which receive theirs while the inner graph is walked.
///
/// # Errors
/// Those of `f`.
pub fn recompute<E>(
    x: &Tensor,
    f: impl Fn(&Tensor) -> Result<(Tensor, E)> + Send + Sync + 'static,
) -> Result<(Tensor, E)> {
    let source = x.detach();
    let (result, used) = param::without_graph(|| f(&source));
    let (out, extra) = result?;
    // A call inside another's first run, or one that nothing is learned by.
    if param::graph_is_off() || (!x.track_op() && used.is_empty()) {
        return Ok((out, extra));
    }
    let tracked = x.track_op();
    // A parameter makes the output lead somewhere where x does not; its own gradient goes another way.
    let anchor = used.first().map_or_else(|| x.clone(), Param::value);
    let again = move |grad: &Tensor| -> Result<Option<Tensor>> {
        let variable = if tracked { Some(Var::from_tensor(&source)?) } else { None };
        let (out, _) = f(variable.as_deref().unwrap_or(&source))?;
        let mut store = tape::backward_from(&out, grad)?;
        used.iter().try_for_each(|param| param.collect(&mut store))?;
        Ok(variable.and_then(|variable| store.remove(&variable)))
    };
    if fused(&[x, &out, &anchor]) {
        let (values, shape) = (read(&out.contiguous()?)?.to_vec(), out.shape().clone());
        let backward = move |out: &Tensor, grad: Vec<f32>| {
            let dx = again(&Tensor::from_vec(grad, out.shape(), out.device())?)?;
            let dx = dx.map(|dx| Ok::<_, candle_core::Error>(read(&dx.contiguous()?)?.to_vec()));
            Ok([dx.transpose()?, None])
        };
        return Ok((owning_node("recompute", [x, &anchor], values, shape, backward)?, extra));
    }
    let known = Known { out: Mutex::new(Some(out)), again: Box::new(again) };
    Ok((x.apply_op2(&anchor, known)?, extra))
}

/// Computes once more, with a graph, and walks it with the gradient of the output: the gradient of the input.
type Again = dyn Fn(&Tensor) -> Result<Option<Tensor>> + Send + Sync;

/// The operation of candle's graph on other devices, its output computed already.
struct Known {
    out: Mutex<Option<Tensor>>,
    again: Box<Again>,
}

impl Known {
    fn take<S>(&self, copy: impl Fn(&Storage, &Layout) -> Option<Result<S>>) -> Result<(S, Shape)> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(out) = out else { bail!("recompute: the output was taken already") };
        let out = out.force_contiguous()?;
        let (storage, layout) = out.storage_and_layout();
        match copy(&storage, layout) {
            Some(copy) => Ok((copy?, layout.shape().clone())),
            None => bail!("recompute: the output lies on another device than the input"),
        }
    }
}

impl CustomOp2 for Known {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cpu(storage) => Some(storage.try_clone(layout)),
            _ => None,
        })
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take(|storage, layout| match storage {
            Storage::Cuda(storage) => Some(storage.try_clone(layout)),
            _ => None,
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(((self.again)(grad)?, None))
    }
}
