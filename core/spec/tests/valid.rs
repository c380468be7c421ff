//! Valid files, typed.

use std::fs;
use std::path::{Path, PathBuf};

use base::{Diagnostic, Runs};
use spec::{
    Advantage, Aggregation, Baseline, Bounding, CorrectionLevel, Device, Document, DropRule, Dtype, Estimator, Files,
    ImportanceSampling, JudgeBy, JudgeInput, KlPlace, LearningRate, ModelSource, OnUndecided, Order, Origin, Overlong,
    Pipeline, PluginSource, Questions, Ratio, Recipe, RewardRule, Scale, Schedule, ScoreScale, Shape, StageKind,
    StopToken, Surrogate,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/valid")
}

fn load(file: &str, overrides: &[&str]) -> (Option<Document>, Vec<Diagnostic>, Files) {
    let overrides: Vec<String> = overrides.iter().map(|it| (*it).to_owned()).collect();
    let mut files = Files::default();
    let (document, findings) = spec::load(&folder().join(file), &overrides, &mut files);
    (document, findings, files)
}

#[track_caller]
fn pipeline(file: &str, overrides: &[&str]) -> Pipeline {
    match load(file, overrides) {
        (Some(Document::Pipeline(pipeline)), findings, _) if findings.is_empty() => *pipeline,
        (_, findings, _) => panic!("{findings:#?}"),
    }
}

#[track_caller]
fn recipe(file: &str, overrides: &[&str]) -> Recipe {
    match load(file, overrides) {
        (Some(Document::Recipe(recipe)), findings, _) if findings.is_empty() => recipe,
        (_, findings, _) => panic!("{findings:#?}"),
    }
}

macro_rules! stage {
    ($pipeline:expr, $name:expr, $kind:ident) => {
        match &$pipeline.stages[$name].kind {
            StageKind::$kind(stage) => stage,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn what_surrounds_the_stages() {
    let it = pipeline("full.toml", &[]);
    assert_eq!((it.name.as_str(), it.seed, it.run.steps, it.run.threads), ("full", 17, 650, Some(2)));
    assert_eq!((it.run.checkpoint.every, it.run.checkpoint.keep), (5, 2));
    assert_eq!(it.run.dir, folder().join("runs"));
    assert_eq!(it.file, folder().join("full.toml"));

    assert_eq!(it.models["policy"].device, Device::Cpu);
    assert_eq!(it.models["policy"].dtype, Dtype::Bf16);
    assert_eq!(it.models["tiny"].dtype, Dtype::F32);
    let lora = it.models["policy"].lora.as_ref().unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.targets.join(" ").as_str()), (16, 32.0, "q_proj down_proj"));
    assert_eq!((it.models["tiny"].device, &it.models["tiny"].lora), (Device::Auto, &None));
    assert!(matches!(&it.models["policy"].source, ModelSource::Path(path) if *path == folder().join("../models/base")));
    let ModelSource::Init { config, tokenizer, chat_template } = &it.models["tiny"].source else { panic!() };
    assert_eq!(*config, folder().join("tiny/config.json"));
    assert_eq!(*tokenizer, folder().join("tiny/tokenizer.json"));
    assert_eq!(*chat_template, Some(folder().join("tiny/chat.jinja")));

    assert!(matches!(&it.plugins["math"].source, PluginSource::Builtin(name) if name == "math"));
    assert!(matches!(&it.plugins["shape"].source, PluginSource::Rhai(path) if *path == folder().join("shape.rhai")));
    let limits = &it.plugins["math"].limits;
    assert_eq!((limits.fuel, limits.memory, limits.operations), (Some(20_000_000), Some(64 << 20), None));
    assert_eq!((limits.output, limits.log), (Some(1 << 20), Some(0)));
    let grants = &it.plugins["math"].grants;
    assert_eq!(grants.assets["words"], folder().join("words.txt"));
    assert_eq!(grants.runtimes["python"], Runs { fuel: 2_000_000_000, memory: 256 << 20, runs: 64 });
    assert!(it.plugins["shape"].grants.is_empty());
    let limits = &it.plugins["shape"].limits;
    assert_eq!((limits.fuel, limits.memory, limits.operations), (None, None, Some(50_000)));
    assert_eq!((limits.output, limits.log), (Some(2 << 10), Some(64 << 10)));
}

#[test]
fn what_stages_say() {
    let it = pipeline("full.toml", &[]);
    let order: Vec<&str> = it.stages.keys().map(String::as_str).collect();
    let expected = "prompts made draft right drafts sample accuracy format reward judge keep update best";
    assert_eq!(order, expected.split(' ').collect::<Vec<_>>(), "stages keep the order of the file");

    let prompts = stage!(it, "prompts", Dataset);
    assert_eq!(prompts.sources[0].path, folder().join("math.jsonl"));
    assert_eq!(prompts.sources[1].path, Path::new("/data/code.parquet"));
    assert_eq!((prompts.sources[0].weight, prompts.sources[1].weight), (3.0, 1.0));
    assert_eq!(prompts.sources[1].columns.fields, ["tests"]);
    assert_eq!(prompts.sources[1].columns.reference, None);
    assert_eq!((prompts.feed.prompts_per_step, prompts.feed.order), (512, Order::Shuffle));
    assert_eq!(prompts.feed.template.as_deref(), Some("r1-zero"));
    assert_eq!(prompts.feed.system.as_deref(), Some("Think."));

    let made = stage!(it, "made", Generate);
    assert_eq!((made.count, made.feed.order), (Some(5000), Order::Shuffle));
    assert_eq!(made.feed.template.as_deref(), folder().join("chat.jinja").to_str());
    let config = r#"{"digits":3,"carry":0.5,"words":["a","b"],"when":"2020-01-02","deep":{"on":true}}"#;
    assert_eq!(made.config.value.to_string(), config);
    let text = fs::read_to_string(folder().join("full.toml")).unwrap();
    let at = |pointer: &str| {
        let span = made.config.place(pointer);
        &text[span.start..span.end]
    };
    assert_eq!((at("/carry"), at("/words/1"), at("/deep/on"), at("/deep/off")), ("carry", "\"b\"", "on", "deep"));
    assert!(at("").starts_with("{ digits") && at("/absent") == at(""));

    let sample = stage!(it, "sample", Sample);
    assert_eq!(sample.temperature, Schedule { points: vec![(0, 1.0), (100, 0.7)] });
    assert_eq!((sample.temperature.at(99), sample.temperature.at(100)), (1.0, 0.7));
    assert_eq!((sample.max_tokens.at(511), sample.max_tokens.at(9999)), (32768.0, 65536.0));
    assert_eq!(sample.group_size, 16);
    let sampling = &sample.sampling;
    let filters = (sampling.repetition_penalty, sampling.top_k, sampling.top_p, sampling.min_p);
    assert_eq!(filters, (Some(1.1), Some(50), Some(0.95), Some(0.05)));
    assert_eq!(sampling.stop, ["</answer>", "\n\n"]);
    assert_eq!(sampling.stop_tokens, [StopToken::Text("<|im_end|>".to_owned()), StopToken::Id(7)]);
    let plain = &stage!(it, "draft", Sample).sampling;
    assert_eq!((plain.repetition_penalty, plain.top_k, plain.top_p, plain.min_p), (None, None, None, None));
    assert!(plain.stop.is_empty() && plain.stop_tokens.is_empty());

    let accuracy = stage!(it, "accuracy", Verify);
    assert_eq!((accuracy.on_undecided, accuracy.max_undecided), (OnUndecided::Drop, 0.05));
    assert_eq!(accuracy.sources.as_deref(), Some(&["math".to_owned()][..]));
    let format = stage!(it, "format", Verify);
    assert_eq!((format.on_undecided, format.max_undecided, &format.sources), (OnUndecided::Fail, 0.5, &None));
    assert_eq!(format.config.value, serde_json::json!({}));

    let RewardRule::Weights(weights) = &stage!(it, "reward", Reward).rule else { panic!() };
    assert_eq!((weights["accuracy"].at(0), weights["format"].at(9), weights["format"].at(10)), (1.0, 0.5, -0.1));
    assert!(matches!(&stage!(it, "judge", Reward).rule, RewardRule::Plugin { plugin, .. } if plugin == "shape"));
    let keep = stage!(it, "keep", Filter);
    assert_eq!(keep.drop, [DropRule::EqualRewards, DropRule::Truncated, DropRule::NonPositive]);
    assert!(
        matches!(&keep.plugin, Some((plugin, config)) if plugin == "shape" && config.value == serde_json::json!({}))
    );
    assert_eq!(stage!(it, "best", Collect).path, Path::new("best/rows.parquet"));
    assert_eq!(it.stages["update"].inputs, ["keep"]);
}

#[test]
fn what_judges_say() {
    let it = pipeline("judges.toml", &[]);
    let score = stage!(it, "score", Judge);
    assert_eq!(
        (score.model.as_str(), score.input, score.on_undecided),
        ("helpful", JudgeInput::Answer, OnUndecided::Zero)
    );
    assert!(matches!(score.by, JudgeBy::Score(ScoreScale::Sigmoid)) && score.sources == Some(vec!["chat".to_owned()]));
    let text = stage!(it, "text", Judge);
    let JudgeBy::Text { asked, samples } = &text.by else { panic!("{:?}", text.by) };
    assert_eq!((text.input, text.max_undecided, *samples), (JudgeInput::Response, 0.1, 4));
    assert_eq!(text.template.as_deref(), folder().join("chat.jinja").to_str());
    assert_eq!((&asked.asking.prompt, asked.plugin.as_str()), (&folder().join("ask.jinja"), "verdict"));
    assert_eq!(
        (asked.asking.temperature, asked.asking.sampling.top_p, asked.asking.max_tokens),
        (0.0, Some(0.95), 256)
    );
    assert_eq!(asked.config.value.to_string(), r#"{"most":10}"#);
    let pairs = stage!(it, "compare", Pairs);
    assert_eq!((pairs.pairs_per_prompt, pairs.judgements, pairs.margin, pairs.length_difference), (4, 4, 1.0, None));
    let columns = &stage!(it, "rows", Dataset).sources[0].columns;
    assert_eq!((columns.chosen.as_deref(), columns.rejected.as_deref(), &columns.label), (Some("c"), Some("r"), &None));
    let learning = &stage!(it, "train", TrainJudge).learning;
    assert_eq!((learning.model.as_str(), learning.minibatches), ("learner", 2));
    let plain = pipeline("judges.toml", &["stages.compare.length_difference=0.05"]);
    assert_eq!(stage!(plain, "compare", Pairs).length_difference, Some(0.05));
}

#[test]
fn what_learning_stages_say() {
    let it = pipeline("full.toml", &[]);
    let update = stage!(it, "update", Grpo);
    let (baseline, scale) = (Baseline::LeaveOneOut, Scale::Batch);
    assert_eq!(update.advantage, Advantage { baseline, scale, ddof: 0, epsilon: 1e-6 });
    let surrogate = Surrogate::Clip { low: None, high: Some(10.0), dual: Some(3.0), delta: Some(12.5) };
    assert_eq!(
        (update.ratio, update.surrogate, update.loss),
        (Ratio::SequenceToken, surrogate, Aggregation::TokenMean)
    );
    let kl = update.kl.as_ref().unwrap();
    assert_eq!((kl.coefficient, kl.model.as_str(), kl.refresh_every), (0.001, "policy", Some(25)));
    assert_eq!((kl.place, kl.estimator, kl.average), (KlPlace::Reward, Estimator::K2, 0.4));
    assert_eq!((kl.unbiased, kl.clamp), (false, true));
    assert_eq!((update.epochs, update.entropy, update.top_entropy), (2, 0.01, Some(0.2)));
    let (level, mode) = (CorrectionLevel::Sequence, Bounding::Mask);
    assert_eq!(update.importance_sampling, Some(ImportanceSampling { level, mode, at_least: 0.5, at_most: 3.0 }));
    assert_eq!((update.overlong, update.off_policy_mask, update.replay_experts), (Overlong::Mask, Some(0.1), true));
    let learning = &update.learning;
    assert_eq!((learning.minibatches, learning.router_bias_step, learning.tokens_per_pass), (16, 0.001, 16384));
    assert_eq!((learning.balance_loss, learning.recompute), (None, false));
    let optimizer = &learning.optimizer;
    assert_eq!((optimizer.schedule, optimizer.warmup, optimizer.min_ratio), (LearningRate::Constant, 0, 0.0));
    assert_eq!((optimizer.betas, optimizer.epsilon, optimizer.weight_decay), ([0.9, 0.95], 1e-8, 0.1));
    assert_eq!((optimizer.learning_rate, optimizer.clip_norm), (3e-6, Some(1.0)));

    let it = pipeline("imitate.toml", &[]);
    let learning = &stage!(it, "imitate", Sft).learning;
    assert_eq!((learning.minibatches, learning.router_bias_step, learning.tokens_per_pass), (4, 0.01, 4096));
    assert_eq!((learning.balance_loss, learning.recompute), (Some(1e-4), true));
    let optimizer = &learning.optimizer;
    assert_eq!((optimizer.schedule, optimizer.warmup, optimizer.min_ratio), (LearningRate::Cosine, 5, 0.1));
    assert_eq!((optimizer.betas, optimizer.epsilon, optimizer.weight_decay), ([0.9, 0.99], 1e-6, 0.0));
    assert_eq!(optimizer.clip_norm, None);
}

/// An algorithm is nothing but the settings that it expands to, and one that is given wins.
#[test]
fn algorithms_expand_to_settings() {
    let algorithm = |name: &str, more: &[&str]| {
        let mut set: Vec<String> = ["minibatches=1", "optimizer={ learning_rate = 1e-6 }"]
            .iter()
            .chain(more)
            .map(|set| format!("stages.update.{set}"))
            .collect();
        set.push(format!("stages.update.algorithm={name}"));
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        stage!(pipeline("plain.toml", &set), "update", Grpo).clone()
    };
    let clip = |low, high| Surrogate::Clip { low: Some(low), high: Some(high), dual: None, delta: None };
    let advantage = |baseline, scale| Advantage { baseline, scale, ddof: 1, epsilon: 1e-4 };
    let group = advantage(Baseline::Group, Scale::Group);
    let (ratio, cispo) = (Ratio::Token, Surrogate::Cispo { low: None, high: Some(4.0) });
    for (name, expected) in [
        ("grpo", (group, ratio, clip(0.2, 0.2), Aggregation::SequenceMean)),
        ("dapo", (group, ratio, clip(0.2, 0.28), Aggregation::TokenMean)),
        ("dr-grpo", (advantage(Baseline::Group, Scale::None), ratio, clip(0.2, 0.2), Aggregation::Constant)),
        ("gspo", (group, Ratio::Sequence, clip(3e-4, 4e-4), Aggregation::SequenceMean)),
        ("cispo", (group, ratio, cispo, Aggregation::TokenMean)),
        (
            "rloo",
            (advantage(Baseline::LeaveOneOut, Scale::None), ratio, Surrogate::Reinforce, Aggregation::SequenceSum),
        ),
    ] {
        let it = algorithm(name, &[]);
        assert_eq!((it.advantage, it.ratio, it.surrogate, it.loss), expected, "{name}");
        assert!(it.kl.is_none() && it.importance_sampling.is_none() && !it.replay_experts, "{name}");
        let kl = algorithm(name, &["kl={ coefficient = 0.1 }"]).kl.unwrap();
        let expected = if name == "rloo" { (KlPlace::Reward, Estimator::K1) } else { (KlPlace::Loss, Estimator::K3) };
        assert_eq!((kl.place, kl.estimator, kl.unbiased, kl.average), (expected.0, expected.1, false, 0.0), "{name}");
    }
    let it = algorithm("gspo", &["clip={ high = 0.3 }", "advantage={ epsilon = 1e-6 }", "loss=sequence-sum"]);
    assert_eq!((it.surrogate, it.loss), (clip(3e-4, 0.3), Aggregation::SequenceSum));
    assert_eq!(it.advantage, Advantage { epsilon: 1e-6, ..group });
    let it =
        algorithm("rloo", &["surrogate=sapo", "sapo={ negative = 2 }", "kl={ coefficient = 1, place = \"loss\" }"]);
    assert_eq!(it.surrogate, Surrogate::Sapo { positive: 1.0, negative: 2.0 });
    assert_eq!(it.kl.map(|kl| (kl.place, kl.estimator)), Some((KlPlace::Loss, Estimator::K1)));
}

#[test]
fn what_evaluations_say() {
    let it = pipeline("full.toml", &[]);
    let aime = &it.evaluations["aime"];
    assert_eq!((aime.samples, aime.temperature, aime.max_tokens), (64, 0.6, 32768));
    assert_eq!((aime.sampling.top_p, aime.sampling.stop.as_slice()), (Some(0.95), ["</answer>".to_owned()].as_slice()));
    assert_eq!((aime.greedy, aime.at_start, aime.at_end, aime.every), (true, false, true, Some(25)));
    assert_eq!(aime.verify, ["accuracy"]);
    let Questions::File { path, limit, .. } = &aime.questions else { panic!() };
    assert_eq!((path, *limit), (&folder().join("aime24.jsonl"), Some(30)));
    let made = &it.evaluations["made"];
    assert_eq!((made.samples, made.temperature, made.greedy), (4, 1.0, false));
    assert_eq!((made.at_start, made.at_end, made.every), (true, true, None));
    assert_eq!(made.verify, ["accuracy", "format"]);
    assert!(matches!(&made.questions, Questions::Plugin { count: 200, plugin, .. } if plugin == "tasks"));
    assert_eq!((aime.pass_at.as_slice(), made.pass_at.as_slice()), ([64].as_slice(), [4].as_slice()));
    let contest = &it.evaluations["contest"];
    let Questions::File { columns, skip, limit, .. } = &contest.questions else { panic!() };
    assert_eq!((*skip, *limit), (10, Some(20)));
    assert_eq!((columns.prompt.as_str(), columns.shape), ("{{ title }}\n{{ text }}", Shape::Template));
    let rating = contest.rating.as_ref().expect("the evaluation has a rating");
    assert_eq!((rating.column.as_str(), &rating.table), ("rating", &Some(folder().join("ratings.csv"))));
    assert!(contest.pass_at.is_empty(), "pass@1 is there always");
}

#[test]
fn only_the_evaluations_of_a_file_are_left_with_what_they_need() {
    let it = pipeline("full.toml", &[]).only_evaluations();
    assert_eq!(it.run.steps, 0);
    assert_eq!(it.stages.keys().collect::<Vec<_>>(), ["accuracy", "format"]);
    assert!(it.stages.values().all(|stage| stage.inputs.is_empty()));
    assert_eq!(it.models.keys().collect::<Vec<_>>(), ["policy", "tiny"]);
    assert!(it.evaluations.values().all(|one| one.at_start && !one.at_end && one.every.is_none()));
    assert!(it.gates.is_empty());
}

#[test]
fn overrides_reach_everything_and_their_paths_lie_in_the_working_folder() {
    let set = [
        "run.dir=there",
        "run.steps=3",
        "run.checkpoint.keep = 9",
        "stages.prompts.sources.math.path=a=b.jsonl",
        "stages.prompts.sources.1.weight=0.25",
        "stages.update.kl={ coefficient = 1 }",
        "stages.sample.temperature=[{ from = 0, value = 0.5 }]",
        "models.policy={ path = \"elsewhere\" }",
        "stages.prompts.system=2020-01-01",
    ];
    let it = pipeline("full.toml", &set);
    assert_eq!((it.run.dir.as_path(), it.run.steps), (Path::new("there"), 3));
    assert_eq!((it.run.checkpoint.every, it.run.checkpoint.keep), (5, 9));
    let prompts = stage!(it, "prompts", Dataset);
    assert_eq!(prompts.sources[0].path, Path::new("a=b.jsonl"));
    assert_eq!(prompts.sources[1].weight, 0.25);
    assert_eq!(prompts.feed.system.as_deref(), Some("2020-01-01"));
    let kl = stage!(it, "update", Grpo).kl.as_ref().unwrap();
    assert_eq!((kl.coefficient, kl.refresh_every), (1.0, None), "a table is replaced as a whole");
    assert_eq!(stage!(it, "sample", Sample).temperature.points, [(0, 0.5)]);
    assert!(matches!(&it.models["policy"].source, ModelSource::Path(path) if path == Path::new("elsewhere")));
    assert_eq!(it.models["policy"].device, Device::Auto);
}

#[test]
fn a_recipe_reads_its_phases() {
    let it = recipe("recipe.toml", &[]);
    assert_eq!((it.name.as_str(), it.seed, it.dir.clone()), ("recipe", 5, folder().join("out")));
    let [cold, select, again] = it.phases.as_slice() else { panic!() };
    assert_eq!((cold.name.as_str(), cold.pipeline.name.as_str(), cold.pipeline.seed), ("cold-start", "sft", 5));
    assert_eq!((cold.pipeline.run.steps, again.pipeline.run.steps), (7, 3));
    assert_eq!(cold.pipeline.run.dir, folder().join("out"));
    assert_eq!(stage!(cold.pipeline, "learn", Sft).learning.optimizer.warmup, 2);
    let traces = &stage!(cold.pipeline, "traces", Dataset).sources[0].path;
    assert_eq!(*traces, folder().join("other.jsonl"), "a path in `set` is relative to the recipe");
    let traces = &stage!(again.pipeline, "traces", Dataset).sources[0].path;
    assert_eq!(*traces, folder().join("phases/traces.parquet"));
    assert_eq!((&cold.init, &select.init), (&None, &Some(Origin::Phase("cold-start".to_owned()))));
    assert_eq!(again.init, Some(Origin::Path(folder().join("models/start"))));
    assert_eq!(again.data["traces"], Origin::Phase("select".to_owned()));
}

#[test]
fn overrides_of_a_recipe_are_its_own_or_a_phases() {
    let set = [
        "run.dir=there",
        "run.threads=1",
        "phases.cold-start.run.steps=70",
        "phases.again.init=models/other",
        "phases.select.stages.questions.sources.questions.path=here.jsonl",
        "phases.1.set.run.checkpoint.every=2",
    ];
    let it = recipe("recipe.toml", &set);
    let [cold, select, again] = it.phases.as_slice() else { panic!() };
    assert_eq!(it.dir, Path::new("there"));
    assert_eq!((cold.pipeline.run.threads, again.pipeline.run.threads), (Some(1), Some(1)));
    assert_eq!(cold.pipeline.run.steps, 70);
    assert_eq!(again.init, Some(Origin::Path("models/other".into())));
    assert_eq!(stage!(select.pipeline, "questions", Dataset).sources[0].path, Path::new("here.jsonl"));
    assert_eq!(select.pipeline.run.checkpoint.every, 2);
}

#[test]
fn threads_are_a_phases_unless_the_recipe_says_them() {
    let it = recipe("recipe.toml", &["phases.select.run.threads=3"]);
    let threads: Vec<_> = it.phases.iter().map(|phase| phase.pipeline.run.threads).collect();
    assert_eq!(threads, [None, Some(3), Some(2)]);
    // The command line may overrule what both files say.
    let it = recipe("recipe.toml", &["run.threads=1"]);
    assert!(it.phases.iter().all(|phase| phase.pipeline.run.threads == Some(1)));
}

#[test]
fn runs_are_made_in_the_working_folder_unless_a_file_says_where() {
    assert_eq!(pipeline("imitate.toml", &[]).run.dir, Path::new("runs"));
    assert_eq!(pipeline("imitate.toml", &["run={ steps = 1 }"]).run.dir, Path::new("runs"));
    assert_eq!(pipeline("full.toml", &[]).run.dir, folder().join("runs"));
    assert_eq!(recipe("recipe.toml", &["run={ threads = 1 }"]).dir, Path::new("runs"));
}

#[test]
fn a_whole_entry_can_be_added() {
    let set =
        ["plugins.more={ builtin = \"format\", limits = { fuel = 1 } }", "plugins.more.limits={ operations = 5 }"];
    let (document, findings, _) = load("full.toml", &set);
    let Some(Document::Pipeline(it)) = document else { panic!("{findings:#?}") };
    assert_eq!(it.plugins["more"].limits.operations, Some(5));
    assert_eq!(findings.iter().map(|it| it.code).collect::<Vec<_>>(), ["unused-plugin"]);
}

/// A reference model never learns, and a model that only samples may do so beside another that learns.
#[test]
fn models_that_do_not_learn_are_free() {
    let set = ["stages.update.kl={ coefficient = 1, model = \"tiny\" }"];
    let kl = stage!(pipeline("full.toml", &set), "update", Grpo).kl.clone().unwrap();
    assert_eq!(kl.model, "tiny");
}

/// However a file is damaged, there is a document exactly if there is no error, and every place lies in its text.
#[test]
fn damaged_files_are_reported() {
    let folder = tempfile();
    let path = folder.join("damaged.toml");
    let whole = fs::read_to_string(self::folder().join("full.toml")).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let without = (0..lines.len()).map(|line| [&lines[..line], &lines[line + 1..]].concat().concat());
    let twice = (0..lines.len()).map(|line| [&lines[..=line], &lines[line..]].concat().concat());
    let cut = (0..whole.len()).step_by(29).map(|end| whole[..end].to_owned());
    let swapped = (0..whole.len())
        .step_by(13)
        .map(|at| format!("{}{}{}", &whole[..at], ['"', '[', '{', '=', '#', '.'][at % 6], &whole[at + 1..]));
    let (mut valid, mut invalid) = (0, 0);
    for text in without.chain(twice).chain(cut).chain(swapped) {
        fs::write(&path, &text).unwrap();
        let mut files = Files::default();
        let (document, findings) = spec::load(&path, &[], &mut files);
        let sound = !findings.iter().any(Diagnostic::is_error);
        assert_eq!(document.is_some(), sound, "{findings:#?}\n{text}");
        assert!(findings.iter().all(|finding| finding.code != "internal"), "{findings:#?}\n{text}");
        for (span, _) in findings.iter().flat_map(|finding| finding.place.iter().chain(&finding.labels)) {
            assert!(text.get(span.start..span.end).is_some(), "{span:?} of\n{text}");
        }
        let starts: Vec<_> = findings.iter().filter_map(|it| it.place.as_ref().map(|(span, _)| span.start)).collect();
        assert!(starts.is_sorted(), "{findings:#?}");
        *if sound { &mut valid } else { &mut invalid } += 1;
    }
    assert!(valid > 50 && invalid > 200, "{valid} valid, {invalid} invalid");
    fs::remove_dir_all(folder).unwrap();
}

fn tempfile() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("spec-valid-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let (document, findings, _) = load("absent.toml", &[]);
    assert!(document.is_none());
    assert_eq!(findings[0].code, "unreadable-file");
    assert!(findings[0].message.ends_with("absent.toml`: it does not exist"), "{}", findings[0].message);
    let (_, findings, _) = load("phases", &[]);
    assert!(findings[0].message.ends_with("phases`: it is a folder"), "{}", findings[0].message);
    let folder = tempfile().join("latin");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("latin.toml"), b"name = \"caf\xe9\"").unwrap();
    let (_, findings) = spec::load(&folder.join("latin.toml"), &[], &mut Files::default());
    assert!(findings[0].message.ends_with("byte 12 is not UTF-8"), "{}", findings[0].message);
    fs::remove_dir_all(folder).unwrap();
}

/// Dotted keys nest without brackets; a recursive reader must not run out of stack.
#[test]
fn deep_files_do_not_overflow_the_stack() {
    let folder = tempfile().join("deep");
    fs::create_dir_all(&folder).unwrap();
    let deep = [
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]\n", "a.".repeat(100_000)),
        format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}1{}", "{ a = ".repeat(100_000), " }".repeat(100_000)),
        format!("a = {{ {}a = 1 }}", "a.".repeat(100_000)),
    ];
    for text in deep {
        fs::write(folder.join("deep.toml"), &text).unwrap();
        let (document, findings) = spec::load(&folder.join("deep.toml"), &[], &mut Files::default());
        assert!(document.is_none() && !findings.is_empty());
    }
    let set = format!("{}a=1", "a.".repeat(100_000));
    let (document, _) = spec::load(&self::folder().join("full.toml"), &[set], &mut Files::default());
    assert!(document.is_none());
    fs::remove_dir_all(folder).unwrap();
}
