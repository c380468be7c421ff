//! Whole models against transformers' numbers, against themselves, and against damaged folders.

mod bad_input;
mod checks;
#[cfg(feature = "cuda")]
mod device;
mod folders;
mod hub;
mod learning;
mod lora;
mod parity;
mod sampling;
mod scores;
mod training;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Prompt, RngKey};
use candle_core::{DType, Device};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Model, Tokenizer};

/// Where the project is now: these tests also run where they were not built.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from).join("../..")
}

/// Every architecture of which there are numbers of transformers.
const ARCHITECTURES: [&str; 10] = [
    "deepseek_v2",
    "deepseek_v2_lite",
    "deepseek_v3",
    "deepseek_v3_moonlight",
    "deepseek_v3_yarn",
    "llama",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
];

/// The folder of a reference model.
fn reference(name: &str) -> PathBuf {
    root().join("tests/parity").join(name)
}

/// A copy of a reference model that loads: with a byte-level tokenizer of its 320 tokens, and ended by no token, as the
/// reference's greedy continuation is.
fn loadable(folder: &Path, config: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("model") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let text = std::fs::read_to_string(folder.join(config)).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["eos_token_id"] = Value::Null;
    std::fs::write(copy.path().join("config.json"), json.to_string()).unwrap();
    let texts = (0..300).map(|i| format!("{i} and {} make {}; the sum of both", i * 3, i * 4));
    let special = ["<pad>", "<bos>", "<eos>"].map(String::from);
    Tokenizer::train_bpe(texts, 320, &special).unwrap().save(&copy.path().join("tokenizer.json")).unwrap();
    copy
}

fn load(name: &str) -> Model {
    load_as(name, "config.json")
}

/// A reference model, read by one of its configs.
fn load_as(name: &str, config: &str) -> Model {
    load_on(name, config, &Device::Cpu, DType::F32)
}

/// The same on a device, with products in a dtype.
fn load_on(name: &str, config: &str, device: &Device, dtype: DType) -> Model {
    Model::load(loadable(&reference(name), config).path(), device, dtype).unwrap()
}

/// A model with random weights: a reference model's config with some keys changed.
fn variant(name: &str, change: Value) -> Model {
    let folder = loadable(&reference(name), "config.json");
    let [config, tokenizer] = ["config.json", "tokenizer.json"].map(|file| folder.path().join(file));
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    std::fs::write(&config, json.to_string()).unwrap();
    Model::init(&config, &tokenizer, None, RngKey::new(1, "init"), &Device::Cpu, DType::F32).unwrap()
}

/// The quickstart's model with random weights.
fn quickstart(seed: u64) -> Model {
    let file = |name: &str| root().join("pipelines/quickstart").join(name);
    let key = RngKey::new(seed, "init");
    let template = file("chat_template.jinja");
    Model::init(&file("model.json"), &file("tokenizer.json"), Some(&template), key, &Device::Cpu, DType::F32).unwrap()
}

fn prompt(id: u64, text: &str, model: &Model) -> Arc<Prompt> {
    prompt_of(id, model.tokenizer.encode(text).unwrap())
}

fn prompt_of(id: u64, tokens: Vec<u32>) -> Arc<Prompt> {
    Arc::new(Prompt {
        id,
        source: "test".into(),
        messages: Vec::new(),
        text: String::new(),
        tokens,
        reference: None,
        response: None,
        learned: Vec::new(),
        fields: Vec::new(),
    })
}

/// Tensors of a safetensors file.
struct Numbers(Vec<u8>);

impl Numbers {
    fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    /// Shape and numbers of a tensor, whatever its dtype.
    fn get(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let values = match view.dtype() {
            safetensors::Dtype::I64 => {
                view.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect()
            }
            _ => view.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        };
        (view.shape().to_vec(), values)
    }

    fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(String::from).collect()
    }

    /// For each row of a left-padded batch `[3, 16]` its tokens, without padding.
    fn rows(&self) -> Vec<Vec<u32>> {
        let (ids, mask) = (self.get("input_ids").1, self.get("attention_mask").1);
        let row = |(ids, mask): (&[f64], &[f64])| {
            ids.iter().zip(mask).filter(|(_, m)| **m == 1.0).map(|(id, _)| *id as u32).collect()
        };
        ids.chunks(16).zip(mask.chunks(16)).map(row).collect()
    }
}

/// The norm of the difference over the norm of what is expected.
fn relative(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square = |sum: f64, x: f64| sum + x * x;
    let difference = got.iter().zip(expected).map(|(&a, &b)| f64::from(a) - b).fold(0.0, square).sqrt();
    let norm = expected.iter().copied().fold(0.0, square).sqrt();
    if norm == 0.0 { difference } else { difference / norm }
}

fn values(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
