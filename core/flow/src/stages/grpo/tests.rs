//! The stage on groups that the quickstart's model has sampled, without what comes before it in a pipeline.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use base::Prompt;
use candle_core::{DType, Device};
use model::sampler::{self, Request, Settings};
use spec::{Document, Files, StageKind};

use super::*;

fn quickstart(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/quickstart").join(file)
}

/// The quickstart's update with some keys set, and its reference model if it has one.
fn stage(keys: &[&str]) -> GrpoStage {
    let mut set: Vec<String> = ["kl={ coefficient = 0.01 }", "minibatches=2", "optimizer={ learning_rate = 1e-3 }"]
        .iter()
        .chain(keys)
        .map(|key| format!("stages.update.{key}"))
        .collect();
    set.push("models.policy.device=cpu".to_owned());
    let (document, findings) = spec::load(&quickstart("reason.toml"), &set, &mut Files::default());
    let Some(Document::Pipeline(pipeline)) = document else { panic!("{findings:#?}") };
    let StageKind::Grpo(grpo) = &pipeline.stages["update"].kind else { panic!("it is the update") };
    let key = RngKey::new(5, "init");
    let [config, tokenizer] = ["model.json", "tokenizer.json"].map(quickstart);
    let model = Model::init(&config, &tokenizer, None, key, &Device::Cpu, DType::F32).unwrap();
    let reference =
        |kl: &spec::Kl| Reference { model: Mutex::new(model.frozen_copy().unwrap()), kl: kl.clone(), saved: true };
    let reference = grpo.kl.as_ref().map(reference);
    let learner = Learner::new("update", Arc::new(model), &grpo.learning, 10).unwrap();
    let constant = |value| Schedule { points: vec![(0, value)] };
    let (temperature, max_tokens) = (constant(0.9), constant(24.0));
    GrpoStage { learner, spec: grpo.clone(), key: RngKey::new(5, "update"), temperature, max_tokens, reference }
}

/// Four groups of four completions by the stage's model, each with the reward that `reward` gives for its tokens.
fn sampled(stage: &GrpoStage, step: u64, reward: impl Fn(&[u32]) -> f64) -> Vec<Arc<Group>> {
    let model = &stage.learner.model;
    let prompt = |(id, text): (u64, &str)| {
        Arc::new(Prompt {
            id,
            source: "test".into(),
            messages: Vec::new(),
            text: text.to_owned(),
            tokens: model.tokenizer.encode(text).unwrap(),
            reference: None,
            response: None,
            learned: Vec::new(),
            fields: Vec::new(),
        })
    };
    let texts =
        ["<user>1+2=?<assistant>", "<user>34+5=?<assistant>", "<user>6+78=?<assistant>", "<user>9+9=?<assistant>"];
    let requests: Vec<Request> = (0..)
        .zip(texts)
        .map(|(index, text)| Request { prompt: prompt((index, text)), index, completions: 4 })
        .collect();
    let settings = Settings { temperature: stage.temperature.at(step), ..Settings::new(24, 16) };
    let mut groups: Vec<Option<Arc<Group>>> = vec![None; requests.len()];
    let (key, never) = (RngKey::new(5, "sample"), AtomicBool::new(false));
    sampler::sample(model, &requests, &settings, key, step as u32, &never, &mut |i, completions| {
        let rewards = completions.iter().map(|one| Some(reward(&one.tokens))).collect();
        groups[i] = Some(Arc::new(Group {
            step,
            index: i,
            prompt: requests[i].prompt.clone(),
            decisions: vec![Decision::Keep; completions.len()],
            completions: completions.into_iter().map(Arc::new).collect(),
            judgements: Vec::new(),
            rewards,
        }));
    })
    .unwrap();
    groups.into_iter().map(Option::unwrap).collect()
}

/// A reward that differs among completions, whatever is written.
fn by_tokens(tokens: &[u32]) -> f64 {
    f64::from(tokens.iter().sum::<u32>() % 5) / 5.0
}

/// The bits of all weights.
fn weights(stage: &GrpoStage) -> Vec<u32> {
    let params = stage.learner.model.params();
    let bits = |param: &kernels::Param| param.value().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    params.iter().flat_map(bits).map(f32::to_bits).collect()
}

fn metric(report: &Report, name: &str) -> f64 {
    let found = report.metrics.iter().find(|(metric, _)| metric == name);
    found.unwrap_or_else(|| panic!("`{name}` is not among {:?}", report.metrics)).1
}

/// The weights after three steps, and what the last of them reports.
fn trained(keys: &[&str]) -> (Vec<u32>, Report) {
    let stage = stage(keys);
    let mut last = Report::default();
    for step in 0..3 {
        last = stage.learn(step, sampled(&stage, step, by_tokens)).unwrap();
        assert!(metric(&last, "loss").is_finite() && metric(&last, "grad_norm") > 0.0, "{keys:?}: {:?}", last.metrics);
        assert!(last.warning.is_none() && last.finding.is_none());
    }
    (weights(&stage), last)
}

#[test]
fn every_algorithm_learns_and_repeats_to_the_byte() {
    let recipes: [&[&str]; 13] = [
        &["algorithm=grpo"],
        &["algorithm=dapo", "overlong=mask", "entropy=0.01"],
        &["algorithm=dr-grpo", "clip={ dual = 3, delta = 4 }"],
        &["algorithm=gspo", "kl={ coefficient = 0.01, unbiased = true }"],
        &["algorithm=cispo", "top_entropy=0.3"],
        &["algorithm=rloo"],
        &["algorithm=gspo", "loss=sequence-sum"], // LUSPO
        &["surrogate=sapo"],
        &["ratio=sequence-token", "epochs=2"],
        // REINFORCE++, and with a baseline
        &[
            "advantage={ baseline = \"none\", scale = \"whiten-tokens\", epsilon = 1e-8 }",
            "loss=token-mean",
            "kl={ coefficient = 0.01, place = \"reward\", estimator = \"k2\" }",
        ],
        &["advantage={ scale = \"whiten-tokens\" }", "kl={ coefficient = 0.01, refresh_every = 1, average = 0.6 }"],
        &["importance_sampling={ level = \"sequence\", mode = \"mask\", at_most = 3 }", "off_policy_mask=0.1"],
        &["advantage={ baseline = \"leave-one-out\", scale = \"batch\", ddof = 0 }", "replay_experts=true"],
    ];
    let mut seen: Vec<Vec<u32>> = Vec::new();
    for recipe in recipes {
        let (once, again) = (trained(recipe), trained(recipe));
        assert!(once.0 == again.0, "{recipe:?} gives other weights when repeated");
        assert_eq!(once.1.metrics, again.1.metrics, "{recipe:?}");
        assert!(!seen.contains(&once.0), "{recipe:?} is no other recipe than one before");
        seen.push(once.0);
    }
}

/// What the sampler recorded is what the learner computes: there is nothing to correct.
#[test]
fn importance_sampling_changes_no_bit_where_sampler_and_learner_agree() {
    let (plain, _) = trained(&["epochs=2"]);
    for mode in ["truncate", "mask"] {
        for level in ["token", "sequence"] {
            let correction =
                format!("importance_sampling={{ level = \"{level}\", mode = \"{mode}\", at_least = 0.5 }}");
            let (corrected, report) = trained(&["epochs=2", &correction]);
            assert!(corrected == plain, "{level} {mode}");
            assert_eq!(metric(&report, "sampling/importance_sampling_ratio/mean"), 1.0);
            assert_eq!(metric(&report, "mismatch_kl"), 0.0);
            assert_eq!(metric(&report, "sampling/masked_ratio"), 0.0);
        }
    }
}

#[test]
fn replayed_experts_change_no_bit_until_the_router_has_moved() {
    let one = ["minibatches=1"];
    assert!(trained(&one).0 == trained(&[one[0], "replay_experts=true"]).0, "one update a step");
    // Within a step of several updates weights move, and routers may choose others than the sampler's did.
    let several = ["minibatches=4", "optimizer={ learning_rate = 2e-2 }"];
    assert!(trained(&several).0 != trained(&[several[0], several[1], "replay_experts=true"]).0, "four updates a step");
}

/// A sampler that is behind has other probabilities, which are measured and corrected.
#[test]
fn a_sampler_that_is_behind_is_corrected() {
    let correction = "importance_sampling={ level = \"token\", mode = \"mask\", at_least = 0.999, at_most = 1.001 }";
    let run = |keys: &[&str]| {
        let stage = stage(keys);
        let groups = [0, 1].map(|step| sampled(&stage, step, by_tokens));
        let reports = groups.map(|groups| stage.learn(groups[0].step, groups).unwrap());
        (weights(&stage), reports)
    };
    let ((plain, [_, plain_report]), (corrected, [first, second])) = (run(&[]), run(&[correction]));
    assert_eq!(metric(&first, "mismatch_kl"), 0.0);
    assert!(metric(&second, "mismatch_kl") > 0.0 && metric(&plain_report, "mismatch_kl") > 0.0);
    assert!(metric(&second, "sampling/masked_ratio") > 0.1);
    assert!(plain != corrected);
}

#[test]
fn a_step_of_equal_rewards_changes_nothing_and_says_so() {
    for keys in [&[][..], &["advantage={ baseline = \"none\", scale = \"none\" }", "entropy=0.1"]] {
        let stage = stage(keys);
        let before = weights(&stage);
        let report = stage.learn(0, sampled(&stage, 0, |_| 0.25)).unwrap();
        assert!(weights(&stage) == before && stage.learner.model.version() == 0);
        assert_eq!((metric(&report, "updates"), metric(&report, "groups_learned")), (0.0, 0.0));
        let warning = report.warning.expect("it is said");
        assert!(
            warning.contains("all rewards of step 1 are 0.25") && warning.contains("`update` made no update"),
            "{warning}"
        );
    }
}

#[test]
fn a_reference_is_refreshed_averaged_and_committed() {
    let logprob = |stage: &GrpoStage| {
        let reference = stage.reference.as_ref().unwrap().model.lock().unwrap();
        let tokens = reference.tokenizer.encode("<user>1+2=?<assistant>3").unwrap();
        let walk = reference.logprobs(&[Sequence::new(&tokens, 4)], 1.0, Walk::Frozen).unwrap();
        walk.values.to_vec1::<f32>().unwrap()
    };
    let keys = ["kl={ coefficient = 0.01, refresh_every = 2, average = 0.5 }"];
    let learner = stage(&keys);
    let mut seen = vec![logprob(&learner)];
    for step in 0..4 {
        learner.learn(step, sampled(&learner, step, by_tokens)).unwrap();
        seen.push(logprob(&learner));
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "it stays for two steps");
    assert!(seen[2] != seen[3] && seen[3] == seen[4], "and two more");
    let policy = learner.learner.model.logprobs(
        &[Sequence::new(&learner.learner.model.tokenizer.encode("<user>1+2=?<assistant>3").unwrap(), 4)],
        1.0,
        Walk::Frozen,
    );
    assert_ne!(policy.unwrap().values.to_vec1::<f32>().unwrap(), seen[4], "a part of it is old");

    let folder = tempfile::tempdir().unwrap();
    learner.learner.model.save(folder.path()).unwrap();
    learner.save(folder.path()).unwrap();
    let other = stage(&keys);
    other.load(folder.path()).unwrap();
    assert_eq!(logprob(&other), seen[4]);
}
