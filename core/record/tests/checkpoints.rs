//! Checkpoints under bad luck: kills, tampering, full and read-only disks.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Tmpfs, create, fill, newest, nothing, relative};
use record::{Error, Keep, RunFolder};
use serde_json::{Value, json};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn the_newest_are_kept_and_state_is_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    let phase = run.phase(None).unwrap();
    let checkpoints = phase.checkpoints();
    for step in [1, 2, 9, 10, 11] {
        checkpoints.write(step, newest(2), &json!({ "z": 1, "a": { "y": 1e-7, "b": null } }), fill("w")).unwrap();
    }
    assert_eq!(checkpoints.steps().unwrap(), [10, 11]);
    let state = fs::read_to_string(run.path().join("checkpoints/step-000011/state.json")).unwrap();
    let parsed: Value = serde_json::from_str(&state).unwrap();
    let keys: Vec<_> = parsed.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["blake3", "files", "format", "run", "state", "step"]);
    assert_eq!(parsed["state"].to_string(), "{\"a\":{\"b\":null,\"y\":1e-7},\"z\":1}");
    assert_eq!(parsed["files"]["model.safetensors"]["blake3"], json!(blake3::hash(b"w").to_hex().as_str()));
    // One that an interrupt made stays until the next, and takes nothing else's place.
    let keep = Keep { newest: 2, every: 5, last: 23 };
    let run = create(&dir.path().join("interrupted"));
    let phase = run.phase(None).unwrap();
    let interrupted = phase.checkpoints();
    let kept = |step| {
        interrupted.write(step, keep, &json!({}), nothing).unwrap();
        interrupted.steps().unwrap()
    };
    assert_eq!(
        [5, 10, 12, 15, 20, 22, 23].map(kept),
        [vec![5], vec![5, 10], vec![5, 10, 12], vec![10, 15], vec![15, 20], vec![15, 20, 22], vec![20, 23]]
    );
    // To keep none is to keep the new one.
    checkpoints.write(12, newest(0), &json!({}), nothing).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [12]);
}

#[test]
fn a_step_that_is_written_again_takes_the_place_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(None).unwrap();
    phase.checkpoints().write(1, newest(3), &json!(1), fill("old")).unwrap();
    phase.checkpoints().write(1, newest(3), &json!(2), fill("new")).unwrap();
    assert_eq!(phase.checkpoints().latest().unwrap().checkpoint.unwrap().state, json!(2));
    assert_eq!(names(&phase.path().join("checkpoints")), ["step-000001"]);
}

#[test]
fn damaged_checkpoints_are_set_aside_and_the_one_before_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(None).unwrap();
    let checkpoints = phase.checkpoints();
    let step = |step: u64| phase.path().join(format!("checkpoints/step-{step:06}"));
    for n in 1..=7 {
        checkpoints.write(n, newest(9), &json!({ "step": n }), fill("0123456789")).unwrap();
    }
    fs::write(step(7).join("model.safetensors"), "0123456780").unwrap();
    fs::write(step(6).join("model.safetensors"), "012345678").unwrap();
    fs::remove_file(step(5).join("tokenizer/tokenizer.json")).unwrap();
    let state = fs::read_to_string(step(4).join("state.json")).unwrap();
    fs::write(step(4).join("state.json"), state.replace("\"step\": 4", "\"step\": 3")).unwrap();
    fs::write(step(3).join("state.json"), "").unwrap();
    fs::remove_dir_all(step(2)).unwrap();
    fs::create_dir(step(2)).unwrap();
    let latest = checkpoints.latest().unwrap();
    assert_eq!(latest.checkpoint.unwrap().state, json!({ "step": 1 }));
    let found: Vec<_> = latest.damaged.iter().map(|damaged| (damaged.step, damaged.reason.as_str())).collect();
    assert_eq!(found[0], (7, "the bytes of `model.safetensors` have changed"));
    assert_eq!(found[1], (6, "`model.safetensors` has 9 bytes, and had 10"));
    assert!(found[2].1.starts_with("`tokenizer/tokenizer.json` can't be read: No such file"), "{found:?}");
    assert_eq!(
        found[3..5],
        [(4, "`state.json` is not as it was written"), (3, "`state.json` is not as it was written")]
    );
    assert!(found[5].1.starts_with("`state.json` can't be read"), "{found:?}");
    assert_eq!(latest.damaged[0].set_aside, step(7).with_extension("damaged"));
    assert!(step(7).with_extension("damaged").join("model.safetensors").exists());
    // A second one of that step gets a name of its own, and prune leaves both alone.
    checkpoints.write(7, newest(9), &json!({}), nothing).unwrap();
    fs::write(step(7).join("state.json"), "x").unwrap();
    let latest = checkpoints.latest().unwrap();
    assert_eq!(latest.damaged[0].set_aside, step(7).with_extension("damaged-2"));
    checkpoints.write(8, newest(1), &json!({}), nothing).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [8]);
    assert!(step(7).with_extension("damaged").exists() && step(7).with_extension("damaged-2").exists());
    // With nothing good left the caller is told so.
    fs::remove_file(step(8).join("state.json")).unwrap();
    let latest = checkpoints.latest().unwrap();
    assert_eq!((latest.checkpoint, latest.damaged.len()), (None, 1));
}

#[test]
fn a_phase_that_was_committed_is_told_from_one_that_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(None).unwrap();
    let checkpoints = phase.checkpoints();
    let at = |name: &str| phase.path().join("checkpoints").join(name);
    assert!(!checkpoints.any_left().unwrap());
    // What a user or a killed process left is no commit.
    for name in ["notes", "step-1", ".writing-step-000009", "step-000001.tar", "step-000001.damaged.txt"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    assert!(!checkpoints.any_left().unwrap());
    checkpoints.write(1, newest(9), &json!({}), fill("w")).unwrap();
    assert!(checkpoints.any_left().unwrap());
    // It counts where nothing in it can be trusted any more.
    for aside in ["step-000001.damaged", "step-000001.damaged-2"] {
        checkpoints.write(1, newest(9), &json!({}), fill("w")).unwrap();
        fs::write(at("step-000001/state.json"), "").unwrap();
        assert_eq!(checkpoints.latest().unwrap().damaged[0].set_aside, at(aside));
        assert!(checkpoints.any_left().unwrap());
    }
    fs::remove_dir_all(at("step-000001.damaged")).unwrap();
    assert!(checkpoints.any_left().unwrap());
    fs::remove_dir_all(at("step-000001.damaged-2")).unwrap();
    assert!(!checkpoints.any_left().unwrap());
}

#[test]
fn a_fill_that_fails_leaves_nothing_behind_and_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let phase = create(dir.path()).phase(None).unwrap();
    phase.checkpoints().write(1, newest(3), &json!({}), fill("good")).unwrap();
    let before = relative(dir.path());
    let full = |path: &Path| {
        fs::write(path.join("model.safetensors"), "half")?;
        Err(std::io::Error::from_raw_os_error(28))
    };
    let message = phase.checkpoints().write(2, newest(3), &json!({}), full).unwrap_err().to_string();
    assert!(message.contains("checkpoints/step-000002"), "{message}");
    assert!(message.ends_with("(os error 28); free some space there and resume, nothing that was committed is lost"));
    // Libraries wrap the system's error so that only its words remain.
    let wrapped = |_: &Path| Err("safetensors: I/O error: Read-only file system (os error 30)");
    let message = phase.checkpoints().write(2, newest(3), &json!({}), wrapped).unwrap_err().to_string();
    assert!(message.contains("choose a folder that can be written with `--set run.dir=DIR`"), "{message}");
    let reserved = |path: &Path| fs::write(path.join("state.json"), "{}");
    assert!(matches!(phase.checkpoints().write(2, newest(3), &json!({}), reserved), Err(Error::Shape { .. })));
    assert_eq!(relative(dir.path()), before);
}

#[test]
#[ignore = "the process that other tests kill"]
fn child_is_killed() {
    let run = RunFolder::open(std::env::var("RECORD_TEST_FOLDER").unwrap().as_ref()).unwrap();
    let phase = run.phase(None).unwrap();
    run.metrics().append("demo", 2, &[("reward", 2.0)]).unwrap();
    let _ = phase.checkpoints().write(2, newest(1), &json!({}), |dir: &Path| {
        fs::write(dir.join("model.safetensors"), "half")?;
        Command::new("kill").args(["-9", &std::process::id().to_string()]).status().map(drop)
    });
}

#[test]
fn a_killed_process_costs_only_what_was_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    let path = run.path().to_owned();
    run.metrics().append("demo", 1, &[("reward", 1.0)]).unwrap();
    run.phase(None).unwrap().checkpoints().write(1, newest(3), &json!({}), fill("good")).unwrap();
    drop(run);
    let before = relative(dir.path());
    let killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_is_killed", "--ignored"])
        .env("RECORD_TEST_FOLDER", &path)
        .output()
        .unwrap();
    assert!(!killed.status.success());
    let half = path.join("checkpoints/.writing-step-000002/model.safetensors");
    assert!(half.exists(), "the child was killed in the middle of a checkpoint: {killed:?}");

    let run = RunFolder::open(&path).unwrap();
    let phase = run.phase(None).unwrap();
    assert!(!half.exists());
    let latest = phase.checkpoints().latest().unwrap().checkpoint.unwrap();
    run.rewind(&latest.mark).unwrap();
    assert_eq!(relative(dir.path()), before);
}

#[test]
fn what_a_kill_left_between_two_renames_is_finished_at_opening() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path());
    let phase = run.phase(None).unwrap();
    for step in 1..=3 {
        phase.checkpoints().write(step, newest(9), &json!(step), fill("w")).unwrap();
    }
    let at = |name: &str| phase.path().join("checkpoints").join(name);
    fs::rename(at("step-000001"), at(".pruned-step-000001")).unwrap();
    fs::rename(at("step-000003"), at(".replaced-step-000003")).unwrap();
    fs::create_dir(at(".replaced-step-000002")).unwrap();
    fs::create_dir(at(".writing-step-000004")).unwrap();
    fs::create_dir_all(phase.path().join("rollouts/.writing-step-000003.parquet")).unwrap();
    let phase = run.phase(None).unwrap();
    assert_eq!(names(&phase.path().join("checkpoints")), ["step-000002", "step-000003"]);
    assert_eq!(names(&phase.path().join("rollouts")), Vec::<String>::new());
    assert_eq!(phase.checkpoints().latest().unwrap().checkpoint.unwrap().state, json!(3));
}

#[test]
fn a_full_disk_leaves_the_previous_checkpoint_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(dir.path(), "256k") else { return };
    let run = create(&disk.0);
    let phase = run.phase(None).unwrap();
    run.metrics().append("demo", 1, &[("reward", 1.0)]).unwrap();
    phase.checkpoints().write(1, newest(3), &json!({}), fill("good")).unwrap();
    let before = relative(&disk.0);

    let large = "x".repeat(300 << 10);
    let error = phase.checkpoints().write(2, newest(3), &json!({}), fill(&large)).unwrap_err();
    assert!(matches!(error, Error::Fill { .. }));
    assert!(error.to_string().contains("No space left on device (os error 28); free some space there"), "{error}");
    assert_eq!(relative(&disk.0), before);

    fs::write(disk.0.join("ballast"), "x".repeat(180 << 10)).unwrap();
    let mut error = None;
    for step in 2..4_000 {
        if let Err(found) = run.metrics().append("demo", step, &[("reward", 0.123_456_789)]) {
            error = Some(found);
            break;
        }
    }
    let error = error.unwrap();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("metrics.jsonl")), "{error}");
    assert!(error.to_string().contains("free some space there and resume"), "{error}");
    let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
    assert!(text.ends_with('\n') && text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    let groups = common::groups();
    let error = phase.rollouts().write(4, &groups, &[vec![], vec![]]).unwrap_err().to_string();
    assert!(error.contains("rollouts") && error.contains("free some space there"), "{error}");

    // Space is made: the run goes on from its commit.
    fs::remove_file(disk.0.join("ballast")).unwrap();
    let latest = phase.checkpoints().latest().unwrap();
    assert_eq!(latest.damaged, []);
    run.rewind(&latest.checkpoint.unwrap().mark).unwrap();
    assert_eq!(relative(&disk.0), before);
    phase.checkpoints().write(2, newest(3), &json!({}), fill("good")).unwrap();
}

#[test]
fn a_read_only_folder_is_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(dir.path(), "1m") else { return };
    let run = create(&disk.0);
    let path = run.path().to_owned();
    drop(run);
    disk.make_read_only();
    for error in
        [RunFolder::open(&path).err().unwrap(), RunFolder::create(&disk.0, "demo", "", &json!({})).err().unwrap()]
    {
        assert!(matches!(error, Error::Io { .. }));
        let text = error.to_string();
        assert!(text.contains("demo/000") && text.contains("choose a folder that can be written"), "{text}");
    }
}
