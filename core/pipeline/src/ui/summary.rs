//! What a finished run is told by: a table of its phases, and what the model wrote before and after.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::table::{Align, render};
use super::{escape, say};

/// Prints the summary of the run in a folder to stderr. The run is done, whatever becomes of this.
pub fn print(folder: &Path) {
    match summary(folder) {
        Ok(text) => say(&text),
        Err(error) => say(&format!("warning: there is no summary: {}", escape(&format!("{error:#}")))),
    }
    say(&format!("run folder: {}", escape(&folder.display().to_string())));
}

fn summary(folder: &Path) -> anyhow::Result<String> {
    let metrics = lines(&folder.join("metrics.jsonl"))?;
    let timing = lines(&folder.join("timing.jsonl"))?;
    let events = lines(&folder.join("events.jsonl"))?;
    Ok(format!("\n{}{}", table(&phases(&metrics, &timing)), examples(&events)))
}

type Line = Map<String, Value>;

fn lines(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("{} is damaged", path.display()));
    text.lines().map(parse).collect()
}

/// What the table says of a phase.
#[derive(Default)]
struct Phase {
    steps: u64,
    /// By evaluation and measure: the first number and the last.
    evaluations: IndexMap<String, (f64, f64)>,
    rewards: Vec<f64>,
    length: Option<f64>,
    truncated: Option<f64>,
    tokens: f64,
    step_seconds: f64,
    seconds: f64,
}

fn phases(metrics: &[Line], timing: &[Line]) -> IndexMap<String, Phase> {
    let mut phases: IndexMap<String, Phase> = IndexMap::new();
    for line in metrics {
        let Some(name) = line.get("phase").and_then(Value::as_str) else { continue };
        let phase = phases.entry(name.to_owned()).or_default();
        phase.steps = phase.steps.max(line.get("step").and_then(Value::as_u64).unwrap_or_default());
        for (name, number) in line.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?))) {
            match name {
                "reward" => phase.rewards.push(number),
                "num_tokens" => phase.tokens += number,
                "completions/mean_length" => phase.length = Some(number),
                "completions/clipped_ratio" => phase.truncated = Some(number),
                _ if name.ends_with("/pass@1") || name.ends_with("/greedy") => {
                    phase.evaluations.entry(name.to_owned()).or_insert((number, number)).1 = number;
                }
                // What the model writes unasked, where nothing is sampled to be learned from.
                _ if name.starts_with("eval/") && name.ends_with("/mean_length") && phase.rewards.is_empty() => {
                    phase.length = Some(number);
                }
                _ if name.starts_with("eval/") && name.ends_with("/truncated") && phase.rewards.is_empty() => {
                    phase.truncated = Some(number);
                }
                _ => {}
            }
        }
    }
    for line in timing {
        let Some(phase) = line.get("phase").and_then(Value::as_str).and_then(|name| phases.get_mut(name)) else {
            continue;
        };
        let number = |name: &str| line.get(name).and_then(Value::as_f64).unwrap_or_default();
        phase.step_seconds += number("step_time");
        phase.seconds += number("step_time") + number("timing_s/evaluations");
    }
    phases
}

fn table(phases: &IndexMap<String, Phase>) -> String {
    let mut rows = vec![
        ["phase", "steps", "evaluation", "before", "after", "reward", "length", "truncated", "tokens/s", "seconds"]
            .map(str::to_owned),
    ];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for (name, phase) in phases {
        let mean_reward = phase.rewards.iter().sum::<f64>() / phase.rewards.len() as f64;
        let mut evaluations = phase.evaluations.iter();
        let mut next = || {
            evaluations.next().map(|(name, (before, after))| {
                [escape(name.trim_start_matches("eval/")), format!("{before:.3}"), format!("{after:.3}")]
            })
        };
        let [evaluation, before, after] = next().unwrap_or_else(|| ["-", "-", "-"].map(str::to_owned));
        rows.push([
            escape(name),
            phase.steps.to_string(),
            evaluation,
            before,
            after,
            or_dash((!phase.rewards.is_empty()).then(|| format!("{mean_reward:.3}"))),
            or_dash(phase.length.map(|length| format!("{length:.1}"))),
            or_dash(phase.truncated.map(|share| format!("{share:.3}"))),
            or_dash((phase.step_seconds > 0.0).then(|| format!("{:.0}", phase.tokens / phase.step_seconds))),
            format!("{:.1}", phase.seconds),
        ]);
        while let Some([evaluation, before, after]) = next() {
            let mut row: [String; 10] = Default::default();
            [row[2], row[3], row[4]] = [evaluation, before, after];
            rows.push(row);
        }
    }
    let columns =
        std::array::from_fn::<_, 10, _>(|column| if [0, 2].contains(&column) { Align::Left } else { Align::Right });
    render(&rows.into_iter().map(Vec::from).collect::<Vec<_>>(), &columns)
}

/// The examples of each evaluation of the last phase that has some, from its first to its last step.
fn examples(events: &[Line]) -> String {
    let text_of = |event: &Line, key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
    let of_evaluations = || events.iter().filter(|event| text_of(event, "event").as_deref() == Some("evaluation"));
    let Some(phase) = of_evaluations().next_back().and_then(|event| text_of(event, "phase")) else {
        return String::new();
    };
    // A resumed run has evaluated some steps twice, with the same result.
    let mut by_name: BTreeMap<String, BTreeMap<u64, &Value>> = BTreeMap::new();
    for event in of_evaluations().filter(|event| text_of(event, "phase").as_deref() == Some(&phase)) {
        let (Some(name), Some(step)) = (text_of(event, "name"), event.get("step").and_then(Value::as_u64)) else {
            continue;
        };
        if let Some(examples) = event.get("examples") {
            by_name.entry(name).or_default().insert(step, examples);
        }
    }
    let mut text = String::new();
    for (name, by_step) in &by_name {
        let (Some((first, before)), Some((last, after))) = (by_step.first_key_value(), by_step.last_key_value()) else {
            continue;
        };
        let pairs = before.as_array().into_iter().flatten().zip(after.as_array().into_iter().flatten());
        let _ = writeln!(
            text,
            "\nWhat the model wrote for `{}` after steps {first} and {last} of {}:",
            escape(name),
            escape(&phase)
        );
        for (before, after) in pairs {
            let _ = writeln!(text, "  {}", one_line(&before["prompt"]));
            let _ = writeln!(text, "    before  {}  {}", mark(before), one_line(&before["text"]));
            let _ = writeln!(text, "    after   {}  {}", mark(after), one_line(&after["text"]));
        }
    }
    text
}

fn mark(example: &Value) -> &'static str {
    match example["right"].as_bool() {
        Some(true) => "right",
        Some(false) => "wrong",
        None => "?    ",
    }
}

/// Text on one line, cut where it would fill the screen.
fn one_line(text: &Value) -> String {
    const MOST: usize = 240;
    let text = text.as_str().unwrap_or_default().replace('\n', " ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", escape(&text[..end])),
        None => escape(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        serde_json::from_str(text).expect("a test's own JSON")
    }

    #[test]
    fn the_table_tells_first_and_last_evaluations_and_throughput() {
        let metrics = [
            line(r#"{"phase":"reason","step":0,"eval/sums/pass@1":0.25,"eval/sums/greedy":0.5}"#),
            line(r#"{"phase":"reason","step":1,"reward":0.5,"num_tokens":100,"completions/mean_length":10}"#),
            line(
                r#"{"phase":"reason","step":2,"reward":1.0,"num_tokens":300,"completions/mean_length":12,"completions/clipped_ratio":0.125,"eval/sums/pass@1":0.875,"eval/sums/greedy":1}"#,
            ),
        ];
        let timing = [
            line(r#"{"phase":"reason","step":1,"step_time":1.5}"#),
            line(r#"{"phase":"reason","step":2,"step_time":0.5,"timing_s/evaluations":3}"#),
        ];
        let table = table(&phases(&metrics, &timing));
        let expected = "\
phase   steps  evaluation   before  after  reward  length  truncated  tokens/s  seconds
reason      2  sums/pass@1   0.250  0.875   0.750    12.0      0.125       200      5.0
               sums/greedy   0.500  1.000
";
        assert_eq!(table, expected);
    }

    #[test]
    fn examples_are_of_the_last_phase_and_count_a_repeated_step_once() {
        let event = |phase: &str, step: u64, text: &str, right: bool| {
            line(&format!(
                r#"{{"event":"evaluation","phase":"{phase}","step":{step},"name":"sums","examples":[{{"prompt":"1+1=","text":"{text}","right":{right}}}]}}"#
            ))
        };
        let events =
            [event("a", 0, "x", false), event("b", 0, "3", false), event("b", 5, "2", true), event("b", 5, "2", true)];
        let text = examples(&events);
        assert_eq!(
            text,
            "\nWhat the model wrote for `sums` after steps 0 and 5 of b:\n  1+1=\n    before  wrong  3\n    after   right  2\n"
        );
    }
}
