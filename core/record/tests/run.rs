//! A run's folder as its user sees it: who may use it, what it says, how it is resumed.

mod common;

use std::fs;
use std::process::Command;

use common::{create, fill, groups, newest, nothing, relative, resolved};
use record::dataset::{self, Rows};
use record::{Answer, Answered, CollectedRow, Error, Mark, RunFolder};
use serde_json::json;

/// The dataset's file once it is finished.
fn finished(kept: &record::Collected) -> std::path::PathBuf {
    kept.finish().expect("a dataset");
    kept.path()
}

#[test]
fn runs_are_numbered_and_the_newest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(RunFolder::latest(dir.path(), "demo").unwrap(), None);
    let first = create(dir.path());
    let second = create(dir.path());
    assert!(first.path().ends_with("demo/0001"));
    assert!(second.path().ends_with("demo/0002"));
    // A process that was killed before its run was born leaves a number behind and no run.
    fs::create_dir(dir.path().join("demo/0003")).unwrap();
    assert_eq!(RunFolder::latest(dir.path(), "demo").unwrap().unwrap(), second.path());
    assert!(create(dir.path()).path().ends_with("demo/0004"));
    assert_eq!(fs::read_to_string(first.path().join("pipeline.toml")).unwrap(), common::PIPELINE);
}

#[test]
fn a_name_that_is_a_path_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", "..", "a/b", ".hidden", "a b", "a\nb"] {
        let refused = RunFolder::create(dir.path(), name, "", &json!({}));
        assert!(matches!(refused, Err(Error::Name { .. })), "{name:?}");
    }
    assert!(matches!(create(dir.path()).phase(Some("../x")), Err(Error::Name { .. })));
}

#[test]
fn another_file_is_refused_and_told_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let path = create(dir.path()).path().to_owned();
    let run = RunFolder::open(&path).unwrap();
    run.require(&resolved()).unwrap();
    let mut other = resolved();
    other["run"]["steps"] = json!(6);
    other["kl"] = json!(null);
    let message = run.require(&other).unwrap_err().to_string();
    assert!(message.contains("was started from other inputs: `kl`"), "{message}");
    let advice = format!(
        "here; resume with the file, data and plugins it was started with (its text is `{}`) and the same --set, or name \
         the run's folder, which knows them; or start a new run",
        path.join("pipeline.toml").display()
    );
    assert!(message.ends_with(&advice), "{message}");
    assert!(message.contains("`kl` is only here, `run.steps` is 5 there and 6 here"), "{message}");
    drop(run);

    assert!(matches!(RunFolder::open(dir.path()), Err(Error::NotARun { missing: "pipeline.toml", .. })));
    let lock = fs::read_to_string(path.join("lock.json")).unwrap();
    fs::write(path.join("lock.json"), lock.replace("17", "18")).unwrap();
    assert!(matches!(RunFolder::open(&path), Err(Error::Changed { .. })));
    fs::write(path.join("lock.json"), &lock[..40]).unwrap();
    assert!(matches!(RunFolder::open(&path), Err(Error::NotARun { missing: "lock.json", .. })));
}

#[test]
fn a_second_user_is_refused_until_the_first_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    let path = run.path().to_owned();
    let clone = run.clone();
    drop(run);
    let refused = RunFolder::open(&path).err().unwrap();
    let id = std::process::id();
    assert!(matches!(refused, Error::Locked { process: Some(process), .. } if process == id), "{refused}");
    // Another process is refused as well.
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_opens_the_folder", "--ignored", "--nocapture"])
        .env("RECORD_TEST_FOLDER", &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains(&format!("in use by process {id}")), "{text}");
    drop(clone);
    RunFolder::open(&path).unwrap();
}

#[test]
#[ignore = "the second process of another test"]
fn child_opens_the_folder() {
    let path = std::env::var("RECORD_TEST_FOLDER").unwrap();
    println!("{}", RunFolder::open(path.as_ref()).err().unwrap());
}

#[test]
fn metrics_are_flat_lines_in_the_order_given() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    run.metrics().append("reason", 3, &[("reward", 0.1), ("kl", f64::NAN), ("completions/mean_length", 12.0)]).unwrap();
    run.metrics().append("reason", 4, &[("reward".to_owned(), 1e-300)]).unwrap();
    let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
    let expected = "{\"phase\":\"reason\",\"step\":3,\"reward\":0.1,\"kl\":null,\"completions/mean_length\":12.0}\n\
                    {\"phase\":\"reason\",\"step\":4,\"reward\":1e-300}\n";
    assert_eq!(text, expected);
    run.events().append("rewound", &[("to", json!(3))]).unwrap();
    let events = fs::read_to_string(run.path().join("events.jsonl")).unwrap();
    assert!(
        events.starts_with("{\"time\":\"20") && events.ends_with("Z\",\"event\":\"rewound\",\"to\":3}\n"),
        "{events}"
    );
}

#[test]
fn a_line_that_was_cut_by_a_kill_is_gone_after_opening() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    run.metrics().append("p", 1, &[("a", 1.0)]).unwrap();
    let file = run.path().join("metrics.jsonl");
    let path = run.path().to_owned();
    drop(run);
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{whole}{{\"phase\":\"p\",\"st")).unwrap();
    let run = RunFolder::open(&path).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), whole);
    run.metrics().append("p", 2, &[("a", 2.0)]).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
}

fn row(n: u64, name: &str) -> CollectedRow {
    CollectedRow {
        prompt: vec![base::Message { role: "user".to_owned(), content: format!("question {n}") }],
        answer: Answer::One { response: format!("answer \"{n}\""), reward: Some(0.5) },
        reference: (n > 0).then(|| n.to_string()),
        source: "math".to_owned(),
        step: n,
        fields: vec![(name.to_owned(), format!("x{n}"))],
    }
}

/// Steps `from..to` of a small run that does everything, with a commit after every second step and at the end.
fn work(run: &RunFolder, from: u64, to: u64) {
    let phase = run.phase(Some("reason")).expect("a phase");
    for step in from..to {
        phase.rollouts().write(step, &groups(), &[vec![0.5, -0.5], vec![]]).expect("rollouts");
        for name in ["kept.jsonl", "kept.parquet"] {
            phase.collected(name).and_then(|kept| kept.append(&[row(step, "level")])).expect("rows");
        }
        run.metrics().append("reason", step, &[("reward", step as f64 / 3.0)]).expect("metrics");
        run.timing().append("reason", step, &[("step_time", f64::from(std::process::id()))]).expect("timing");
        if step == 7 {
            for name in ["kept.jsonl", "kept.parquet"] {
                phase.collected(name).and_then(|kept| kept.finish()).expect("a dataset");
            }
        }
        if step % 2 == 1 {
            let weights = format!("weights of {step}");
            phase
                .checkpoints()
                .write(step + 1, newest(2), &json!({ "b": 0.1 + 0.2, "a": step }), fill(&weights))
                .expect("a commit");
        }
    }
}

#[test]
fn a_resumed_run_ends_with_the_bytes_of_one_that_was_not_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let (straight, broken) = (dir.path().join("straight"), dir.path().join("broken"));
    let run = create(&straight);
    work(&run, 0, 8);
    assert!(!run.path().join("phases/reason/collected/.rows-kept.jsonl").exists());

    let run = create(&broken);
    let path = run.path().to_owned();
    work(&run, 0, 1);
    drop(run);
    for end in [5, 7, 8] {
        let run = RunFolder::open(&path).unwrap();
        let latest = run.phase(Some("reason")).unwrap().checkpoints().latest().unwrap();
        assert_eq!(latest.damaged, []);
        let (step, mark) = latest.checkpoint.map_or((0, Mark::default()), |found| (found.step, found.mark));
        let rewound = run.rewind(&mark).unwrap();
        assert_eq!(rewound.lost, Vec::<std::path::PathBuf>::new());
        work(&run, step, end);
    }
    // The finished run is opened once more: nothing changes.
    let run = RunFolder::open(&path).unwrap();
    let latest = run.phase(Some("reason")).unwrap().checkpoints().latest().unwrap().checkpoint.unwrap();
    assert_eq!((latest.step, &latest.state), (8, &json!({ "a": 7, "b": 0.1 + 0.2 })));
    run.rewind(&latest.mark).unwrap();
    assert_eq!(relative(&straight), relative(&broken));
    let names: Vec<_> = relative(&path).into_iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect();
    assert!(names.contains(&"phases/reason/collected/kept.parquet".to_owned()), "{names:?}");
    assert!(names.contains(&"phases/reason/checkpoints/step-000008/tokenizer/tokenizer.json".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("step-000004/")), "{names:?}");

    let jsonl = Rows::read(&path.join("phases/reason/collected/kept.jsonl")).unwrap();
    let parquet = Rows::read(&path.join("phases/reason/collected/kept.parquet")).unwrap();
    assert_eq!((jsonl.len(), jsonl.columns()), (8, parquet.columns()));
    for row in 0..jsonl.len() {
        for column in jsonl.columns() {
            assert_eq!(jsonl.get(row, column), parquet.get(row, column), "{column}");
        }
    }
    assert_eq!(jsonl.get(1, "prompt"), Some(json!([{ "role": "user", "content": "question 1" }])));
}

#[test]
fn a_rewind_refuses_metrics_that_changed_and_reports_rollouts_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    work(&run, 0, 2);
    let checkpoints = run.phase(Some("reason")).unwrap().checkpoints();
    let mark = checkpoints.latest().unwrap().checkpoint.unwrap().mark;
    let rollouts = run.path().join("phases/reason/rollouts/step-000001.parquet");
    fs::remove_file(&rollouts).unwrap();
    assert_eq!(run.rewind(&mark).unwrap().lost, [rollouts]);
    let metrics = run.path().join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, text.replace("0.0", "9.0")).unwrap();
    assert!(run.rewind(&mark).unwrap_err().to_string().contains("have changed"));
    fs::write(&metrics, &text[..10]).unwrap();
    let message = run.rewind(&mark).unwrap_err().to_string();
    assert!(message.contains(&format!("it has 10 bytes, and had {}", text.len())), "{message}");
}

#[test]
fn a_collected_column_must_not_hide_another() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(None).unwrap();
    let kept = phase.collected("kept.jsonl").unwrap();
    assert!(matches!(kept.append(&[row(1, "reward")]), Err(Error::Shape { .. })));
    assert!(matches!(phase.collected("kept.csv"), Err(Error::Shape { .. })));
    phase.checkpoints().write(0, newest(1), &json!({}), nothing).unwrap();
    assert_eq!(fs::read(finished(&kept)).unwrap(), b"", "a dataset may be empty");
}

#[test]
fn rollouts_repeat_to_the_byte_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(None).unwrap();
    let advantages = [vec![0.875, 0.0], vec![]];
    let path = phase.rollouts().write(4, &groups(), &advantages).unwrap();
    let bytes = fs::read(&path).unwrap();
    phase.rollouts().write(4, &groups(), &advantages).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);

    let rows = Rows::read(&path).unwrap();
    let cell = |row, column| rows.get(row, column).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(cell(0, "phase"), json!("demo"), "a run without phases is named as its metrics are");
    assert_eq!(cell(0, "messages"), json!("[{\"role\":\"user\",\"content\":\"1+1?\\u001b[0m\"}]"));
    assert_eq!(cell(1, "tokens"), json!([9, 9, 9]));
    assert_eq!(cell(1, "finish"), json!("length"));
    assert_eq!(cell(1, "logprobs"), json!([-0.1f32 * 9.0, -0.1f32 * 9.0, -0.1f32 * 9.0]));
    assert_eq!(
        (cell(1, "reward"), cell(1, "decision"), cell(1, "reason")),
        (json!(null), json!("drop"), json!("undecided"))
    );
    assert_eq!(cell(1, "verdicts"), json!("{\"accuracy\":{\"undecided\":\"fuel exhausted\"}}"));
    assert_eq!((cell(0, "advantage"), cell(2, "advantage")), (json!(0.875), json!(null)));
    assert_eq!((cell(3, "prompt_id"), cell(3, "reference")), (json!(u64::MAX), json!(null)));
    assert_eq!((cell(3, "experts"), cell(3, "decision")), (json!([0, 5, 1, 2]), json!("keep")));

    let short = phase.rollouts().write(5, &groups(), &[vec![0.5], vec![]]);
    assert!(matches!(short, Err(Error::Shape { .. })));
    let empty = phase.rollouts().write(6, &[], &[]).unwrap();
    assert!(matches!(Rows::read(&empty), Err(Error::Dataset(dataset::Error::Empty { .. }))));
}

fn answered() -> Vec<Answered> {
    let one = |(group, greedy)| Answered {
        group,
        right: vec![Some(true), None],
        classes: vec![Some(0), None],
        majority: Some(0),
        greedy,
    };
    groups().into_iter().zip([false, true]).map(one).collect()
}

#[test]
fn results_of_an_evaluation_repeat_to_the_byte_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(Some("reason")).unwrap();
    let path = phase.evaluations().write("sums", 40, &answered()).unwrap();
    assert!(path.ends_with("phases/reason/evaluations/sums/step-000040.parquet"));
    assert_eq!(path, phase.evaluations().path("sums", 40));
    let bytes = fs::read(&path).unwrap();
    phase.evaluations().write("sums", 40, &answered()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);

    let rows = Rows::read(&path).unwrap();
    assert_eq!(rows.len(), 4);
    let row = |row, columns: &[&str]| columns.iter().map(|column| rows.get(row, column).unwrap()).collect::<Vec<_>>();
    assert_eq!(
        row(0, &["phase", "evaluation", "step", "question", "completion"]),
        [json!("reason"), json!("sums"), json!(40), json!(7), json!(0)]
    );
    let found = ["text", "length", "finish", "right", "answer", "class", "majority", "greedy"];
    assert_eq!(json!(row(0, &found)), json!(["2", 2, "stop", true, "2", 0, true, false]));
    assert_eq!(json!(row(1, &found)), json!(["three", 3, "length", null, null, null, false, false]));
    assert_eq!(rows.get(3, "greedy"), Some(json!(true)));
    assert_eq!(rows.get(1, "verdicts"), Some(json!("{\"accuracy\":{\"undecided\":\"fuel exhausted\"}}")));

    let mut short = answered();
    short[0].right.pop();
    assert!(matches!(phase.evaluations().write("sums", 41, &short), Err(Error::Shape { .. })));
    assert!(matches!(phase.evaluations().write("../sums", 41, &answered()), Err(Error::Name { .. })));
}

/// An evaluation may have the name of any other part of the folder.
#[test]
fn results_after_the_commit_are_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    let phase = run.phase(None).unwrap();
    for name in ["sums", "collected"] {
        phase.evaluations().write(name, 0, &answered()).unwrap();
    }
    phase.checkpoints().write(1, newest(3), &json!({}), nothing).unwrap();
    let later: Vec<_> =
        ["sums", "collected"].map(|name| phase.evaluations().write(name, 1, &answered()).unwrap()).to_vec();
    let folder = run.path().join("evaluations");
    fs::write(folder.join("notes.md"), "mine").unwrap();
    fs::write(folder.join("sums/notes.md"), "mine").unwrap();
    fs::write(folder.join("sums/.writing-step-000002.parquet"), "half").unwrap();
    let mark = phase.checkpoints().latest().unwrap().checkpoint.unwrap().mark;
    assert!(mark.files.contains_key("evaluations/sums/step-000000.parquet"), "{mark:?}");
    let mut removed = run.rewind(&mark).unwrap().removed;
    removed.sort();
    assert_eq!(removed, [&later[1], &folder.join("sums/.writing-step-000002.parquet"), &later[0]].map(Clone::clone));
    assert!(folder.join("sums/notes.md").exists());
    fs::remove_file(folder.join("collected/step-000000.parquet")).unwrap();
    assert_eq!(run.rewind(&mark).unwrap().lost, [folder.join("collected/step-000000.parquet")]);
    fs::write(folder.join("sums/.writing-step-000003.parquet"), "half").unwrap();
    run.phase(None).unwrap();
    assert!(!folder.join("sums/.writing-step-000003.parquet").exists());
}

/// What readers of the record use: `PYTHON` names an interpreter that has pandas and pyarrow.
#[test]
fn pandas_reads_rollouts_and_collected_rows() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(None).unwrap();
    let rollouts = phase.rollouts().write(4, &groups(), &[vec![0.5, 0.0], vec![]]).unwrap();
    let kept = phase.collected("kept.parquet").unwrap();
    kept.append(&[row(1, "level")]).unwrap();
    let script = "import sys, pandas as pd, pyarrow.parquet as pq
r = pd.read_parquet(sys.argv[1])
assert pq.read_metadata(sys.argv[1]).created_by == 'pipeline'
assert list(r.text) == ['2', 'three', '2', 'three'] and list(r.tokens[1]) == [9, 9, 9] and r.logprobs[0].dtype == 'float32'
assert r.reward.isna().tolist() == [False, True, True, True] and r.prompt_id[2] == 2**64 - 1
k = pd.read_parquet(sys.argv[2])
assert k.prompt[0][0] == {'role': 'user', 'content': 'question 1'} and k.level[0] == 'x1', k";
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !Command::new(&python).args(["-c", "import pandas, pyarrow"]).output().is_ok_and(|found| found.status.success())
    {
        println!("skipped: {python} has no pandas with pyarrow");
        return;
    }
    let output = Command::new(python).args(["-c", script]).arg(rollouts).arg(finished(&kept)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_dataset_that_was_finished_but_not_committed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    let phase = run.phase(None).unwrap();
    let kept = phase.collected("kept.jsonl").unwrap();
    kept.append(&[row(0, "level")]).unwrap();
    phase.checkpoints().write(1, newest(3), &json!({}), nothing).unwrap();
    kept.append(&[row(1, "level"), row(2, "level")]).unwrap();
    let dataset = fs::read(finished(&kept)).unwrap();
    let path = run.path().to_owned();
    drop((run, phase, kept));

    let run = RunFolder::open(&path).unwrap();
    let phase = run.phase(None).unwrap();
    let mark = phase.checkpoints().latest().unwrap().checkpoint.unwrap().mark;
    assert_eq!(run.rewind(&mark).unwrap().removed, [path.join("collected/kept.jsonl")]);
    let kept = phase.collected("kept.jsonl").unwrap();
    kept.append(&[row(1, "level"), row(2, "level")]).unwrap();
    assert_eq!(fs::read(finished(&kept)).unwrap(), dataset);
    phase.checkpoints().write(2, newest(3), &json!({}), nothing).unwrap();
    assert!(!path.join("collected/.rows-kept.jsonl").exists());
}

#[test]
fn the_hash_of_a_file_is_that_of_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    assert_eq!(record::hash_file(&path).unwrap(), blake3::hash(&bytes).to_hex().as_str());
    fs::write(&path, "").unwrap();
    assert_eq!(record::hash_file(&path).unwrap(), blake3::hash(b"").to_hex().as_str());
    let message = record::hash_file(&dir.path().join("absent")).unwrap_err().to_string();
    assert!(message.contains("could not read `") && message.contains("absent"), "{message}");
}

#[test]
fn the_rows_of_a_phase_have_its_name_also_after_opening() {
    let dir = tempfile::tempdir().unwrap();
    let path = create(dir.path()).path().to_owned();
    let run = RunFolder::open(&path).unwrap();
    for (phase, name) in [(None, "demo"), (Some("reason"), "reason")] {
        let phase = run.phase(phase).unwrap();
        let rows = Rows::read(&phase.rollouts().write(1, &groups(), &[vec![], vec![]]).unwrap()).unwrap();
        assert_eq!(rows.get(0, "phase"), Some(json!(name)));
        phase.checkpoints().write(1, newest(1), &json!({}), nothing).unwrap();
        let events = fs::read_to_string(path.join("events.jsonl")).unwrap();
        assert!(events.contains(&format!("\"event\":\"checkpoint\",\"phase\":\"{name}\"")), "{events}");
    }
}

#[test]
fn a_rewind_refuses_a_collected_dataset_that_changed() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    work(&run, 0, 8);
    let mark = run.phase(Some("reason")).unwrap().checkpoints().latest().unwrap().checkpoint.unwrap().mark;
    let metrics = run.path().join("metrics.jsonl");
    for name in ["kept.jsonl", "kept.parquet"] {
        let dataset = run.path().join("phases/reason/collected").join(name);
        let bytes = fs::read(&dataset).unwrap();
        run.rewind(&mark).unwrap();
        run.metrics().append("reason", 9, &[("reward", 1.0)]).unwrap();
        let later = fs::read(&metrics).unwrap();
        // The same length: only the hash tells.
        let mut other = bytes.clone();
        other[bytes.len() / 2] ^= 1;
        for (content, found) in [
            (Some(other), "its bytes have changed".to_owned()),
            (
                Some([bytes.as_slice(), b"x"].concat()),
                format!("it has {} bytes, and had {}", bytes.len() + 1, bytes.len()),
            ),
            (None, "it is gone".to_owned()),
        ] {
            match content {
                Some(content) => fs::write(&dataset, content).unwrap(),
                None => fs::remove_file(&dataset).unwrap(),
            }
            match run.rewind(&mark) {
                Err(Error::Changed { path, found: what }) => assert_eq!((path, what), (dataset.clone(), found)),
                other => panic!("{other:?}"),
            }
            assert_eq!(fs::read(&metrics).unwrap(), later, "nothing is cut where the run can't go on");
        }
        fs::write(&dataset, &bytes).unwrap();
        assert_eq!(run.rewind(&mark).unwrap().lost, Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn a_rewind_leaves_what_is_not_the_runs() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    work(&run, 0, 2);
    let phase = run.phase(Some("reason")).unwrap();
    let mark = phase.checkpoints().latest().unwrap().checkpoint.unwrap().mark;
    let mine = [
        "phases/notes.txt",
        "phases/reason/rollouts/notes.md",
        "phases/reason/rollouts/step-000009.parquet.bak",
        "phases/reason/rollouts/step-9.parquet",
        "phases/reason/rollouts/best/step-000009.parquet",
        "phases/reason/collected/notes.md",
        "phases/reason/collected/cleaned.jsonl",
        "phases/reason/collected/old/kept.jsonl",
        "rollouts/README",
    ];
    for name in mine {
        fs::create_dir_all(run.path().join(name).parent().unwrap()).unwrap();
        fs::write(run.path().join(name), "mine").unwrap();
    }
    // After the commit: a step, a dataset from a log that the commit knows, one from a log of its own, and halves of files.
    phase.rollouts().write(2, &groups(), &[vec![], vec![]]).unwrap();
    phase.collected("kept.jsonl").unwrap().finish().unwrap();
    let late = phase.collected("late.jsonl").unwrap();
    late.append(&[row(2, "level")]).unwrap();
    late.finish().unwrap();
    for half in ["rollouts/.writing-step-000003.parquet", "collected/.writing-late.jsonl"] {
        fs::write(phase.path().join(half), "half").unwrap();
    }
    let mut removed = run.rewind(&mark).unwrap().removed;
    removed.sort();
    let ours = [
        "collected/.rows-late.jsonl",
        "collected/.writing-late.jsonl",
        "collected/kept.jsonl",
        "collected/late.jsonl",
        "rollouts/.writing-step-000003.parquet",
        "rollouts/step-000002.parquet",
    ];
    assert_eq!(removed, ours.map(|name| phase.path().join(name)));
    assert!(removed.iter().all(|path| !path.exists()));
    for name in mine {
        assert_eq!(fs::read_to_string(run.path().join(name)).unwrap(), "mine", "{name}");
    }
    assert!(phase.path().join("rollouts/step-000001.parquet").is_file());
    assert!(phase.path().join("collected/.rows-kept.jsonl").is_file());
}
