//! Low-rank adapters (Hu et al., LoRA, arXiv 2106.09685): which modules have them, and the folder that PEFT reads and writes.
//!
//! An adapter belongs to a module of the hub's, also where several modules are one parameter here: then it adapts some
//! rows of that. It is never merged for computing, in neither walk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use base::RngKey;
use candle_core::{DType, Device, Tensor};
use kernels::Param;
use kernels::ops::{self, Adapter};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::weights::{Entry, HubTensor, Random, Source, Start};

/// The file that says what an adapter is.
const CONFIG: &str = "adapter_config.json";
/// The file with its numbers.
const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";

/// Adapters that learn in place of the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The rank of an adapter, at least 1.
    pub rank: usize,
    /// An adapter counts `alpha / rank` times.
    pub alpha: f64,
    /// The last parts of the names of the modules that have one, such as `q_proj`.
    pub targets: Vec<String>,
}

/// The adapters of a model.
#[derive(Clone)]
pub(crate) struct Adapters {
    pub lora: Lora,
    /// The folder of the model that they belong to.
    pub base: PathBuf,
    modules: Vec<Module>,
}

/// The adapter of one module of the hub's.
#[derive(Clone)]
struct Module {
    /// `model.layers.0.self_attn.q_proj`.
    name: String,
    /// `[R, K]`.
    a: Param,
    /// B, whole or by halves.
    b: Vec<Part>,
}

/// Rows of a module's B `[N, R]` that are a parameter.
#[derive(Clone)]
struct Part {
    param: Param,
    /// Where they lie in B: of each `stride` rows the `count` from `first` on.
    first: usize,
    count: usize,
    stride: usize,
}

/// `adapter_config.json` as far as it matters here.
#[derive(Deserialize)]
struct Config {
    peft_type: String,
    base_model_name_or_path: Option<PathBuf>,
    r: usize,
    lora_alpha: f64,
    target_modules: Targets,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Targets {
    Names(Vec<String>),
    Pattern(String),
}

/// What is known of an adapter from its folder.
pub(crate) struct Folder {
    pub lora: Lora,
    pub base: Option<PathBuf>,
    path: PathBuf,
}

impl Lora {
    /// The modules that can have an adapter.
    const TARGETS: [&str; 11] = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "q_a_proj",
        "q_b_proj",
        "kv_a_proj_with_mqa",
        "kv_b_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];

    /// # Errors
    /// A rank of 0, a factor that is not above 0, a target that can have no adapter.
    fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Request(format!("lora: {message}")));
        if self.rank == 0 || self.alpha.is_nan() || self.alpha <= 0.0 || self.targets.is_empty() {
            return refuse("it takes a rank of at least 1, an alpha above 0, and targets".into());
        }
        match self.targets.iter().find(|target| !Self::TARGETS.contains(&target.as_str())) {
            None => Ok(()),
            Some(target) if ["gate", "router", "experts", "mlp.gate"].contains(&target.as_str()) => {
                refuse(format!("`{target}` can't have an adapter: routers and routed experts are left as they are"))
            }
            Some(target) => refuse(format!("there is no target `{target}`; choose from {}", Self::TARGETS.join(", "))),
        }
    }

    /// Whether adapters of the two are of one kind, in whatever order the targets are named.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let targets = |lora: &Self| lora.targets.iter().cloned().collect::<BTreeSet<_>>();
        (self.rank, self.alpha) == (other.rank, other.alpha) && targets(self) == targets(other)
    }

    fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }

    /// The module of a weight, if it has an adapter.
    fn module<'a>(&self, weight: &'a str) -> Option<&'a str> {
        let module = weight.strip_suffix(".weight")?;
        let (parent, last) = module.rsplit_once('.')?;
        let adapted = self.targets.iter().any(|target| target == last) && !parent.contains(".experts.");
        adapted.then_some(module)
    }
}

impl Folder {
    /// What `adapter_config.json` says; `None` where there is none.
    ///
    /// # Errors
    /// An adapter of a kind that is not understood here.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let file = path.join(CONFIG);
        if !file.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        let config: Config = serde_json::from_str(&text).map_err(|error| Error::file(&file, error.to_string()))?;
        let refuse = |what: &str| Err(Error::file(&file, format!("{what}; plain LoRA of one rank is read")));
        if config.peft_type != "LORA" {
            return refuse(&format!("it is of type {}", config.peft_type));
        }
        if config.use_dora || config.fan_in_fan_out || config.bias.is_some_and(|bias| bias != "none") {
            return refuse("it has `use_dora`, `fan_in_fan_out` or `bias`");
        }
        if config.modules_to_save.is_some_and(|modules| !modules.is_empty()) {
            return refuse("it has `modules_to_save`");
        }
        if !config.rank_pattern.is_empty() || !config.alpha_pattern.is_empty() {
            return refuse("it has a `rank_pattern` or an `alpha_pattern`");
        }
        let mut targets = match config.target_modules {
            Targets::Names(names) => names,
            Targets::Pattern(pattern) => return refuse(&format!("its `target_modules` is the pattern `{pattern}`")),
        };
        targets.sort();
        // With rank-stabilised scaling (arXiv 2312.03732) an adapter counts alpha / sqrt(rank) times.
        let alpha = config.lora_alpha * if config.use_rslora { (config.r as f64).sqrt() } else { 1.0 };
        let lora = Lora { rank: config.r, alpha, targets };
        lora.check().map_err(|error| Error::file(&file, error.to_string()))?;
        Ok(Some(Self { lora, base: config.base_model_name_or_path, path: path.to_path_buf() }))
    }

    /// The folder of the model that it belongs to.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn base(&self) -> Result<&Path> {
        match &self.base {
            Some(base) if base.join("config.json").is_file() => Ok(base),
            Some(base) => Err(Error::file(
                &self.path.join(CONFIG),
                format!("the model that it adapts is not at {}; set `base_model_name_or_path`", base.display()),
            )),
            None => Err(Error::file(&self.path.join(CONFIG), "it does not say what it adapts")),
        }
    }
}

impl Model {
    /// Reads a model folder and adds the adapters of another one to its weights.
    ///
    /// # Errors
    /// As for [`Self::load`]; a folder that holds no adapters, or those of another model.
    pub fn load_merged(folder: &Path, adapters: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let Some(found) = Folder::read(adapters)? else {
            return Err(Error::file(adapters, "it holds no adapter_config.json"));
        };
        let mut builder = Builder::new(&found.lora, folder.to_path_buf(), Numbers::read(&found)?)?;
        let model = Self::load_behind(folder, device, dtype, &mut |entry, param| {
            let adapted = builder.adapt(entry, &param)?;
            if !adapted.adapters().is_empty() {
                param.set(&merged(&adapted)?)?;
            }
            Ok(param)
        })?;
        builder.finish()?;
        Ok(model)
    }

    /// Reads a model folder whose weights stay as they are, behind adapters that learn: new ones, of which A is random
    /// and B zero, or, where the folder is one of adapters, those and the model that they name.
    ///
    /// # Errors
    /// As for [`Self::load`]; targets that no module is called; a folder of adapters of another kind than `lora`; a device
    /// other than the CPU.
    pub fn load_adapted(folder: &Path, lora: &Lora, key: RngKey, device: &Device, dtype: DType) -> Result<Self> {
        if !device.is_cpu() {
            let message = "lora: adapters are computed on the CPU only; say `device = \"cpu\"`, or remove `lora`";
            return Err(Error::Request(message.into()));
        }
        let found = Folder::read(folder)?;
        let (base, numbers) = match &found {
            None => (folder, Numbers::Random(key)),
            Some(found) if found.lora.is(lora) => (found.base()?, Numbers::read(found)?),
            Some(found) => {
                let message = format!("its adapters are {:?}, and {lora:?} are asked for", found.lora);
                return Err(Error::file(folder, message));
            }
        };
        let path = std::path::absolute(base).map_err(Error::io("read", base))?;
        let mut builder = Builder::new(lora, path, numbers)?;
        let mut model = Self::load_behind(base, device, dtype, &mut |entry, param| builder.adapt(entry, &param))?;
        model.adapters = Some(builder.finish()?);
        Ok(model)
    }

    /// Reads what [`Self::save`] of this model, or of a copy, wrote: behind adapters if they are there.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_again(&self, folder: &Path) -> Result<Self> {
        match &self.adapters {
            // The adapters are read, so that the key decides nothing.
            Some(adapters) => {
                Self::load_adapted(folder, &adapters.lora, RngKey::new(0, "lora"), self.device(), self.dtype())
            }
            None => Self::load(folder, self.device(), self.dtype()),
        }
    }
}

/// Where the numbers of adapters come from.
pub(crate) enum Numbers {
    /// A normal, B zero: with them the model is what it was.
    Random(RngKey),
    /// Tensors by name, those that were taken gone.
    File(PathBuf, BTreeMap<String, (Vec<usize>, Vec<f32>)>),
}

impl Numbers {
    /// The numbers of an adapter's folder.
    pub fn read(folder: &Folder) -> Result<Self> {
        let path = folder.path.join(TENSORS);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let damaged = |error: safetensors::SafeTensorError| Error::file(&path, error.to_string());
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
                Dtype::BF16 => {
                    view.data().as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect()
                }
                Dtype::F16 => view.data().as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
                other => return Err(Error::file(&path, format!("`{name}` is {other}; F32, BF16 and F16 are read"))),
            };
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::file(&path, format!("`{name}` has numbers that are not finite")));
            }
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(Self::File(path, tensors))
    }

    fn take(&mut self, name: &str, shape: &[usize], start: Start) -> Result<Vec<f32>> {
        match self {
            Self::Random(key) => {
                // The deviation of PEFT's uniform numbers between -1 / sqrt(K) and 1 / sqrt(K).
                let random = Random { key: *key, deviation: 1.0 / (3.0 * shape[1] as f64).sqrt() };
                random.gather(&Entry::whole(name.to_owned(), shape, start))
            }
            Self::File(path, tensors) => match tensors.remove(&format!("{PREFIX}{name}")) {
                Some((found, values)) if found == shape => Ok(values),
                Some((found, _)) => Err(Error::file(
                    path,
                    format!("`{PREFIX}{name}` has shape {found:?}, and the model asks for {shape:?}"),
                )),
                None => Err(Error::file(path, format!("`{PREFIX}{name}` is missing"))),
            },
        }
    }
}

/// Puts adapters before the parameters of a model while it is assembled.
pub(crate) struct Builder {
    numbers: Numbers,
    adapters: Adapters,
    /// B of a module that is several parameters, until the last of them was made.
    whole: HashMap<String, Vec<f32>>,
}

impl Builder {
    pub fn new(lora: &Lora, base: PathBuf, numbers: Numbers) -> Result<Self> {
        lora.check()?;
        let adapters = Adapters { lora: lora.clone(), base, modules: Vec::new() };
        Ok(Self { numbers, adapters, whole: HashMap::new() })
    }

    /// The parameter of an entry, frozen and behind its adapters.
    pub fn adapt(&mut self, entry: &Entry, param: &Param) -> Result<Param> {
        let mut adapters = Vec::new();
        match &entry.source {
            Source::Joined(tensors) if entry.shape.len() == 2 => {
                let mut first = 0;
                for tensor in tensors {
                    let rows = tensor.shape[0];
                    adapters.extend(self.adapter(tensor, (0, rows, rows), first, &[rows], param)?);
                    first += rows;
                }
            }
            Source::HeadRows { tensor, stride, first, rows } => {
                let heads = tensor.shape[0] / stride;
                adapters.extend(self.adapter(tensor, (*first, *rows, *stride), 0, &[heads, *rows], param)?);
            }
            Source::Joined(_) => {}
        }
        Ok(param.adapted(adapters))
    }

    /// The adapter of a module for some rows of it, `(first, count, stride)`, which are those of a parameter from `at` on.
    fn adapter(
        &mut self,
        tensor: &HubTensor,
        (first, count, stride): (usize, usize, usize),
        at: usize,
        rows: &[usize],
        param: &Param,
    ) -> Result<Option<Adapter>> {
        let (lora, &[n, k]) = (self.adapters.lora.clone(), tensor.shape.as_slice()) else { return Ok(None) };
        let Some(name) = lora.module(&tensor.name) else { return Ok(None) };
        let device = param.value().device().clone();
        let new = |name: &str, values: Vec<f32>, shape: &[usize]| -> Result<Param> {
            Ok(Param::new(name, Tensor::from_vec(values, shape, &device)?)?)
        };
        let place = match self.adapters.modules.iter().position(|module| module.name == name) {
            Some(place) => place,
            None => {
                let of_a = format!("{name}.lora_A.weight");
                let values = self.numbers.take(&of_a, &[lora.rank, k], Start::Normal)?;
                let b = self.numbers.take(&format!("{name}.lora_B.weight"), &[n, lora.rank], Start::Zeros)?;
                self.whole.insert(name.to_owned(), b);
                let a = new(&of_a, values, &[lora.rank, k])?;
                self.adapters.modules.push(Module { name: name.to_owned(), a, b: Vec::new() });
                self.adapters.modules.len() - 1
            }
        };
        let whole = self.whole.get(name).map_or(&[][..], Vec::as_slice);
        let of_head = |head: &[f32]| head[first * lora.rank..(first + count) * lora.rank].to_vec();
        let values: Vec<f32> = whole.chunks(stride * lora.rank).flat_map(of_head).collect();
        let module = &mut self.adapters.modules[place];
        // Parts of one B are parameters of different names.
        let suffix = if count == n { String::new() } else { format!(".{first}") };
        let shape = [rows, &[lora.rank]].concat();
        let b = new(&format!("{name}.lora_B.weight{suffix}"), values, &shape)?;
        module.b.push(Part { param: b.clone(), first, count, stride });
        Ok(Some(Adapter { a: module.a.clone(), b, first: at, scale: lora.scale() }))
    }

    /// All adapters, once every parameter was made.
    ///
    /// # Errors
    /// Targets that no module is called, tensors that belong to none.
    pub fn finish(self) -> Result<Adapters> {
        let Adapters { lora, modules, .. } = &self.adapters;
        let idle = |target: &&String| !modules.iter().any(|module| module.name.ends_with(&format!(".{target}")));
        if let Some(target) = lora.targets.iter().find(idle) {
            return Err(Error::Request(format!(
                "lora: this model has no module `{target}` that could have an adapter"
            )));
        }
        if let Numbers::File(path, rest) = &self.numbers
            && let Some(name) = rest.keys().next()
        {
            return Err(Error::file(path, format!("tensor `{name}` belongs to no module that has an adapter here")));
        }
        Ok(self.adapters)
    }
}

/// A parameter with its adapters added to its value, and without them.
pub(crate) fn merged(param: &Param) -> Result<Tensor> {
    let mut value = param.value().detach();
    let width = param.shape().dims()[param.shape().rank() - 1];
    for Adapter { a, b, first, scale } in param.adapters().iter() {
        let transposed = Param::frozen(a.name(), a.value().detach().t()?.contiguous()?)?;
        let b = b.value().detach();
        let rank = a.shape().dims()[0];
        let delta = (ops::linear(&b.reshape(((), rank))?, &transposed, None)? * f64::from(*scale))?;
        let rows = value.reshape(((), width))?;
        let (count, all) = (delta.dim(0)?, rows.dim(0)?);
        let sum = (rows.narrow(0, *first, count)? + delta)?;
        let after = first + count;
        let parts = [rows.narrow(0, 0, *first)?, sum, rows.narrow(0, after, all - after)?];
        value = Tensor::cat(&parts, 0)?.reshape(param.shape())?;
    }
    Ok(value)
}

/// The same parameter behind other adapters, by the names of their parts.
pub(crate) fn exchanged(param: &Param, by_name: &BTreeMap<String, Param>) -> Result<Param> {
    let part = |old: &Param| {
        let new = by_name.get(old.name()).cloned();
        new.ok_or_else(|| Error::Config(format!("no parameter for `{}`", old.name())))
    };
    let adapters = param.adapters().iter();
    let adapters = adapters.map(|old| Ok(Adapter { a: part(&old.a)?, b: part(&old.b)?, ..old.clone() }));
    Ok(param.adapted(adapters.collect::<Result<_>>()?))
}

impl Adapters {
    /// The parameters that learn.
    pub fn params(&self) -> Vec<Param> {
        let of_module = |module: &Module| {
            let parts = module.b.iter().map(|part| part.param.clone());
            std::iter::once(module.a.clone()).chain(parts).collect::<Vec<_>>()
        };
        self.modules.iter().flat_map(of_module).collect()
    }

    /// The same adapters with numbers of their own, frozen; and the parameter of each name.
    pub fn frozen_copy(&self) -> Result<(Self, BTreeMap<String, Param>)> {
        let mut copy = self.clone();
        let mut by_name = BTreeMap::new();
        for module in &mut copy.modules {
            for param in std::iter::once(&mut module.a).chain(module.b.iter_mut().map(|part| &mut part.param)) {
                *param = Param::frozen(param.name(), param.value().detach().copy()?)?;
                by_name.insert(param.name().to_owned(), param.clone());
            }
        }
        Ok((copy, by_name))
    }

    /// Writes what PEFT reads, the same bytes for the same adapters.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
        let numbers = |param: &Param| -> Result<Vec<f32>> {
            Ok(param.value().to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?)
        };
        let rank = self.lora.rank;
        for Module { name, a, b } in &self.modules {
            tensors.insert(format!("{PREFIX}{name}.lora_A.weight"), (a.shape().dims().to_vec(), numbers(a)?));
            let rows: usize = b.iter().map(|part| part.param.elem_count() / rank).sum();
            let mut whole = vec![0.0; rows * rank];
            for Part { param, first, count, stride } in b {
                let values = numbers(param)?;
                for (head, values) in whole.chunks_mut(stride * rank).zip(values.chunks(count * rank)) {
                    head[first * rank..(first + count) * rank].copy_from_slice(values);
                }
            }
            tensors.insert(format!("{PREFIX}{name}.lora_B.weight"), (vec![rows, rank], whole));
        }
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let path = folder.join(TENSORS);
        let failed = |error: safetensors::SafeTensorError| match error {
            safetensors::SafeTensorError::IoError(source) => Error::io("write", &path)(source),
            other => Error::file(&path, other.to_string()),
        };
        let views = bytes
            .iter()
            .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(failed)?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(views, Some(metadata), &path).map_err(failed)?;
        let file = folder.join(CONFIG);
        std::fs::write(&file, format!("{:#}\n", self.config())).map_err(Error::io("write", &file))
    }

    fn config(&self) -> serde_json::Value {
        let Lora { rank, alpha, targets } = &self.lora;
        let alpha = if alpha.fract() == 0.0 { json!(*alpha as u64) } else { json!(alpha) };
        json!({
            "base_model_name_or_path": self.base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": rank,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
        })
    }
}
