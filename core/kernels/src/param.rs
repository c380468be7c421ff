//! Trainable tensors.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::matrices::{InPlace, Packed};
use crate::ops::{Adapter, read, read_as};
use crate::optim::{self, AdamW, Moments, Place, is_finite, sum_of_squares};
use candle_core::backprop::GradStore;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Shape, Tensor, Var, bail};
use half::bf16;

/// A trainable tensor: its value, the packed forms that products read, and the gradient that has arrived so far.
///
/// Cloning is cheap and shares everything. On the CPU the operations of [`crate::ops`] add a gradient straight into
/// the parameter's accumulator during the backward pass, continuing its chain of fused multiply-adds, so that a batch
/// split into passes gives the same bits. Operations composed of candle's own leave it in candle's [`GradStore`], from
/// which [`Param::collect`] takes it.
#[derive(Clone)]
pub struct Param {
    inner: Arc<Inner>,
    tracked: bool,
    adapters: Arc<[Adapter]>,
}

struct Inner {
    name: String,
    var: Var,
    compute: DType,
    gradient: Mutex<Gradient>,
    packed: Mutex<Panels>,
    /// The value in the dtype that products read, where that is another one.
    rounded: Mutex<Option<Tensor>>,
}

/// The form that forward products read.
#[derive(Default)]
struct Panels {
    packed: Option<Arc<Packed>>,
    /// Whether they are those of the value; the memory serves the next value otherwise.
    fresh: bool,
}

/// The chains of additions a parameter's gradient consists of. A parameter that is used in two ways (a tied embedding:
/// rows and product) has a chain for each, or the order of additions would depend on how a batch is split.
#[derive(Default)]
struct Gradient {
    chains: [Option<Vec<f32>>; CHAINS],
    /// Whether a chain has received anything; what a dead one holds is left over.
    live: [bool; CHAINS],
    /// The whole gradient, where the parameter is not on the CPU.
    on_device: Option<Tensor>,
}

impl Gradient {
    /// The sum of the live chains, in their fixed order.
    fn sum(&self) -> Option<Cow<'_, [f32]>> {
        let mut live = self.chains.iter().zip(self.live).filter_map(|(chain, live)| chain.as_deref().filter(|_| live));
        let mut sum = Cow::Borrowed(live.next()?);
        for chain in live {
            sum.to_mut().iter_mut().zip(chain).for_each(|(sum, x)| *sum += x);
        }
        Some(sum)
    }
}

/// The number of chains.
const CHAINS: usize = 4;

/// Which use of a parameter a gradient comes from.
#[derive(Clone, Copy)]
pub(crate) enum Chain {
    /// A product with the parameter as a matrix, or an elementwise use.
    Product = 0,
    /// Rows looked up by number.
    Rows = 1,
    /// Operations composed of candle's own.
    Composed = 2,
    /// A product of the other of two kinds.
    OtherProduct = 3,
}

thread_local! {
    /// The parameters that learn and were used since this thread stopped building graphs; `None` while it builds them.
    static USED: RefCell<Option<Vec<Param>>> = const { RefCell::new(None) };
}

/// Whether this thread builds no graph at present.
pub(crate) fn graph_is_off() -> bool {
    USED.with_borrow(Option::is_some)
}

/// Runs `f` with every parameter as if it were detached. Also gives those that would have led a graph to themselves.
pub(crate) fn without_graph<T>(f: impl FnOnce() -> T) -> (T, Vec<Param>) {
    /// Puts back what was there, though `f` panics.
    struct Restore(Option<Vec<Param>>);

    impl Drop for Restore {
        fn drop(&mut self) {
            USED.set(self.0.take());
        }
    }

    let mut outer = Restore(USED.replace(Some(Vec::new())));
    let result = f();
    let used = USED.take().unwrap_or_default();
    if let Some(outer) = &mut outer.0 {
        let new = |param: &&Param| !outer.iter().any(|other| Arc::ptr_eq(&other.inner, &param.inner));
        let new: Vec<Param> = used.iter().filter(new).cloned().collect();
        outer.extend(new);
    }
    (result, used)
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Param({} {:?})", self.inner.name, self.inner.var.shape())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Param {
    /// A parameter that learns. `value` is f32: `[N, K]`, `[E, N, K]` or `[D]`. It is copied if it is not contiguous.
    ///
    /// # Errors
    /// Another dtype than f32.
    pub fn new(name: &str, value: Tensor) -> Result<Self> {
        Self::with_tracking(name, &value, true)
    }

    /// A parameter that takes no gradient.
    ///
    /// # Errors
    /// Another dtype than f32.
    pub fn frozen(name: &str, value: Tensor) -> Result<Self> {
        Self::with_tracking(name, &value, false)
    }

    /// The same parameter with products that read its matrices in `dtype`: F32, or BF16 for weights rounded to that. The
    /// value stays f32. It is called before the parameter is shared.
    ///
    /// # Errors
    /// Another dtype.
    pub fn computing_in(self, dtype: DType) -> Result<Self> {
        if dtype == self.compute_dtype() {
            return Ok(self);
        }
        let name = self.name();
        if dtype != DType::BF16 {
            bail!("parameter `{name}`: products are computed in F32 or BF16, not in {dtype:?}");
        }
        Self::build(name, self.inner.var.clone(), dtype, self.tracked)
    }

    /// The value in the dtype that products read. It leads no graph to this parameter.
    pub(crate) fn compute_value(&self) -> Result<Tensor> {
        let value = self.inner.var.as_detached_tensor();
        if self.inner.compute == value.dtype() {
            return Ok(value);
        }
        let mut rounded = lock(&self.inner.rounded);
        match &*rounded {
            Some(value) => Ok(value.clone()),
            None => Ok(rounded.insert(value.to_dtype(self.inner.compute)?).clone()),
        }
    }

    /// Lets `f` add to the gradient on the device, which starts as zeros.
    #[cfg(feature = "cuda")]
    pub(crate) fn accumulate_on_device(&self, f: impl FnOnce(&Tensor) -> Result<()>) -> Result<()> {
        let mut gradient = lock(&self.inner.gradient);
        let sums = match &mut gradient.on_device {
            Some(sums) => sums,
            none => none.insert(Tensor::zeros(self.shape(), DType::F32, self.inner.var.device())?),
        };
        f(sums)
    }

    /// What products read its matrices in.
    pub fn compute_dtype(&self) -> DType {
        self.inner.compute
    }

    fn with_tracking(name: &str, value: &Tensor, tracked: bool) -> Result<Self> {
        if value.dtype() != DType::F32 {
            bail!("parameter `{name}` is {:?}; parameters are f32, convert it first", value.dtype());
        }
        let var = Var::from_tensor(&value.detach().contiguous()?)?;
        Self::build(name, var, DType::F32, tracked)
    }

    fn build(name: &str, var: Var, compute: DType, tracked: bool) -> Result<Self> {
        let inner = Inner {
            name: name.to_owned(),
            var,
            compute,
            gradient: Mutex::default(),
            packed: Mutex::default(),
            rounded: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), tracked, adapters: Arc::default() })
    }

    /// A parameter on `device` that learns if it is `tracked`. On the CPU `values` become its memory; nothing is copied.
    ///
    /// # Errors
    /// Another number of values than the shape has; or the device fails.
    pub fn from_vec(
        name: &str,
        values: Vec<f32>,
        shape: impl Into<Shape>,
        device: &Device,
        tracked: bool,
    ) -> Result<Self> {
        Self::build(name, Var::from_vec(values, shape.into(), device)?, DType::F32, tracked)
    }

    /// The parameter's name, as in the checkpoint.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The value. A graph that is built on it leads to this parameter, unless it is frozen or detached.
    pub fn value(&self) -> Tensor {
        if self.is_tracked() { self.inner.var.as_tensor().clone() } else { self.inner.var.as_detached_tensor() }
    }

    /// The same parameter (storage and packed forms), building no graph.
    #[must_use]
    pub fn detached(&self) -> Self {
        let detach =
            |adapter: &Adapter| Adapter { a: adapter.a.detached(), b: adapter.b.detached(), ..adapter.clone() };
        Self { inner: self.inner.clone(), tracked: false, adapters: self.adapters.iter().map(detach).collect() }
    }

    /// The same parameter, frozen, behind adapters: [`ops::linear`], [`ops::head_linear`] and [`ops::latent_query`] heed
    /// them.
    ///
    /// [`ops::linear`]: crate::ops::linear
    /// [`ops::head_linear`]: crate::ops::head_linear
    /// [`ops::latent_query`]: crate::ops::latent_query
    #[must_use]
    pub fn adapted(&self, adapters: Vec<Adapter>) -> Self {
        Self { inner: self.inner.clone(), tracked: false, adapters: adapters.into() }
    }

    /// The adapters that it is behind.
    pub fn adapters(&self) -> &Arc<[Adapter]> {
        &self.adapters
    }

    /// A tensor that leads a graph to what learns here: the value, or a part of an adapter.
    pub(crate) fn anchor(&self) -> Tensor {
        let learns = self.adapters.iter().flat_map(|adapter| [&adapter.a, &adapter.b]).find(|part| part.is_tracked());
        learns.filter(|_| !self.is_tracked()).unwrap_or(self).value()
    }

    /// Whether a graph built on [`Param::value`] leads to this parameter.
    pub fn is_tracked(&self) -> bool {
        self.tracked && !self.is_used_without_graph()
    }

    /// Whether no graph is built at present, in which case a parameter that learns is remembered as used.
    fn is_used_without_graph(&self) -> bool {
        USED.with_borrow_mut(|used| {
            let Some(used) = used else { return false };
            if !used.iter().any(|other| Arc::ptr_eq(&other.inner, &self.inner)) {
                used.push(self.clone());
            }
            true
        })
    }

    /// The dimensions.
    pub fn shape(&self) -> &Shape {
        self.inner.var.shape()
    }

    /// The number of elements.
    pub fn elem_count(&self) -> usize {
        self.inner.var.elem_count()
    }

    /// Lets `f` change the value on the CPU in place, given the gradient, then drops the packed forms.
    ///
    /// # Errors
    /// No gradient has arrived there since [`Param::zero_grad`].
    pub fn update(&self, f: impl FnOnce(&mut [f32], &[f32])) -> Result<()> {
        let gradient = lock(&self.inner.gradient);
        let tensor = self.inner.var.as_tensor();
        let Some(grad) = gradient.sum() else {
            bail!("parameter `{}` has no gradient to be updated by", self.inner.name);
        };
        tensor.inplace_op1(&Update { f: Mutex::new(Some(f)), grad: &grad })?;
        self.value_has_changed();
        Ok(())
    }

    /// Replaces the value by a copy of `values`, then drops the packed forms.
    ///
    /// # Errors
    /// Another shape or dtype.
    pub fn set(&self, values: &Tensor) -> Result<()> {
        self.inner.var.set(&values.detach())?;
        self.value_has_changed();
        Ok(())
    }

    fn value_has_changed(&self) {
        lock(&self.inner.packed).fresh = false;
        *lock(&self.inner.rounded) = None;
    }

    /// One AdamW update by the gradient, with the moments that belong to this parameter.
    ///
    /// # Errors
    /// No gradient has arrived since [`Param::zero_grad`]; moments of another shape or place; the device fails.
    pub fn adamw(&self, moments: &mut Moments, constants: &AdamW) -> Result<()> {
        match &mut moments.0 {
            Place::Host { mean, square } => {
                self.update(|value, grad| optim::adamw(value, grad, mean, square, constants))
            }
            #[cfg(feature = "cuda")]
            Place::Device { mean, square } => {
                let gradient = lock(&self.inner.gradient);
                let Some(grad) = &gradient.on_device else {
                    bail!("parameter `{}` has no gradient to be updated by", self.inner.name);
                };
                if mean.shape() != self.shape() {
                    bail!("parameter `{}` is {:?}, its moments {:?}", self.inner.name, self.shape(), mean.shape());
                }
                let value = self.inner.var.as_tensor();
                crate::cuda::optim::adamw([value, &grad.contiguous()?, mean, square], &constants.factors())?;
                self.value_has_changed();
                Ok(())
            }
        }
    }

    /// The panels of the transpose of each `[N, K]` matrix. The parameter is on the CPU.
    pub(crate) fn packed(&self) -> Result<Arc<Packed>> {
        // The lock is held while packing: a change that comes meanwhile drops these panels afterwards.
        let mut panels = lock(&self.inner.packed);
        if let Some(packed) = panels.packed.as_ref().filter(|_| panels.fresh) {
            return Ok(packed.clone());
        }
        let dims = self.shape().dims();
        let &[.., n, k] = dims else { bail!("parameter `{}` is {dims:?}, not a matrix", self.inner.name) };
        let values = read(self.inner.var.as_tensor())?;
        let matrices = dims[..dims.len() - 2].iter().product();
        let zeros = || Packed::zeros(self.inner.compute == DType::BF16, matrices, n, k);
        // Someone may still read the old panels.
        let mut packed = panels.packed.take().and_then(Arc::into_inner).unwrap_or_else(zeros);
        packed.fill(&values, n, k);
        let packed = Arc::new(packed);
        (panels.packed, panels.fresh) = (Some(packed.clone()), true);
        Ok(packed)
    }

    /// What has arrived since [`Param::zero_grad`]; `None` if nothing has.
    pub fn grad(&self) -> Option<Tensor> {
        let gradient = lock(&self.inner.gradient);
        if gradient.on_device.is_some() {
            return gradient.on_device.clone();
        }
        let sum = gradient.sum()?.into_owned();
        Tensor::from_vec(sum, self.shape(), self.inner.var.device()).ok()
    }

    /// Whether every element of the value is finite; only looked at on the CPU.
    pub fn is_finite(&self) -> bool {
        read(self.inner.var.as_tensor()).map_or(true, |values| is_finite(&values))
    }

    /// The sum of squares of the gradient on the CPU, in f64; `None` if nothing has arrived since [`Param::zero_grad`].
    pub(crate) fn grad_squares(&self) -> Option<f64> {
        lock(&self.inner.gradient).sum().map(|sum| sum_of_squares(&sum))
    }

    /// The gradient, if it is on another device than the CPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn grad_on_device(&self) -> Option<Tensor> {
        lock(&self.inner.gradient).on_device.clone()
    }

    /// Forgets the gradient.
    pub fn zero_grad(&self) {
        let mut gradient = lock(&self.inner.gradient);
        gradient.live = [false; CHAINS];
        gradient.on_device = None;
    }

    /// Adds the gradient that a composed operation left in candle's store, and removes it from there.
    ///
    /// # Errors
    /// The device fails.
    pub fn collect(&self, store: &mut GradStore) -> Result<()> {
        let Some(found) = store.remove(self.inner.var.as_tensor()) else { return Ok(()) };
        if found.device().is_cpu() {
            let found = found.flatten_all()?.to_vec1::<f32>()?;
            self.accumulate(Chain::Composed, |sums| sums.iter_mut().zip(&found).for_each(|(sum, x)| *sum += x));
            return Ok(());
        }
        let mut gradient = lock(&self.inner.gradient);
        gradient.on_device = Some(match gradient.on_device.take() {
            Some(sum) => (sum + found)?,
            None => found,
        });
        Ok(())
    }

    /// Lets `f` add to the accumulator of one chain; the accumulator starts from +0.0.
    pub(crate) fn accumulate(&self, chain: Chain, f: impl FnOnce(&mut [f32])) {
        let mut gradient = lock(&self.inner.gradient);
        let index = chain as usize;
        let fresh = !std::mem::replace(&mut gradient.live[index], true);
        let sums = gradient.chains[index].get_or_insert_with(|| vec![0.0; self.inner.var.elem_count()]);
        if fresh {
            sums.fill(0.0);
        }
        f(sums);
    }
}

/// The matrices that [`Param::compute_value`] gave, as they lie on the CPU.
pub(crate) fn in_place(
    value: &Tensor,
) -> Result<InPlace<impl Deref<Target = [f32]> + '_, impl Deref<Target = [bf16]> + '_>> {
    Ok(match value.dtype() {
        DType::BF16 => InPlace::Bf16(read_as(value)?),
        _ => InPlace::F32(read(value)?),
    })
}

/// Runs a closure over a tensor's own storage.
struct Update<'a, F> {
    f: Mutex<Option<F>>,
    grad: &'a [f32],
}

impl<F: FnOnce(&mut [f32], &[f32])> InplaceOp1 for Update<'_, F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("a parameter is f32 and contiguous");
        };
        if let Some(f) = lock(&self.f).take() {
            f(&mut values[start..end], self.grad);
        }
        Ok(())
    }
}
