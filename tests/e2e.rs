//! The main job on small numbers: every part runs, the same bytes come out of it whatever happens on the way.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use support::{Folder, assert_same, exact_files, lines, root, said, small_quickstart};

fn reference() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let mut arguments = small_quickstart();
    arguments.extend(["--set".to_owned(), "run.threads=1".to_owned()]);
    let said = folder.run(arguments);
    said.expect(0, &["pass@1", "before", "after", "cold-start", "reason", "tokens/s"]);
    let run = folder.path("runs/quickstart/0001");
    (folder, run)
}

#[test]
fn the_quickstart_runs_and_leaves_what_it_promises() {
    let (_folder, run) = reference();
    let metrics = lines(&run.join("metrics.jsonl"));
    let of = |phase: &str| metrics.iter().filter(|line| line["phase"] == phase).collect::<Vec<_>>();
    let (cold, reason) = (of("cold-start"), of("reason"));
    assert_eq!(cold.len(), 6, "five steps and the evaluation before them");
    assert_eq!(reason.len(), 7, "six steps and the evaluation before them");
    assert!(
        cold[5]["loss"].as_f64() < cold[1]["loss"].as_f64(),
        "the loss falls from {} to {}",
        cold[1]["loss"],
        cold[5]["loss"]
    );
    for line in &reason[1..] {
        // One mind: the learner's log-probabilities are the sampler's.
        assert_eq!(line["sampling/sampling_logp_difference/max"], 0.0, "{line}");
    }
    for step in [0, 3, 6] {
        assert!(reason[step]["eval/arithmetic/pass@1"].is_number(), "step {step} is evaluated: {}", reason[step]);
    }
    for file in [
        "rollouts/step-000006.parquet",
        "checkpoints/step-000006/model.safetensors",
        "checkpoints/step-000006/config.json",
    ] {
        assert!(run.join("phases/reason").join(file).is_file(), "there is no {file}");
    }
    let reference = run.join("phases/reason/checkpoints/step-000006/reference-update/model.safetensors");
    assert!(reference.is_file(), "the reference model is committed");
}

#[test]
fn a_family_of_problems_is_generated_answered_judged_and_learned() {
    let file = root().join("pipelines/countdown.toml").to_string_lossy().into_owned();
    let mut arguments = vec!["run".to_owned(), file];
    let sets = [
        "run.dir=runs",
        "phases.cold-start.run.steps=3",
        "phases.cold-start.stages.solutions.prompts_per_step=64",
        "phases.cold-start.stages.solutions.count=500",
        "phases.cold-start.stages.imitate.minibatches=2",
        "phases.cold-start.evaluations.countdown.count=8",
        "phases.reason.run.steps=3",
        "phases.reason.stages.problems.prompts_per_step=4",
        "phases.reason.stages.sample.group_size=4",
        "phases.reason.stages.keep.config.low=0",
        "phases.reason.evaluations.countdown.count=8",
    ];
    arguments.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
    let folder = Folder::new();
    // An untrained model is never right, which is said.
    folder.run(arguments).expect(0, &["cold-start", "reason", "pass@1", "all rewards of step 1 are 0"]);
    let metrics = lines(&folder.path("runs/countdown/0001/metrics.jsonl"));
    let steps: Vec<_> = metrics.iter().filter(|line| line["phase"] == "reason" && line["reward"].is_number()).collect();
    assert_eq!(steps.len(), 3);
    assert!(steps.iter().all(|line| line["undecided/accuracy"] == 0.0), "the family judges what it asks: {steps:?}");
    assert!(steps.iter().all(|line| line["updates"] == 0.0 && line["loss"].is_null()), "no step is taken: {steps:?}");
}

#[test]
fn no_sampling_option_parts_the_learner_from_the_sampler() {
    let options = [
        "repetition_penalty=1.1",
        "temperature=0.8",
        "top_k=18",
        "top_p=0.95",
        "min_p=0.01",
        "stop=[\"99\", \"=<\"]",
        "stop_tokens=[\"<user>\", 7]",
    ];
    let mut arguments = small_quickstart();
    let set = |option: &&str| ["--set".to_owned(), format!("phases.reason.stages.sample.{option}")];
    arguments.extend(options.iter().flat_map(set));
    let folder = Folder::new();
    folder.run(arguments).expect(0, &["pass@1"]);
    let metrics = lines(&folder.path("runs/quickstart/0001/metrics.jsonl"));
    let steps = metrics.iter().filter(|line| line["phase"] == "reason" && line["loss"].is_number());
    let differences = steps.map(|line| {
        let of = |what: &str| line[format!("sampling/sampling_logp_difference/{what}")].clone();
        assert!(of("max") == 0.0 && of("mean") == 0.0, "{line}");
    });
    assert_eq!(differences.count(), 6);
}

#[test]
fn threads_change_no_byte() {
    let (_folder, one) = reference();
    let folder = Folder::new();
    let mut arguments = small_quickstart();
    arguments.extend(["--set".to_owned(), "run.threads=3".to_owned()]);
    folder.run(arguments).expect(0, &[]);
    assert_same(&one, &folder.path("runs/quickstart/0001"));
}

/// Ends a process the hard way after some time, if it has not ended before.
fn kill_after(child: &mut Child, time: Duration) {
    std::thread::sleep(time);
    let _ = child.kill();
    child.wait().expect("a killed process can be waited for");
}

#[test]
fn a_run_that_was_killed_again_and_again_ends_with_the_same_bytes() {
    let (_folder, whole) = reference();
    let folder = Folder::new();
    let run = folder.path("runs/quickstart/0001");
    let mut child = folder.start(small_quickstart());
    // The first kill comes once the run has begun; the others land wherever they do.
    let started = Instant::now();
    while !run.join("metrics.jsonl").exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "the run does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_after(&mut child, Duration::from_millis(60));
    for pause in [350, 430, 510, 630, 790] {
        let mut child = folder.start(["resume", &run.to_string_lossy()]);
        kill_after(&mut child, Duration::from_millis(pause));
    }
    folder.run(["resume", &run.to_string_lossy()]).expect(0, &["pass@1"]);
    assert_same(&whole, &run);
    folder.run(["resume", &run.to_string_lossy()]).expect(0, &["there is nothing to resume: the run has ended"]);
    assert_same(&whole, &run);
}

/// The quickstart with all that a later step may depend on: a filter that asks for more, a sampler that goes ahead, several
/// passes over a step, corrections of the sampler, replayed experts, an averaged reference.
fn in_rounds_and_ahead() -> Vec<String> {
    let sets = [
        "phases.reason.stages.sample.ahead=1",
        // Half of the prompts of a round are left: two rounds make four groups, of which one waits for the next step.
        "phases.reason.stages.keep.where=\"prompt_id % 2 == 0\"",
        "phases.reason.stages.keep.refill={ until = 3, at_most = 2 }",
        "phases.reason.run.checkpoint.every=1",
        "phases.reason.stages.update.algorithm=\"dapo\"",
        "phases.reason.stages.update.minibatches=2",
        "phases.reason.stages.update.epochs=2",
        "phases.reason.stages.update.kl={ coefficient = 0.01, average = 0.6, refresh_every = 2 }",
        "phases.reason.stages.update.entropy=0.001",
        "phases.reason.stages.update.overlong=\"mask\"",
        "phases.reason.stages.update.importance_sampling={ level = \"token\", mode = \"truncate\" }",
        "phases.reason.stages.update.replay_experts=true",
    ];
    let mut arguments = small_quickstart();
    arguments.extend(sets.into_iter().flat_map(|set| ["--set".to_owned(), set.to_owned()]));
    arguments
}

#[test]
fn with_everything_switched_on_a_killed_run_ends_with_the_same_bytes() {
    let folder = Folder::new();
    let mut arguments = in_rounds_and_ahead();
    arguments.extend(["--set".to_owned(), "run.threads=1".to_owned()]);
    folder.run(&arguments).expect(0, &["pass@1"]);
    let whole = folder.path("runs/quickstart/0001");
    let metrics = lines(&whole.join("metrics.jsonl"));
    let steps: Vec<_> = metrics.iter().filter(|line| line["phase"] == "reason" && line["loss"].is_number()).collect();
    assert_eq!(steps.len(), 6);
    let column = |name: &str| steps.iter().map(|line| line[name].as_f64()).collect::<Option<Vec<_>>>();
    let (rounds, surplus) = (column("filter/keep/rounds"), column("filter/keep/surplus"));
    assert!(rounds.is_some_and(|rounds| rounds.contains(&1.0) && rounds.contains(&2.0)), "{steps:?}");
    assert!(surplus.is_some_and(|surplus| surplus.contains(&1.0) && surplus.contains(&0.0)), "{steps:?}");
    assert_eq!(column("groups_learned"), Some(vec![3.0; 6]));
    let lag = column("sampling/policy_lag/mean").expect("it is logged");
    assert_eq!(lag[0], 0.0, "the first step waits for its own samples");
    assert!(lag[1..].iter().all(|lag| *lag > 0.0), "the others were sampled before: {lag:?}");
    let difference = column("sampling/sampling_logp_difference/max").expect("it is logged");
    // The first update has a learning rate of 0.
    assert_eq!(difference[..2], [0.0; 2]);
    assert!(difference[2..].iter().all(|difference| *difference > 0.0), "{difference:?}");

    let folder = Folder::new();
    let run = folder.path("runs/quickstart/0001");
    let mut child = folder.start(in_rounds_and_ahead());
    let checkpoint = run.join("phases/reason/checkpoints/step-000001");
    let started = Instant::now();
    while !checkpoint.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "no step is committed");
        std::thread::sleep(Duration::from_millis(2));
    }
    kill_after(&mut child, Duration::from_millis(20));
    for pause in [300, 400] {
        let mut child = folder.start(["resume", &run.to_string_lossy()]);
        kill_after(&mut child, Duration::from_millis(pause));
    }
    folder.run(["resume", &run.to_string_lossy()]).expect(0, &["pass@1"]);
    assert_same(&whole, &run);
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "the signal could be sent");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_after_the_step_and_twice_at_once() {
    // Steps long enough that a signal comes in the middle of the first.
    let long = ["phases.cold-start.run.steps=2", "phases.cold-start.stages.traces.prompts_per_step=2048"];
    let mut arguments = small_quickstart();
    arguments.extend(long.into_iter().flat_map(|set| ["--set".to_owned(), set.to_owned()]));
    let folder = Folder::new();
    folder.run(&arguments).expect(0, &[]);
    let whole = folder.path("runs/quickstart/0001");
    for twice in [false, true] {
        let folder = Folder::new();
        let run = folder.path("runs/quickstart/0001");
        let child = folder.start(&arguments);
        let started = Instant::now();
        // The line of the evaluation before the first step.
        while fs::metadata(run.join("metrics.jsonl")).map_or(0, |file| file.len()) == 0 {
            assert!(started.elapsed() < Duration::from_secs(120), "the run does not begin");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(100));
        interrupt(&child);
        if twice {
            std::thread::sleep(Duration::from_millis(50));
            interrupt(&child);
        }
        let said = said(child.wait_with_output().expect("the process ends"));
        said.expect(3, &[if twice { "stopped; what was committed is kept" } else { "go on with: pipeline resume" }]);
        let checkpoints = run.join("phases/cold-start/checkpoints");
        let committed = fs::read_dir(&checkpoints).map(Iterator::count).unwrap_or_default();
        assert_eq!(committed, usize::from(!twice), "the first signal commits the step, the second nothing");
        let said = folder.run(["resume", &run.to_string_lossy()]);
        said.expect(0, &[if twice { "starts from its beginning" } else { "goes on from its checkpoint of step 1" }]);
        assert_same(&whole, &run);
    }
}

#[test]
fn adapters_learn_go_on_after_damage_and_are_merged_with_the_same_bytes() {
    let folder = Folder::new();
    let quickstart = root().join("pipelines/quickstart");
    let with = |file: PathBuf, sets: &[&str]| -> Vec<String> {
        let sets = ["run.dir=runs"].iter().chain(sets).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        ["run".to_owned(), file.to_string_lossy().into_owned()].into_iter().chain(sets).collect()
    };
    let sets = ["run.steps=5", "stages.traces.prompts_per_step=64", "evaluations.arithmetic.count=8"];
    folder.run(with(quickstart.join("cold-start.toml"), &sets)).expect(0, &[]);
    let base = folder.path("runs/cold-start/0001/checkpoints/step-000005");

    let text = fs::read_to_string(quickstart.join("reason.toml")).expect("the quickstart is there");
    let init = text.lines().find(|line| line.starts_with("init = ")).expect("the model has one");
    let lora = "lora = { rank = 4, alpha = 8, targets = [\"q_proj\", \"kv_b_proj\", \"o_proj\"] }";
    let file = folder.write("reason.toml", text.replace(init, &format!("path = {base:?}\n{lora}")));
    let sets = [
        "run.steps=3",
        "run.checkpoint.every=1",
        "stages.problems.prompts_per_step=4",
        "stages.sample.group_size=4",
        "stages.sample.max_tokens=24",
        "plugins.format.builtin=overlong",
        "stages.format.config={ cache = 20 }",
        "stages.keep.drop=[\"truncated\"]",
        "stages.update.kl.refresh_every=2",
        "stages.update.optimizer.learning_rate=1e-2",
        "stages.update.optimizer.warmup=0",
        "evaluations.arithmetic.count=8",
    ];
    for threads in ["run.threads=1", "run.threads=3"] {
        folder.run(with(file.clone(), &[&sets[..], &[threads]].concat())).expect(0, &[]);
    }
    let run = folder.path("runs/reason/0001");
    assert_same(&run, &folder.path("runs/reason/0002"));
    let metrics = lines(&run.join("metrics.jsonl"));
    assert_eq!(metrics.len(), 4, "three steps and the evaluation before them");
    for line in &metrics[1..] {
        assert_eq!(line["sampling/sampling_logp_difference/max"], 0.0, "{line}");
    }
    for line in &metrics[1..3] {
        assert!(line["grad_norm"].as_f64() > Some(0.0), "the adapters learn: {line}");
    }
    let last = run.join("checkpoints/step-000003");
    for (name, kept) in
        [("adapter_model.safetensors", true), ("adapter_config.json", true), ("model.safetensors", false)]
    {
        assert_eq!(last.join(name).exists(), kept, "{name} of the checkpoint");
        assert_eq!(last.join("reference-update").join(name).exists(), kept, "{name} of the reference model");
    }

    let numbers = last.join("adapter_model.safetensors");
    let mut bytes = fs::read(&numbers).expect("the checkpoint is there");
    let whole = exact_files(&run);
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(&numbers, bytes).expect("it can be written");
    folder.run(["resume", "runs/reason/0001"]).expect(0, &["is damaged", "checkpoint of step 2"]);
    let mut after = exact_files(&run);
    after.retain(|name, _| !name.contains(".damaged"));
    assert!(whole == after, "the resumed run ends with the same bytes");

    let (base, last) = (base.to_string_lossy(), last.to_string_lossy());
    for out in ["one", "two"] {
        folder.run(["model", "merge", &base, "--adapter", &last, "--out", out]).expect(0, &[]);
        folder.run(["model", "merge", &base, "--adapter", &last, "--out", out]).expect(2, &["is there already"]);
    }
    let weights = |path: PathBuf| fs::read(path.join("model.safetensors")).expect("a model folder has weights");
    assert!(weights(folder.path("one")) == weights(folder.path("two")));
    assert_ne!(weights(folder.path("one")), weights(PathBuf::from(&*base)), "the adapters are in the weights");
    folder.run(["model", "info", "one"]).expect(0, &[]);
}
