//! `check` against the references, and against references that were tampered with; `info` of the same folders.

use std::path::Path;

use candle_core::Device;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use super::{ARCHITECTURES, loadable, quickstart, reference};
use crate::check::{Outcome, Report, check};
use crate::{Info, memory};

fn checked(folder: &Path) -> Report {
    check(folder, &Device::Cpu).unwrap()
}

#[test]
fn every_reference_model_agrees_with_its_numbers() {
    for name in ARCHITECTURES {
        let report = checked(&reference(name));
        assert!(report.lacking.is_empty(), "{name}: {:?}", report.lacking);
        let names: Vec<&str> = report.differences.iter().map(|difference| &*difference.name).collect();
        for part in ["rope.inv_freq", "embeddings", "hidden.2", "logits", "token_logprobs", "loss", "greedy_tokens"] {
            assert!(names.contains(&part), "{name}: {part}");
        }
        assert!(names.iter().any(|name| name.starts_with("grad.")), "{name}");
        for difference in &report.differences {
            assert!(difference.elements > 0 && difference.is_within(1e-4), "{name}: {difference:?}");
        }
    }
    let report = checked(&reference("deepseek_v3_bf16_sharded"));
    assert_eq!(report.differences.len(), 1);
    assert!(report.lacking.iter().any(|name| name == "hidden.2") && report.lacking.contains(&"grad.*".to_string()));
}

/// A copy of a reference model, its reference changed.
fn tampered(change: impl FnOnce(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>)) -> TempDir {
    let source = reference("qwen3_moe");
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let bytes = std::fs::read(source.join("reference.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let mut tensors: Vec<_> = tensors
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    change(&mut tensors);
    let views =
        tensors.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(folder.path().join("reference.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    folder
}

#[test]
fn what_differs_is_beyond_every_tolerance_that_it_exceeds() {
    let folder = tampered(|tensors| {
        for (name, _, _, data) in tensors {
            match name.as_str() {
                // The last element of each row is no padding.
                "greedy_tokens" | "router.1.experts" => data.as_chunks_mut::<8>().0.last_mut().unwrap()[0] ^= 1,
                "hidden.1" => {
                    let last = data.as_chunks_mut::<4>().0.last_mut().unwrap();
                    *last = (f32::from_le_bytes(*last) + 0.5).to_le_bytes();
                }
                "loss" => data.copy_from_slice(&f32::NAN.to_le_bytes()),
                _ => {}
            }
        }
    });
    let report = checked(folder.path());
    let of = |name: &str| report.differences.iter().find(|difference| difference.name == name).unwrap();
    assert_eq!(of("greedy_tokens").outcome, Outcome::Choices { wrong: 1 });
    assert_eq!(of("router.1.experts").outcome, Outcome::Choices { wrong: 1 });
    assert!(!of("router.1.experts").is_within(f64::INFINITY));
    let Outcome::Numbers { largest, relative } = of("hidden.1").outcome else { panic!("hidden.1 has numbers") };
    assert!((largest - 0.5).abs() < 1e-3 && relative < largest, "{largest} {relative}");
    assert!(!of("loss").is_within(f64::INFINITY));
    assert!(of("hidden.0").is_within(1e-4) && of("logits").is_within(1e-4));
}

#[test]
fn a_reference_that_cannot_serve_is_an_error_that_says_why() {
    #[track_caller]
    fn refused(folder: &Path, expected: &str) {
        let error = check(folder, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let bare = loadable(&reference("qwen3"), "config.json");
    refused(bare.path(), "it holds no reference.safetensors");
    refused(tampered(|tensors| tensors.retain(|t| t.0 != "input_ids")).path(), "it lacks `input_ids`");
    let cut = tampered(|tensors| {
        let (_, _, shape, data) = tensors.iter_mut().find(|t| t.0 == "logits").unwrap();
        shape[2] -= 1;
        data.truncate(shape.iter().product::<usize>() * 4);
    });
    refused(cut.path(), "`logits` has 10527 elements where the model has 10560");
}

#[test]
fn a_folder_is_described_without_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let model = quickstart(1);
    model.save(folder.path()).unwrap();
    let info = Info::read(folder.path()).unwrap();
    assert_eq!((info.parameters, info.active_parameters), model.parameter_count());
    assert_eq!((info.layers, info.expert_layers, info.experts), (3, 2, Some((8, 2))));
    assert_eq!(info.bytes["F32"], 4 * info.parameters as u64);
    assert_eq!((info.tokens, info.eos.clone(), info.chat_template), (Some(25), vec![(1, "<eos>".into())], true));
    assert_eq!(info.memory.values, 4 * info.parameters as u64);
    assert_eq!(info.memory, memory::Weights::of(&model.config).unwrap());
    assert!(info.findings.is_empty() && info.notes.is_empty(), "{:?}", info.findings);

    // Everything that loading would refuse is said at once.
    let text = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let text = text.replace("\"vocab_size\": 25", "\"vocab_size\": 24");
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    let findings = Info::read(folder.path()).unwrap().findings.join("\n");
    for part in
        ["`lm_head.weight` has shape [25, 128]", "`model.embed_tokens.weight`", "the tokenizer has ids up to 24"]
    {
        assert!(findings.contains(part), "{findings}");
    }
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let info = Info::read(folder.path()).unwrap();
    assert!(info.tokens.is_none() && info.findings.join("\n").contains("tokenizer.json"));
}
