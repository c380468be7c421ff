//! Adapters: one mind, frozen weights, and folders that PEFT reads.

use std::path::Path;

use base::RngKey;
use candle_core::{DType, Device};
use kernels::Param;
use kernels::ops;
use tempfile::TempDir;

use super::sampling::{assert_one_mind, requests, settings};
use super::{loadable, quickstart, reference, values};
use crate::{Learning, Lora, Model, Sequence, Walk};

fn lora(targets: &[&str]) -> Lora {
    Lora { rank: 4, alpha: 8.0, targets: targets.iter().map(|&target| target.into()).collect() }
}

const LATENT: [&str; 8] =
    ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn key() -> RngKey {
    RngKey::new(3, "lora")
}

/// The quickstart's folder, and the model of it behind adapters that are not zero.
fn adapted() -> (TempDir, Model) {
    adapted_in(DType::F32)
}

fn adapted_in(dtype: DType) -> (TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    quickstart(5).save(folder.path()).unwrap();
    let model = Model::load_adapted(folder.path(), &lora(&quickstart_targets()), key(), &Device::Cpu, dtype).unwrap();
    stir(&model);
    (folder, model)
}

fn quickstart_targets() -> Vec<&'static str> {
    let model = quickstart(5);
    let has = |target: &&str| {
        let module = format!(".{target}.");
        model.weights().iter().any(|(entry, _)| entry.tensors().iter().any(|tensor| tensor.name.contains(&module)))
    };
    LATENT.into_iter().filter(has).collect()
}

/// Gives B numbers that are not zero.
fn stir(model: &Model) {
    for (i, param) in model.params().iter().filter(|param| param.name().contains("lora_B")).enumerate() {
        let count = param.elem_count();
        let values: Vec<f32> = (0..count).map(|at| ((at * 7 + i * 3) % 11) as f32 * 0.01 - 0.05).collect();
        param.set(&candle_core::Tensor::from_vec(values, param.shape(), &Device::Cpu).unwrap()).unwrap();
    }
}

fn rows() -> Vec<Vec<u32>> {
    (0..4).map(|i| (0..20 + i * 13).map(|t| 2 + ((t * 7 + i * 3) % 20) as u32).collect()).collect()
}

fn logps(model: &Model, walk: Walk) -> Vec<f32> {
    let rows = rows();
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 2)).collect();
    values(&model.logprobs(&sequences, 1.0, walk).unwrap().values)
}

/// The bits of the gradients, after passes of so many sequences.
fn gradients(model: &Model, passes: &[usize], recompute: bool) -> Vec<Vec<u32>> {
    let rows = rows();
    let mut rest = rows.as_slice();
    model.params().iter().for_each(Param::zero_grad);
    let mut targets = 0..usize::MAX;
    for &count in passes {
        let (pass, others) = rest.split_at(count);
        rest = others;
        let sequences: Vec<Sequence<'_>> = pass.iter().map(|tokens| Sequence::new(tokens, 2)).collect();
        let walk = model.learn(&sequences, 1.0, Learning { recompute, balance: None }).unwrap();
        // A target's slope is the same in whatever pass it comes.
        let slopes = targets.by_ref().take(walk.values.elem_count()).map(|i| (i % 7) as f64 - 2.5).collect();
        kernels::backward(&ops::known(&walk.values, 0.0, slopes).unwrap()).unwrap();
    }
    let bits = |param: &Param| values(&param.grad().unwrap()).iter().map(|x| x.to_bits()).collect();
    model.params().iter().map(bits).collect()
}

#[test]
fn new_adapters_change_nothing_and_only_they_learn() {
    let folder = tempfile::tempdir().unwrap();
    let plain = quickstart(5);
    plain.save(folder.path()).unwrap();
    let model =
        Model::load_adapted(folder.path(), &lora(&["kv_b_proj", "o_proj"]), key(), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(logps(&model, Walk::Learn), logps(&plain, Walk::Learn));
    let names: Vec<String> = model.params().iter().map(|param| param.name().to_owned()).collect();
    // A, and B by halves, of one; A and B of the other.
    assert_eq!(names.len(), model.config.feed_forward.len() * 5);
    assert!(names.iter().all(|name| name.contains(".lora_A.weight") || name.contains(".lora_B.weight")), "{names:?}");
    gradients(&model, &[4], false);
    let grew = |name: &str| {
        let params = model.params();
        let named = params.iter().filter(|param| param.name().contains(name));
        named.flat_map(|param| values(&param.grad().unwrap())).map(f32::abs).sum::<f32>()
    };
    assert!(grew("lora_B") > 0.0 && grew("lora_A") == 0.0, "where B is zero, A has no slope");
}

#[test]
fn both_walks_are_of_one_mind_behind_adapters() {
    for dtype in [DType::F32, DType::BF16] {
        let (_folder, model) = adapted_in(dtype);
        assert_ne!(logps(&model, Walk::Learn), logps(&quickstart(5), Walk::Learn));
        assert_eq!(logps(&model, Walk::Learn), logps(&model, Walk::Frozen));
        assert_one_mind(&model, &requests(&model, 3), &settings(4));
    }
}

#[test]
fn gradients_do_not_depend_on_passes_or_recomputing() {
    let (_folder, model) = adapted();
    let whole = gradients(&model, &[4], false);
    for (passes, recompute) in [(&[1, 3][..], false), (&[1, 1, 1, 1], false), (&[4], true)] {
        for (param, (found, whole)) in
            model.params().iter().zip(gradients(&model, passes, recompute).iter().zip(&whole))
        {
            assert!(found == whole, "{} by {passes:?}, recomputed {recompute}", param.name());
        }
    }
}

#[test]
fn what_is_saved_goes_on_and_merges() {
    let (_base, model) = adapted();
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    assert!(!folder.path().join("model.safetensors").exists());
    let again = model.load_again(folder.path()).unwrap();
    assert_eq!(logps(&again, Walk::Learn), logps(&model, Walk::Learn));
    assert_eq!(gradients(&again, &[4], false), gradients(&model, &[4], false));
    let copy = tempfile::tempdir().unwrap();
    again.save(copy.path()).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(folder.path()) == read(copy.path()), "{file}");
    }

    let merged = Model::load(folder.path(), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(merged.params().len(), quickstart(5).params().len());
    for (a, b) in logps(&merged, Walk::Frozen).iter().zip(logps(&model, Walk::Frozen)) {
        assert!((a - b).abs() < 1e-4, "{a} merged, {b} behind adapters");
    }
}

#[test]
fn a_reference_has_adapters_of_its_own() {
    let (_folder, model) = adapted();
    let before = logps(&model, Walk::Frozen);
    let reference = model.frozen_copy().unwrap();
    for param in model.params() {
        param.set(&(param.value().detach() * 1.5).unwrap()).unwrap();
    }
    assert_eq!(logps(&reference, Walk::Frozen), before);
    reference.copy_from(&model).unwrap();
    assert_eq!(logps(&reference, Walk::Frozen), logps(&model, Walk::Frozen));
    assert!(reference.params().iter().all(|param| !param.is_tracked()));
}

#[test]
fn joined_projections_have_an_adapter_each() {
    for name in ["qwen3", "qwen2", "mixtral"] {
        let folder = reference(name);
        let base = loadable(&folder, "config.json");
        for targets in [&["v_proj"][..], &["q_proj", "k_proj", "o_proj"]] {
            let model = Model::load_adapted(base.path(), &lora(targets), key(), &Device::Cpu, DType::F32).unwrap();
            stir(&model);
            assert_eq!(model.params().len(), model.config.feed_forward.len() * 2 * targets.len());
            assert_eq!(logps(&model, Walk::Learn), logps(&model, Walk::Frozen), "{name}");
            let saved = tempfile::tempdir().unwrap();
            model.save(saved.path()).unwrap();
            let merged = Model::load_merged(base.path(), saved.path(), &Device::Cpu, DType::F32).unwrap();
            let (merged, behind) = (logps(&merged, Walk::Frozen), logps(&model, Walk::Frozen));
            let worst = merged.iter().zip(&behind).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{name} {targets:?}: {worst}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let (base, model) = adapted();
    let refused = |folder: &Path, lora: &Lora, expected: &str| {
        let error = Model::load_adapted(folder, lora, key(), &Device::Cpu, DType::F32)
            .err()
            .expect("it does not fit")
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(base.path(), &Lora { rank: 0, ..lora(&["o_proj"]) }, "a rank of at least 1");
    refused(base.path(), &lora(&["o_prj"]), "there is no target `o_prj`");
    refused(base.path(), &lora(&["gate"]), "routers and routed experts are left as they are");
    refused(base.path(), &lora(&["o_proj", "k_proj"]), "this model has no module `k_proj`");
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).unwrap();
    refused(saved.path(), &lora(&["o_proj"]), "are asked for");
    let config = saved.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"LORA\"", "\"IA3\"")).unwrap();
    refused(saved.path(), &lora(&LATENT), "it is of type IA3");
    std::fs::write(&config, text.replace(&*base.path().to_string_lossy(), "/nowhere/at/all")).unwrap();
    refused(saved.path(), &lora(&quickstart_targets()), "is not at /nowhere/at/all");
    std::fs::write(&config, text).unwrap();
    std::fs::remove_file(saved.path().join("adapter_model.safetensors")).unwrap();
    refused(saved.path(), &lora(&quickstart_targets()), "failed to read");
}
