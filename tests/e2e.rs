//! The main job on small numbers: every part runs, the same bytes come out of it whatever happens on the way.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use support::{Folder, assert_same, lines, said, small_quickstart};

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
