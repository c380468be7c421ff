//! Every language of the SDK: `plugin new`, `plugin build`, the template's own tests, and one table of completions on which all
//! must give the same verdicts.
//!
//! A language whose compiler is not there is skipped with a printed line. With `PIPELINE_ALL_LANGUAGES=1` all must be there, and
//! what PyPI and npm have is fetched. `PIPELINE_RUST_GUESTS` may name a file of lines `KEY=VALUE`: the environment in which cargo
//! builds for WebAssembly (`.ci/toolchains` prints it).
#![allow(clippy::print_stdout, reason = "what is skipped, and what is measured, is printed")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Instant;

use author::{Budget, LANGUAGES, Language};
use base::{Completion, Context, Finding, Finish, Group, Message, Prompt, RoutedExperts, Verdict};
use host::{Host, Options};
use serde_json::{Value, json};
use spec::{Files, PluginSource};

/// A group that is judged, and what every language must say of its completions.
struct Case {
    config: Value,
    reference: Option<&'static str>,
    verdicts: Vec<(String, Verdict)>,
}

fn cases() -> Vec<Case> {
    let texts = |verdicts: Vec<(&str, Verdict)>| verdicts.into_iter().map(|(text, v)| (text.to_owned(), v)).collect();
    let mut many: Vec<(String, Verdict)> = (0..64)
        .map(|i| (format!("<answer>{i}</answer>"), if i == 7 { right("7") } else { wrong(&i.to_string(), "7") }))
        .collect();
    many.push((format!("{}<answer>7</answer>", "so it goes. ".repeat(4_000)), right("7")));
    vec![
        Case {
            config: json!({}),
            reference: Some("4"),
            verdicts: texts(vec![
                ("<answer>4</answer>", right("4")),
                ("so: <answer>\r\n\t 4 </answer>.", right("4")),
                ("<answer>5</answer>", wrong("5", "4")),
                ("<answer>5</answer> no, <answer>4</answer>", right("4")),
                ("<answer>4</answer> no, <answer>5</answer>", wrong("5", "4")),
                ("<answer>4</answer></answer>", right("4")),
                ("<answer>4</answer><answer>", absent("<answer>")),
                ("<answer><answer>4</answer>", right("4")),
                ("<answer>4<answer/>", absent("<answer>")),
                ("</answer>4<answer>", absent("<answer>")),
                ("<answer></answer>", wrong("", "4")),
                ("<answer>  </answer>", wrong("", "4")),
                ("<Answer>4</Answer>", absent("<answer>")),
                ("4", absent("<answer>")),
                ("", absent("<answer>")),
                ("<", absent("<answer>")),
                ("<answer>4.0</answer>", wrong("4.0", "4")),
                ("<answer>a \"b\" \\ c</answer>", wrong("a \"b\" \\ c", "4")),
                ("<answer>a\u{0}b</answer>", wrong("a\u{0}b", "4")),
            ]),
        },
        Case {
            config: json!({}),
            reference: Some(" ä€😀 "),
            verdicts: texts(vec![
                ("é <answer>ä€😀</answer> 😀", right("ä€😀")),
                ("<answer>ä€</answer>", wrong("ä€", "ä€😀")),
                ("<answer>ä€😀\u{301}</answer>", wrong("ä€😀\u{301}", "ä€😀")),
            ]),
        },
        Case {
            config: json!({}),
            reference: Some(""),
            verdicts: texts(vec![("<answer></answer>", right("")), ("<answer>0</answer>", wrong("0", ""))]),
        },
        Case {
            config: json!({ "tag": "solution" }),
            reference: Some("4"),
            verdicts: texts(vec![
                ("<solution>4</solution>", right("4")),
                ("<answer>4</answer>", absent("<solution>")),
                ("<solution>4</answer>", absent("<solution>")),
            ]),
        },
        Case {
            config: json!({}),
            reference: None,
            verdicts: texts(vec![
                ("<answer>4</answer>", Verdict::Undecided("the prompt has no reference".into())),
                ("", Verdict::Undecided("the prompt has no reference".into())),
            ]),
        },
        Case { config: json!({}), reference: Some("7"), verdicts: many },
        Case { config: json!({}), reference: Some("7"), verdicts: Vec::new() },
    ]
}

fn decided(score: f64, answer: Option<&str>, note: Option<String>) -> Verdict {
    Verdict::Decided(Finding { score, answer: answer.map(Into::into), metrics: Vec::new(), note })
}
fn right(answer: &str) -> Verdict {
    decided(1.0, Some(answer), None)
}
fn wrong(answer: &str, expected: &str) -> Verdict {
    decided(0.0, Some(answer), Some(format!("expected {expected}")))
}
fn absent(tag: &str) -> Verdict {
    decided(0.0, None, Some(format!("there is no {tag}")))
}

fn group(case: &Case) -> Group {
    let completion = |(text, _): &(String, Verdict)| {
        Arc::new(Completion {
            tokens: Vec::new(),
            loss_mask: Vec::new(),
            text: text.clone(),
            finish: Finish::Stop,
            logprobs: Vec::new(),
            weights_version: 0,
            experts: RoutedExperts::default(),
        })
    };
    Group {
        step: 3,
        index: 0,
        prompt: Arc::new(Prompt {
            id: u64::MAX,
            source: "sums".into(),
            messages: vec![
                Message { role: "system".into(), content: "Answer.".into() },
                Message { role: "user".into(), content: "2+2?".into() },
            ],
            text: String::new(),
            tokens: Vec::new(),
            reference: case.reference.map(Into::into),
            response: None,
            learned: Vec::new(),
            fields: vec![("level".into(), "2".into()), ("steps".into(), "[1,2]".into())],
        }),
        completions: case.verdicts.iter().map(completion).collect(),
        judgements: Vec::new(),
        rewards: Vec::new(),
        decisions: Vec::new(),
    }
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == "1")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn pipeline(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.arg("plugin").args(args).current_dir(folder);
    command
}

/// Makes, builds and tests the plugin of a language and holds its verdicts against the table; a message for what is wrong, a
/// line for what was done.
fn conform(language: Language, folder: &Path, host: &Host, cache: &Path) -> Result<String, String> {
    let all = is_set("PIPELINE_ALL_LANGUAGES");
    let name = format!("in-{}", language.name);
    let output = pipeline(&["new", &name, "--lang", language.name], folder).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("new: {}", said(&output)));
    }

    let mut build = pipeline(&["build", &name], folder);
    if all {
        build.arg("--install");
    }
    if language.name == "rust"
        && let Ok(file) = std::env::var("PIPELINE_RUST_GUESTS")
    {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        build.envs(text.lines().filter_map(|line| line.split_once('=')));
    }
    let start = Instant::now();
    let output = build.output().map_err(|e| e.to_string())?;
    let built = start.elapsed().as_secs_f64();
    if !output.status.success() {
        let said = said(&output);
        if !all && said.contains(" is not there; ") {
            return Ok(format!("skipped: {}", said.trim()));
        }
        return Err(format!("build: {said}"));
    }

    let opened =
        author::open(&folder.join(&name), Budget::default(), &mut Files::default()).map_err(|e| e.to_string())?;
    let (PluginSource::Wasm(path) | PluginSource::Rhai(path)) = &opened.source else {
        return Err("a template is no builtin".into());
    };
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let start = Instant::now();
    let plugin = opened.load(host).map_err(|error| error.to_string())?;
    let loaded = start.elapsed().as_secs_f64();
    let mut problems = String::new();
    for case in cases() {
        let configured = plugin.configure(&case.config).map_err(|error| format!("configure: {error:?}"))?;
        let ctx = Context { step: 3, seed: u64::MAX, max_tokens: 1024, evaluating: true };
        let verdicts = configured.verify(&ctx, &group(&case)).map_err(|error| error.to_string())?;
        if verdicts.len() != case.verdicts.len() {
            problems += &format!("{} verdicts for {} completions\n", verdicts.len(), case.verdicts.len());
        }
        for ((text, expected), got) in case.verdicts.iter().zip(&verdicts) {
            if expected != got {
                let text: String = text.chars().take(80).collect();
                problems += &format!("{text:?} with {}: expected {expected:?}, got {got:?}\n", case.config);
            }
        }
    }
    for refused in [json!({ "tag": 4 }), json!({ "tga": "answer" }), json!({ "tag": "</x>" })] {
        if plugin.configure(&refused).is_ok() {
            problems += &format!("the config {refused} was not refused\n");
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }

    let output = pipeline(&["test", &name], folder).env("XDG_CACHE_HOME", cache).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("test: {}", said(&output)));
    }
    let call = cost(&plugin);
    Ok(format!("built in {built:.1} s, {size} bytes, compiled in {loaded:.2} s; {call}"))
}

/// What calls with 1 and with 64 completions of 2 KB take at best, and their fuel (a script's operations).
fn cost(plugin: &host::Plugin) -> String {
    let text = format!("{}<answer>7</answer>", "so it goes. ".repeat(170));
    let of = |count: usize| Case {
        config: json!({}),
        reference: Some("7"),
        verdicts: vec![(text.clone(), right("7")); count],
    };
    let ctx = Context { step: 0, seed: 0, max_tokens: 1024, evaluating: false };
    let mut parts = Vec::new();
    for count in [1, 64] {
        let Ok(configured) = plugin.configure(&json!({})) else { return "not measured".into() };
        let group = group(&of(count));
        let once = |_| {
            let start = Instant::now();
            let _ = configured.verify(&ctx, &group);
            start.elapsed().as_secs_f64() * 1e6
        };
        let best = (0..20).map(once).fold(f64::INFINITY, f64::min);
        let spent = configured.spent();
        parts.push(format!("{count}: {best:.0} us, {} fuel", (spent.fuel + spent.operations) / spent.calls.max(1)));
    }
    parts.join("; ")
}

#[test]
fn every_language_gives_the_same_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let host = Host::new(Options { cache: Some(cache.join("pipeline/compiled")), ..Options::default() }).unwrap();
    let only = std::env::var("PIPELINE_LANGUAGE").ok(); // one of them, while its template is written
    let mut failed = Vec::new();
    for language in LANGUAGES.into_iter().filter(|language| only.as_deref().is_none_or(|only| only == language.name)) {
        match conform(language, folder.path(), &host, &cache) {
            Ok(line) => println!("{:14} {line}", language.name),
            Err(problem) => {
                println!("{:14} FAILED\n{problem}", language.name);
                failed.push(language.name);
            }
        }
    }
    assert!(failed.is_empty(), "these languages differ: {failed:?}");
}
