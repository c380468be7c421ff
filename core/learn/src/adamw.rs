//! AdamW over a model's parameters.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use kernels::{Param, optim};

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) in f32, with the order of operations of PyTorch's, after clipping by
/// the global norm. Bit-deterministic.
pub struct AdamW {
    betas: (f64, f64),
    eps: f64,
    steps: u64,
    moments: Vec<Moments>,
}

/// What is remembered of a parameter's gradients.
struct Moments {
    name: String,
    dims: Vec<usize>,
    weight_decay: f64,
    values: optim::Moments,
}

/// A tensor of an optimiser's state. It is copied when it is asked for: all of them together are twice the parameters.
pub struct StateTensor<'a> {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its dimensions.
    pub dims: &'a [usize],
    of: Of<'a>,
}

/// What a tensor of the state is a copy of.
enum Of<'a> {
    Steps(i64),
    /// The mean or the square.
    Moments(&'a optim::Moments, usize),
}

impl StateTensor<'_> {
    /// I64 for the count of steps, otherwise F32.
    pub fn dtype(&self) -> DType {
        match self.of {
            Of::Steps(_) => DType::I64,
            Of::Moments(..) => DType::F32,
        }
    }

    /// The tensor, on the CPU.
    ///
    /// # Errors
    /// The device fails.
    pub fn tensor(&self) -> Result<Tensor> {
        match self.of {
            Of::Steps(steps) => Tensor::new(&[steps], &Device::Cpu),
            Of::Moments(moments, part) => Ok(moments.tensors(self.dims)?[part].clone()),
        }
    }
}

/// What a step found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepStats {
    /// The norm of the whole gradient, before it was clipped.
    pub grad_norm: f64,
    /// Parameters that no gradient reached.
    pub missing: Vec<String>,
}

/// The name of the count of steps among the tensors of the state.
const STEPS: &str = "steps";

impl AdamW {
    /// An optimiser of the parameters that learn, with empty moments. `weight_decay` applies to those of which `decays` says
    /// so by their name.
    ///
    /// # Errors
    /// Two parameters of one name.
    pub fn new(
        params: &[Param],
        betas: (f64, f64),
        eps: f64,
        weight_decay: f64,
        decays: fn(&str) -> bool,
    ) -> Result<Self> {
        let mut moments: Vec<Moments> = Vec::new();
        for param in params.iter().filter(|param| param.is_tracked()) {
            if moments.iter().any(|moments| moments.name == param.name()) {
                bail!("two parameters are called `{}`", param.name());
            }
            moments.push(Moments {
                name: param.name().to_owned(),
                dims: param.shape().dims().to_vec(),
                weight_decay: if decays(param.name()) { weight_decay } else { 0.0 },
                values: optim::Moments::zeros(param)?,
            });
        }
        Ok(Self { betas, eps, steps: 0, moments })
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step on the gradients that have arrived, scaled by `min(1, clip_norm / (norm + 1e-6))`. `params` are those that
    /// the optimiser was made for, in the same order. If a parameter has no gradient, or the norm is not finite, nothing
    /// changes: the caller finds the reason in the answer.
    ///
    /// # Errors
    /// Other parameters than at the start; the device fails.
    pub fn step(&mut self, params: &[Param], lr: f64, clip_norm: Option<f64>) -> Result<StepStats> {
        let params: Vec<&Param> = params.iter().filter(|param| param.is_tracked()).collect();
        let same = |(param, moments): (&&Param, &Moments)| param.name() == moments.name;
        if params.len() != self.moments.len() || !params.iter().zip(&self.moments).all(same) {
            bail!("the optimiser was made for other parameters");
        }
        let mut stats = StepStats::default();
        let mut squares = 0.0;
        for (param, sum) in params.iter().zip(optim::grad_squares(&params)?) {
            match sum {
                Some(sum) => squares += sum,
                None => stats.missing.push(param.name().to_owned()),
            }
        }
        stats.grad_norm = squares.sqrt();
        if !stats.missing.is_empty() || !stats.grad_norm.is_finite() {
            return Ok(stats);
        }
        self.steps += 1;
        let correction = |beta: f64| 1.0 - libm::pow(beta, self.steps as f64);
        for (param, moments) in params.iter().zip(&mut self.moments) {
            let constants = optim::AdamW {
                lr,
                beta1: self.betas.0,
                beta2: self.betas.1,
                eps: self.eps,
                weight_decay: moments.weight_decay,
                bias_correction1: correction(self.betas.0),
                bias_correction2: correction(self.betas.1),
                grad_scale: clip_norm.map_or(1.0, |limit| (limit / (stats.grad_norm + 1e-6)).min(1.0)),
            };
            param.adamw(&mut moments.values, &constants)?;
        }
        Ok(stats)
    }

    /// All that the next step depends on besides the parameters: `mean.NAME` and `square.NAME` in f32, and `steps`.
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        let steps = StateTensor { name: STEPS.to_owned(), dims: &[1], of: Of::Steps(self.steps as i64) };
        let parts = self.moments.iter().flat_map(|moments| {
            ["mean", "square"].into_iter().enumerate().map(|(part, kind)| StateTensor {
                name: format!("{kind}.{}", moments.name),
                dims: &moments.dims,
                of: Of::Moments(&moments.values, part),
            })
        });
        std::iter::once(steps).chain(parts).collect()
    }

    /// Takes over what [`AdamW::state`] gave. After an error the optimiser is as it was.
    ///
    /// # Errors
    /// A tensor that is absent, superfluous, or of another shape or dtype.
    pub fn load_state(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<()> {
        let mut take = |name: String, dtype: DType, dims: &[usize]| match state.remove(&name) {
            Some(tensor) if tensor.dtype() == dtype && tensor.dims() == dims => Ok(tensor),
            Some(tensor) => bail!(
                "the optimiser's `{name}` is {:?} {:?} in the checkpoint and {dtype:?} {dims:?} here",
                tensor.dtype(),
                tensor.dims()
            ),
            None => bail!("the checkpoint's optimiser state has no `{name}`"),
        };
        let steps = take(STEPS.to_owned(), DType::I64, &[1])?.to_vec1::<i64>()?;
        let mut loaded = Vec::with_capacity(self.moments.len());
        for moments in &self.moments {
            let mut values = |part: &str| take(format!("{part}.{}", moments.name), DType::F32, &moments.dims);
            loaded.push([values("mean")?, values("square")?]);
        }
        if let Some(name) = state.keys().next() {
            bail!("the checkpoint's optimiser state has `{name}`, which no parameter here has use for");
        }
        for (moments, [mean, square]) in self.moments.iter_mut().zip(&loaded) {
            moments.values.load([mean, square])?;
        }
        self.steps = steps[0] as u64;
        Ok(())
    }
}
