//! Whether a phase's models fit into memory, before any of them is loaded.

use std::path::PathBuf;

use base::Diagnostic;
use model::{Config, memory};
use spec::{Model, ModelSource, Pipeline, StageKind};

use crate::plan::trained_model;
use crate::ready::Takeover;

/// What a phase's models take, in bytes.
#[derive(Default)]
struct Needs {
    /// Certainly: weights, packed forms, gradients, moments, references.
    held: u64,
    /// At most, beyond that: the activations of a full pass.
    pass: u64,
    /// Of that for each token.
    per_token: u64,
}

/// Refuses, with the place of its table, a model that there is no memory for beside the others; gives a warning for each
/// model whose passes may be too long.
pub(crate) fn check(pipeline: &Pipeline, takeover: &Takeover) -> Result<Vec<String>, Vec<Diagnostic>> {
    match memory::available() {
        Some(free) => check_against(pipeline, takeover, free),
        None => Ok(Vec::new()),
    }
}

fn check_against(pipeline: &Pipeline, takeover: &Takeover, free: u64) -> Result<Vec<String>, Vec<Diagnostic>> {
    let mut warnings = Vec::new();
    let mut held = 0;
    for (name, model) in pipeline.models.iter().filter(|(_, model)| on_the_cpu(model)) {
        let folder = takeover.models.get(name);
        // What can't be read has been reported, or is when it is loaded.
        let Some(config) = config_of(folder, model) else { continue };
        let Ok(needs) = needs(pipeline, name, &config) else { continue };
        held += needs.held;
        if held + needs.per_token > free {
            let message = format!("there is not enough memory for model `{name}`");
            let label = format!(
                "takes {} (in float32: weights, their packed form, and gradients, moments and references where it \
                 learns), which makes {} in all; {} is free",
                memory::bytes(needs.held),
                memory::bytes(held),
                memory::bytes(free)
            );
            let help = "use a smaller model, leave out `kl`, or run it on a machine with more memory";
            return Err(vec![Diagnostic::error("memory", message).at(model.span.clone(), label).help(help)]);
        }
        if held + needs.pass > free {
            warnings.push(format!(
                "model `{name}` may not have the memory to learn: a full pass takes {} beside {}, and {} is free; \
                 `tokens_per_pass = {}` fits, and `recompute = true` keeps less of a token",
                memory::bytes(needs.pass),
                memory::bytes(held),
                memory::bytes(free),
                (free - held) / needs.per_token.max(1)
            ));
        }
    }
    Ok(warnings)
}

fn on_the_cpu(model: &Model) -> bool {
    match model.device {
        spec::Device::Cpu => true,
        spec::Device::Auto => !cfg!(feature = "cuda"),
        spec::Device::Cuda => false,
    }
}

/// The config of a model, where it can be read.
pub(crate) fn config_of(folder: Option<&PathBuf>, model: &Model) -> Option<Config> {
    let path = match (folder, &model.source) {
        (Some(folder), _) | (None, ModelSource::Path(folder)) => folder.join("config.json"),
        (None, ModelSource::Init { config, .. }) => config.clone(),
    };
    Config::from_json(&std::fs::read_to_string(path).ok()?).ok()
}

fn needs(pipeline: &Pipeline, name: &str, config: &Config) -> Result<Needs, model::Error> {
    let weights = memory::Weights::of(config)?;
    let mut needs = Needs { held: weights.to_sample(), ..Needs::default() };
    // Adapters are small, and what is behind them has no gradient and serves the reference, too.
    let adapted = pipeline.models.get(name).is_some_and(|model| model.lora.is_some());
    for stage in pipeline.stages.values() {
        let learning = match &stage.kind {
            // What samples ahead is a copy.
            StageKind::Sample(sample)
                if sample.ahead && sample.model == name && trained_model(pipeline) == Some(name) =>
            {
                needs.held += if adapted { 0 } else { weights.to_sample() };
                continue;
            }
            StageKind::Sft(sft) => &sft.learning,
            StageKind::TrainJudge(train) => &train.learning,
            StageKind::Distil(distil) => &distil.learning,
            StageKind::Grpo(grpo) => {
                if !adapted && grpo.kl.as_ref().is_some_and(|kl| kl.model == name) {
                    needs.held += weights.to_sample();
                }
                &grpo.learning
            }
            _ => continue,
        };
        if learning.model == name {
            let pass = memory::activations(config, learning.tokens_per_pass, learning.recompute);
            needs.pass = needs.pass.max(pass);
            needs.per_token = needs.per_token.max(memory::activations(config, 1, learning.recompute));
        }
    }
    if !adapted && trained_model(pipeline) == Some(name) {
        needs.held += weights.to_learn() - weights.to_sample();
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use spec::Files;

    use super::*;
    use crate::phase::phases;

    #[test]
    fn a_model_without_room_is_shown_in_its_place_and_a_pass_without_room_is_warned_of() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/quickstart.toml");
        let (document, _) = spec::load(&file, &[], &mut Files::default());
        let document = document.expect("the quickstart is valid");
        let phases = phases(&document);
        let pipeline = phases.last().expect("the quickstart has phases").pipeline;
        let check = |free| check_against(pipeline, &Takeover::default(), free);

        let (name, model) = pipeline.models.first().expect("it has a model");
        let config = config_of(None, model).expect("its config can be read");
        let needs = needs(pipeline, name, &config).expect("its config can be used");
        let weights = memory::Weights::of(&config).expect("its config can be used");
        assert_eq!(needs.held, weights.to_learn() + weights.to_sample(), "the phase has a reference model");

        let findings = check(needs.held).expect_err("there is no room");
        assert_eq!((findings.len(), findings[0].code), (1, "memory"));
        let (place, label) = findings[0].place.as_ref().expect("it has a place");
        assert!(place.file.ends_with("quickstart/reason.toml") && label.contains("is free"), "{place:?} {label}");

        let warnings = check(needs.held + 100 * needs.per_token).expect("the weights fit");
        assert!(warnings[0].contains("`tokens_per_pass = 100` fits"), "{warnings:?}");
        assert_eq!(check(needs.held + needs.pass).expect("all fits"), Vec::<String>::new());
    }
}
