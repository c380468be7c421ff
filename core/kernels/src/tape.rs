//! The backward pass through fused operations.
//!
//! Candle's own makes a tensor of zeros and a sum for each edge of a graph, on threads of its own: more work than the
//! gradients of a small model. Here an edge's gradient is handed on as it is, or added in place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

use crate::ops::{Shared, read};
use crate::pool;

/// Gradients of the inputs, given the output and the gradient of that.
type Backward = dyn Fn(&Tensor, Vec<f32>) -> Result<Vec<Option<Vec<f32>>>> + Send + Sync;

/// What the backward pass knows of a fused operation.
pub(crate) struct Record {
    out: OnceLock<TensorId>,
    views: Mutex<Vec<TensorId>>,
    inputs: Box<[Tensor]>,
    backward: Box<Backward>,
}

impl Record {
    pub fn new(
        inputs: &[&Tensor],
        backward: impl Fn(&Tensor, Vec<f32>) -> Result<Vec<Option<Vec<f32>>>> + Send + Sync + 'static,
    ) -> Self {
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        Self { out: OnceLock::new(), views: Mutex::default(), inputs, backward: Box::new(backward) }
    }

    pub fn backward(&self, out: &Tensor, grad: Vec<f32>) -> Result<Vec<Option<Vec<f32>>>> {
        (self.backward)(out, grad)
    }
}

/// Where a tensor comes from.
#[derive(Clone)]
enum Origin {
    Operation(Arc<Record>),
    /// The same elements under another shape. It holds no tensor, or that one would live for ever.
    View(TensorId),
}

type Origins = HashMap<TensorId, Origin>;

/// The origins of all tensors that are alive: candle tells nobody what made a tensor.
static ORIGINS: LazyLock<Mutex<Origins>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers what made `out`.
pub(crate) fn enter(out: &Tensor, record: Arc<Record>) {
    record.out.get_or_init(|| out.id());
    lock(&ORIGINS).insert(out.id(), Origin::Operation(record));
}

/// Remembers a view, which keeps its source alive, until the source leaves.
pub(crate) fn enter_view(view: &Tensor, source: &Tensor) {
    let mut origins = lock(&ORIGINS);
    let root = match origins.get(&source.id()) {
        Some(Origin::View(root)) => *root,
        _ => source.id(),
    };
    if let Some(Origin::Operation(record)) = origins.get(&root) {
        lock(&record.views).push(view.id());
        origins.insert(view.id(), Origin::View(root));
    }
}

/// Forgets an operation whose output is gone, and the views of that.
pub(crate) fn leave(record: &Record) {
    let Some(out) = record.out.get() else { return };
    let mut origins = lock(&ORIGINS);
    for view in lock(&record.views).drain(..) {
        origins.remove(&view);
    }
    let origin = origins.remove(out);
    // Its inputs may be the last of their kind, and leave in their turn.
    drop(origins);
    drop(origin);
}

/// The gradients of a scalar, as [`Tensor::backward`] has them: parameters receive theirs, [`Param::collect`] takes the
/// others. A graph of fused operations only is walked here, any other by candle.
///
/// [`Param::collect`]: crate::Param::collect
///
/// # Errors
/// The device fails.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let nodes = loss.sorted_nodes();
    match origins_of(&nodes).filter(|_| loss.elem_count() == 1) {
        Some(origins) => walk(nodes, origins, vec![1.0]),
        None => loss.backward(),
    }
}

/// [`backward`] from a tensor of any shape, at which `gradient` has arrived.
pub(crate) fn backward_from(out: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    let nodes = out.sorted_nodes();
    match origins_of(&nodes) {
        Some(origins) => walk(nodes, origins, read(&gradient.contiguous()?)?.to_vec()),
        None => (out * gradient)?.sum_all()?.backward(),
    }
}

/// What made each node, `None` for a variable; nothing where an operation is not a fused one.
fn origins_of(nodes: &[&Tensor]) -> Option<Vec<Option<Origin>>> {
    let origins = lock(&ORIGINS);
    let origin = |node: &&Tensor| match node.is_variable() {
        true => Some(None),
        false => origins.get(&node.id()).cloned().map(Some),
    };
    nodes.iter().map(origin).collect()
}

/// Walks a graph of fused operations from its last node, the first of `nodes`, with the gradient of that.
fn walk(nodes: Vec<&Tensor>, origins: Vec<Option<Origin>>, seed: Vec<f32>) -> Result<GradStore> {
    let mut gradients = Gradients::new();
    let mut store = GradStore::default();
    if let Some(last) = nodes.first() {
        gradients.insert(last.id(), seed);
    }
    for (node, origin) in nodes.into_iter().zip(origins) {
        let Some(gradient) = gradients.remove(&node.id()) else { continue };
        match origin {
            Some(Origin::Operation(record)) => {
                for (input, gradient) in record.inputs.iter().zip(record.backward(node, gradient)?) {
                    if let Some(gradient) = gradient.filter(|_| input.track_op()) {
                        arrive(&mut gradients, input.id(), gradient);
                    }
                }
            }
            Some(Origin::View(root)) => arrive(&mut gradients, root, gradient),
            None => drop(store.insert(node, Tensor::from_vec(gradient, node.shape(), node.device())?)),
        }
    }
    Ok(store)
}

type Gradients = HashMap<TensorId, Vec<f32>>;

/// Adds a gradient to what has arrived at a tensor.
fn arrive(gradients: &mut Gradients, at: TensorId, gradient: Vec<f32>) {
    match gradients.entry(at) {
        Entry::Vacant(entry) => drop(entry.insert(gradient)),
        Entry::Occupied(mut entry) => add(entry.get_mut(), &gradient),
    }
}

/// Elements below which a second thread costs more than it gives.
const GRAIN: usize = 1 << 15;

/// Adds element by element.
fn add(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len(), "gradients of one tensor have one length");
    let target = Shared::new(to.as_mut_ptr());
    pool::run_ranges(from.len(), GRAIN, |range| {
        // SAFETY: the range lies inside both, and is this task's.
        let to = unsafe { std::slice::from_raw_parts_mut(target.at(range.start), range.len()) };
        to.iter_mut().zip(&from[range]).for_each(|(to, from)| *to += from);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::{param, tensor};
    use crate::ops;

    #[test]
    fn a_graph_leaves_nothing_behind() {
        let w = param(1, (6, 6));
        let x = ops::linear(&tensor(2, (4, 6)), &w, None).unwrap();
        let view = ops::reshape(&ops::reshape(&x, (6, 4)).unwrap(), 24).unwrap();
        let loss = ops::known(&view, 1.0, vec![1.0; 24]).unwrap();
        let ids = [x.id(), view.id(), loss.id()];
        let known = || ids.map(|id| lock(&ORIGINS).contains_key(&id));
        backward(&loss).unwrap();
        assert_eq!(known(), [true; 3]);
        drop(x);
        drop(loss);
        assert_eq!(known(), [true, true, false], "a view keeps its source alive");
        drop(view);
        assert_eq!(known(), [false; 3]);
    }

    #[test]
    fn a_deep_graph_is_dropped_step_by_step() {
        let mut x = ops::linear(&tensor(2, (1, 2)), &param(1, (2, 2)), None).unwrap();
        for _ in 0..300 {
            x = ops::add(&x, &x).unwrap();
        }
        let id = x.id();
        drop(x);
        assert!(!lock(&ORIGINS).contains_key(&id));
    }
}
