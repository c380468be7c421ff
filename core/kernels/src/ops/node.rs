//! What every fused operation is made of: slices out of tensors, new vectors, and nodes of candle's graph.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor};
use candle_core::{Error, bail};
use half::bf16;

use crate::tape::{self, Record};

/// Whether an operation on these tensors is a fused one.
pub(crate) fn fused(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

/// What a tensor on the CPU may hold that fused operations read.
pub(crate) trait Stored: Sized + 'static {
    const NAME: &'static str;
    fn of(storage: &CpuStorage) -> Option<&[Self]>;
}

impl Stored for f32 {
    const NAME: &'static str = "f32";

    fn of(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }
}

impl Stored for bf16 {
    const NAME: &'static str = "bf16";

    fn of(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::BF16(values) = storage { Some(values) } else { None }
    }
}

/// The elements of a contiguous tensor on the CPU, locked against writers.
struct Values<G, T> {
    guard: G,
    start: usize,
    end: usize,
    of: PhantomData<T>,
}

impl<G: Deref<Target = Storage>, T: Stored> Deref for Values<G, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let values = match &*self.guard {
            Storage::Cpu(storage) => T::of(storage),
            _ => None,
        };
        values.map_or(&[], |values| &values[self.start..self.end])
    }
}

/// Reads a tensor of f32 in place.
pub(crate) fn read(tensor: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    read_as(tensor)
}

/// [`read`] for any dtype that is read.
pub(crate) fn read_as<T: Stored>(tensor: &Tensor) -> Result<impl Deref<Target = [T]> + '_> {
    let (guard, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a fused operation reads contiguous tensors, not {layout:?}");
    };
    if !matches!(&*guard, Storage::Cpu(storage) if T::of(storage).is_some()) {
        bail!("a fused operation reads {} on the CPU, not {:?} on {:?}", T::NAME, tensor.dtype(), tensor.device());
    }
    Ok(Values { guard, start, end, of: PhantomData })
}

/// A vector of `n` elements that `write` fills through the pointer it is given.
///
/// # Safety
/// `write` initialises all `n` elements and writes nowhere else through the pointer.
pub(crate) unsafe fn fill(n: usize, write: impl FnOnce(*mut f32)) -> Vec<f32> {
    let mut out = Vec::with_capacity(n);
    write(out.as_mut_ptr());
    // SAFETY: the capacity is there, and the caller has initialised the elements.
    unsafe { out.set_len(n) };
    out
}

/// A pointer that tasks share, each for elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: whoever makes a pointer of it vouches that tasks touch disjoint elements.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(pointer: *mut f32) -> Self {
        Self(pointer)
    }

    /// The pointer to element `i`.
    ///
    /// # Safety
    /// The element lies inside the allocation, or one past its end.
    #[inline(always)]
    pub unsafe fn at(self, i: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.0.add(i) }
    }
}

/// Gradients of a node's inputs, given its output and the gradient of that: `None` for those that take none, or have
/// taken theirs already (a parameter's goes straight into its accumulator).
type Gradients<const N: usize> = Result<[Option<Vec<f32>>; N]>;

/// An operation whose output is there already.
pub(crate) struct Node<const N: usize> {
    name: &'static str,
    out: Mutex<Option<(Vec<f32>, Shape)>>,
    record: Arc<Record>,
}

/// The tensor `out`, and a node of the graph that leads to the inputs if one of them is tracked.
pub(crate) fn node<const N: usize>(
    name: &'static str,
    inputs: [&Tensor; N],
    out: Vec<f32>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Tensor, &[f32]) -> Gradients<N> + Send + Sync + 'static,
) -> Result<Tensor>
where
    Node<N>: Apply<N>,
{
    owning_node(name, inputs, out, shape, move |out, grad| backward(out, &grad))
}

/// [`node`] whose gradient may become an input's.
pub(crate) fn owning_node<const N: usize>(
    name: &'static str,
    inputs: [&Tensor; N],
    out: Vec<f32>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Tensor, Vec<f32>) -> Gradients<N> + Send + Sync + 'static,
) -> Result<Tensor>
where
    Node<N>: Apply<N>,
{
    let shape = shape.into();
    if !inputs.iter().any(|input| input.track_op()) {
        return Tensor::from_vec(out, shape, &Device::Cpu);
    }
    let record = Arc::new(Record::new(&inputs, move |out, grad| Ok(Vec::from(backward(out, grad)?))));
    let node = Node { name, out: Mutex::new(Some((out, shape))), record: record.clone() };
    let out = node.apply(inputs)?;
    tape::enter(&out, record);
    Ok(out)
}

impl<const N: usize> Drop for Node<N> {
    fn drop(&mut self) {
        tape::leave(&self.record);
    }
}

/// Puts a node behind its inputs.
pub(crate) trait Apply<const N: usize> {
    fn apply(self, inputs: [&Tensor; N]) -> Result<Tensor>;
}

impl Apply<1> for Node<1> {
    fn apply(self, [a]: [&Tensor; 1]) -> Result<Tensor> {
        a.apply_op1(self)
    }
}

impl Apply<2> for Node<2> {
    fn apply(self, [a, b]: [&Tensor; 2]) -> Result<Tensor> {
        a.apply_op2(b, self)
    }
}

impl Apply<3> for Node<3> {
    fn apply(self, [a, b, c]: [&Tensor; 3]) -> Result<Tensor> {
        a.apply_op3(b, c, self)
    }
}

impl<const N: usize> Node<N> {
    fn take(&self) -> Result<(CpuStorage, Shape)> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (values, shape) = out.ok_or_else(|| Error::Msg(format!("{}: the output was taken already", self.name)))?;
        Ok((CpuStorage::F32(values), shape))
    }

    fn gradients(&self, inputs: [&Tensor; N], out: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let grad = read(&grad.contiguous()?)?.to_vec();
        let gradients = self.record.backward(out, grad)?;
        let mut tensors = [const { None }; N];
        for ((tensor, gradient), input) in tensors.iter_mut().zip(gradients).zip(inputs) {
            *tensor = gradient.map(|values| Tensor::from_vec(values, input.shape(), input.device())).transpose()?;
        }
        Ok(tensors)
    }
}

impl CustomOp1 for Node<1> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, a: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients([a], out, grad)?;
        Ok(a)
    }
}

impl CustomOp2 for Node<2> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients([a, b], out, grad)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Node<3> {
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
        self.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients([a, b, c], out, grad)?;
        Ok((a, b, c))
    }
}
