//! Behaviour of the first-party plugins, as they are built: what their documentation says, held against what they do.
//!
//! Components are read from `$PIPELINE_PLUGINS/NAME/NAME.wasm` where that is set (what `plugins/build.sh --check` just
//! built), and are the committed ones otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base::{Context, Grants, Limits, Verdict};
use common::{Rig, ctx, group, judged, score, scores, undecided, wasm_limits};
use host::{Code, ConfigureError, Configured, World};
use serde_json::{Value, json};

fn plugins() -> PathBuf {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    std::env::var_os("PIPELINE_PLUGINS").map_or(committed, PathBuf::from)
}

fn configured(rig: &Rig, name: &str, config: &Value) -> Configured {
    let path = plugins().join(name).join(format!("{name}.wasm"));
    let plugin = rig.host.load(name, Code::Wasm(&path), &wasm_limits(), &Grants::default()).unwrap();
    plugin.configure(config).unwrap_or_else(|error| panic!("{error}"))
}

/// Pointers of the objections to a config.
fn objections(rig: &Rig, name: &str, config: &Value) -> Vec<String> {
    let path = plugins().join(name).join(format!("{name}.wasm"));
    let limits = Limits { fuel: Some(1_000_000), ..wasm_limits() };
    match rig.host.load(name, Code::Wasm(&path), &limits, &Grants::default()).unwrap().configure(config) {
        Err(ConfigureError::Config { errors }) => errors.into_iter().map(|(path, _)| path).collect(),
        other => panic!("{config}: {other:?}"),
    }
}

/// Score, canonical answer and note of one completion.
fn number(config: &Value, reference: &str, text: &str) -> (f64, Option<String>, String) {
    thread_local! {
        static RIG: Rig = Rig::new();
    }
    RIG.with(|rig| {
        let verdicts = configured(rig, "number", config).verify(&ctx(), &group(Some(reference), &[text])).unwrap();
        match verdicts.into_iter().next() {
            Some(Verdict::Decided(finding)) => (finding.score, finding.answer, finding.note.unwrap_or_default()),
            other => panic!("{text}: {other:?}"),
        }
    })
}

#[test]
fn number_finds_the_answer_where_its_mark_is() {
    let cases = [
        ("<answer>18</answer>", "18"),
        ("<answer>17</answer> no, <answer> It is 18. </answer>", "18"),
        (r"thus \boxed{18}", "18"),
        (r"thus \boxed{\frac{36}{2}}", "18"),
        ("9 + 9 = 18\n#### 18", "18"),
        ("#### 18\nand 19 more words", "18"),
        ("The Answer Is $18. I am sure, 100%", "18"),
        ("there are 9 and 9, so 18 eggs.", "18"),
        ("<answer>1,234,567</answer>", "1234567"),
        (r"\boxed{1{,}234}", "1234"),
        ("#### -5", "-5"),
        ("#### \u{2212}5", "-5"),
        ("<answer>$1.50</answer>", "1.5"),
        ("<answer>3/4</answer>", "0.75"),
        (r"\boxed{\dfrac{1}{3}}", "1/3"),
        ("<answer>.5</answer>", "0.5"),
        ("<answer>007</answer>", "7"),
        ("10-3", "3"),
    ];
    for (text, answer) in cases {
        let (score, found, note) = number(&json!({}), answer, text);
        assert_eq!((score, found.as_deref()), (1.0, Some(answer)), "{text}: {note}");
        let (score, found, _) = number(&json!({}), "999999", text);
        assert_eq!((score, found.as_deref()), (0.0, Some(answer)), "{text}");
    }
}

#[test]
fn number_says_what_it_found_and_what_it_expected() {
    let cases = [
        ("<answer>3</answer>", 0.0, "3 from <answer>, expected 4"),
        ("<answer>4</answer>", 1.0, "4 from <answer>, as expected"),
        ("<answer>four</answer> 4", 0.0, "no number in <answer>, expected 4"),
        ("I don't know", 0.0, "no answer found, expected 4"),
        ("", 0.0, "no answer found, expected 4"),
        ("</answer><answer>", 0.0, "no answer found, expected 4"),
        (r"\boxed{4", 1.0, "4 from the last number, as expected"),
    ];
    for (text, score, note) in cases {
        let found = number(&json!({}), "4", text);
        assert_eq!((found.0, found.2.as_str()), (score, note), "{text}");
    }
    // Only what the config lists is looked for.
    let only = json!({ "extract": ["answer_tag"] });
    assert_eq!(number(&only, "4", "#### 4").2, "no answer found, expected 4");
}

#[test]
fn number_compares_exactly_or_within_a_tolerance() {
    let equal = |tolerance: f64, a: &str, b: &str| number(&json!({ "tolerance": tolerance }), a, b).0 == 1.0;
    assert!(equal(0.0, "0.5", "1/2") && equal(0.0, "2.50", "2.5") && equal(0.0, "0.1", "0.1000000"));
    assert!(!equal(0.0, "0.3333333333333333", "1/3"));
    assert!(equal(1e-6, "0.333333", "1/3") && !equal(1e-7, "0.333333", "1/3"));
    assert!(equal(0.1, "0.3", "0.2") && !equal(0.09999, "0.3", "0.2"), "a tenth is a tenth, not a float");
    assert!(equal(1.0, "3", "4") && !equal(1.0, "3", "4.000001"));
    assert!(equal(2.5e3, "10000", "12500") && !equal(2.5e3, "10000", "12501"));
    let long = "1234567890123456789012345678901234567";
    assert!(equal(0.0, long, long) && !equal(0.0, long, "1234567890123456789012345678901234566"));
    assert!(equal(1e30, long, "1234567890123456789012345678901234000"));
    assert!(!equal(0.0, "5", &"9".repeat(50_000)), "too long to be the reference");
}

#[test]
fn number_does_not_guess_without_a_reference() {
    let rig = Rig::new();
    let plugin = configured(&rig, "number", &json!({}));
    let verdict = |reference| plugin.verify(&ctx(), &group(reference, &["3"])).unwrap().remove(0);
    assert_eq!(verdict(None), undecided("the row has no reference"));
    assert_eq!(verdict(Some("three")), undecided("the reference holds no number"));
    let plugin = configured(&rig, "number", &json!({ "reference_after": "####" }));
    let verdict = plugin.verify(&ctx(), &group(Some("it is 3"), &["3"])).unwrap().remove(0);
    assert_eq!(verdict, undecided("the reference holds no `####`"));
}

#[test]
fn number_survives_texts_that_aim_at_its_reader() {
    let rig = Rig::new();
    let plugin = configured(&rig, "number", &json!({}));
    for part in
        [r"\frac{", "<answer>", "</answer>", r"\boxed{", "1", "1,111", "111,", "1/", "-$", "1.", "the answer is "]
    {
        let mut cost = [0, 0];
        for (i, length) in [4_000, 8_000].into_iter().enumerate() {
            let text = format!("{} ", part.repeat(length / part.len()));
            let before = plugin.spent().fuel;
            let verdicts = plugin.verify(&ctx(), &group(Some("7"), &[&text])).unwrap();
            assert!(matches!(verdicts[0], Verdict::Decided(_)), "{part}: {verdicts:?}");
            cost[i] = plugin.spent().fuel - before;
        }
        assert!(cost[1] < cost[0] * 21 / 10, "{part} is judged in a time that grows as its length: {cost:?}");
        assert!(cost[1] / 8_000 < 1_000, "{part} costs {} for a byte", cost[1] / 8_000);
    }
}

#[test]
fn number_checks_its_config() {
    let rig = Rig::new();
    assert_eq!(objections(&rig, "number", &json!({ "tolerence": 0.1 })), ["/tolerence"]);
    assert_eq!(objections(&rig, "number", &json!({ "tolerance": -1 })), ["/tolerance"]);
    assert_eq!(objections(&rig, "number", &json!({ "extract": ["boxed", "guess"] })), ["/extract/1"]);
    assert_eq!(objections(&rig, "number", &json!({ "extract": ["last_number", "boxed"] })), ["/extract/0"]);
}

/// Every reference solution of GSM8K is right by its own final answer, and wrong by another.
#[test]
fn number_judges_all_of_gsm8k() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/gsm8k");
    let mut solutions = Vec::new();
    for file in ["train.jsonl", "test.jsonl"] {
        let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
            println!("skipped: there is no {}", folder.join(file).display());
            return;
        };
        let answer = |line: &str| serde_json::from_str::<Value>(line).unwrap()["answer"].as_str().unwrap().to_owned();
        solutions.extend(text.lines().filter(|line| !line.trim().is_empty()).map(answer));
    }
    assert_eq!(solutions.len(), 8_792);
    let rig = Rig::new();
    let by_mark = configured(&rig, "number", &json!({ "extract": ["hashes"], "reference_after": "####" }));
    let by_last = configured(&rig, "number", &json!({ "reference_after": "####" }));
    for solution in &solutions {
        let (steps, answer) = solution.rsplit_once("####").unwrap();
        let answer = answer.trim();
        let wrong = match answer.strip_prefix('-') {
            Some(positive) => positive.to_owned(),
            None => format!("1{answer}"),
        };
        let texts = [
            solution.clone(),
            format!("{steps}#### {wrong}"),
            format!("{steps}The answer is {answer}."),
            format!("{steps}<answer>{wrong}</answer>"),
        ];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let verdicts = by_mark.verify(&ctx(), &group(Some(solution), &texts[..2])).unwrap();
        assert_eq!(scores(&verdicts), [1.0, 0.0], "{solution}");
        let verdicts = by_last.verify(&ctx(), &group(Some(solution), &texts)).unwrap();
        assert_eq!(scores(&verdicts), [1.0, 0.0, 1.0, 0.0], "{solution}");
    }
}

fn seeded(seed: u64) -> Context {
    Context { seed, ..ctx() }
}

struct Sum {
    problem: (u64, u64),
    trace: String,
    said: u64,
}

/// Rows `first .. first + count`, each checked for its form.
fn sums(plugin: &Configured, seed: u64, first: u64, count: u32) -> Vec<Sum> {
    let block = |at| plugin.generate(&seeded(seed), first + u64::from(at), 500.min(count - at)).unwrap();
    let rows = (0..count).step_by(500).flat_map(block);
    let sum = |row: base::Row| {
        let [message] = row.prompt.try_into().unwrap();
        assert_eq!(message.role, "user");
        let (a, b) = message.content.strip_suffix("=?").unwrap().split_once('+').unwrap();
        let (a, b): (u64, u64) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(row.reference.unwrap(), (a + b).to_string());
        let [(name, response)] = row.fields.try_into().unwrap();
        assert_eq!(name, "response");
        let inside = response.strip_prefix("<think>").unwrap().strip_suffix("</answer>").unwrap();
        let (trace, said) = inside.split_once("</think><answer>").unwrap();
        Sum { problem: (a, b), trace: trace.into(), said: said.parse().unwrap() }
    };
    rows.map(sum).collect()
}

#[test]
fn arithmetic_has_distinct_problems_and_holds_some_out_by_their_operands() {
    let rig = Rig::new();
    let train = configured(&rig, "arithmetic", &json!({ "split": "train" }));
    let held_out = configured(&rig, "arithmetic", &json!({ "split": "held-out" }));
    assert_eq!(train.worlds(), [World::Verifier, World::Generator]);
    let problems = |sums: &[Sum]| sums.iter().map(|sum| sum.problem).collect::<BTreeSet<_>>();
    let seen = problems(&sums(&train, 17, 0, 12_000));
    assert_eq!(seen.len(), 12_000);
    let unseen = problems(&sums(&held_out, 17, 0, 500));
    assert_eq!(unseen.len(), 500);
    let fnv = |(a, b): &(u64, u64)| {
        format!("{a}+{b}").bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
    };
    assert!(seen.iter().all(|problem| fnv(problem) % 8 != 0));
    assert!(unseen.iter().all(|problem| fnv(problem) % 8 == 0));
    let operands = seen.iter().chain(&unseen).flat_map(|(a, b)| [*a, *b]);
    assert!(operands.clone().all(|n| (100..1000).contains(&n)));
    assert!(operands.collect::<BTreeSet<_>>().len() > 890, "nearly every operand is there");
    let other = problems(&sums(&train, 18, 0, 12_000));
    assert!(seen.intersection(&other).count() < 1_000, "another seed, other problems");
    // After `count` rows a new order begins.
    assert!(problems(&sums(&train, 17, 12_000, 500)).is_disjoint(&unseen));
}

#[test]
fn arithmetic_gives_a_row_by_its_index_alone() {
    let rig = Rig::new();
    let plugin = configured(&rig, "arithmetic", &json!({ "split": "train", "slip": 0.5, "hasty": 0.2 }));
    let whole = plugin.generate(&seeded(5), 0, 64).unwrap();
    let pieces: Vec<_> = (0..16).flat_map(|i| plugin.generate(&seeded(5), 4 * i, 4).unwrap()).collect();
    assert_eq!(whole, pieces);
    assert_eq!(
        whole,
        configured(&Rig::new(), "arithmetic", &json!({ "split": "train", "slip": 0.5, "hasty": 0.2 }))
            .generate(&Context { step: 9, ..seeded(5) }, 0, 64)
            .unwrap()
    );
}

/// Carries that a trace of columns had to make and those that it forgot, and what its columns say.
fn carries(sum: &Sum) -> (u32, u32) {
    let (mut made, mut forgotten, mut carry) = (0, 0, 0);
    let (mut x, mut y, mut said, mut place) = (sum.problem.0, sum.problem.1, 0, 1);
    let columns: Vec<&str> = sum.trace.split(',').collect();
    for (i, column) in columns.iter().enumerate() {
        let (terms, total) = column.split_once('=').unwrap();
        let terms: Vec<u64> = terms.split('+').map(|term| term.parse().unwrap()).collect();
        let total: u64 = total.parse().unwrap();
        assert_eq!(terms.iter().sum::<u64>(), total, "a column is added up rightly: {}", sum.trace);
        assert_eq!(terms[..2], [x % 10, y % 10], "{}", sum.trace);
        let remembered = terms.len() as u64 - 2;
        made += carry as u32;
        forgotten += (carry - remembered) as u32;
        let is_last = i + 1 == columns.len();
        said += place * if is_last { total } else { total % 10 };
        carry = total / 10;
        (x, y, place) = (x / 10, y / 10, place * 10);
    }
    assert_eq!(said, sum.said, "the answer is what the columns say: {}", sum.trace);
    (made, forgotten)
}

#[test]
fn arithmetic_errs_at_the_rates_that_it_is_given() {
    let rig = Rig::new();
    let right = |sums: &[Sum]| sums.iter().filter(|sum| sum.said == sum.problem.0 + sum.problem.1).count() as f64;
    let careful = sums(&configured(&rig, "arithmetic", &json!({ "split": "train" })), 1, 0, 10_000);
    assert_eq!(right(&careful), 10_000.0, "without slips all are right");
    assert!(careful.iter().all(|sum| carries(sum).1 == 0));

    let slips = sums(&configured(&rig, "arithmetic", &json!({ "split": "train", "slip": 0.6 })), 1, 0, 10_000);
    let (made, forgotten) = slips.iter().map(carries).fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    let rate = f64::from(forgotten) / f64::from(made);
    // Four standard deviations of a share of about 9,000.
    assert!((rate - 0.6).abs() < 4.0 * (0.24 / f64::from(made)).sqrt(), "{forgotten} of {made}");

    let both = configured(&rig, "arithmetic", &json!({ "split": "train", "slip": 0.6, "hasty": 0.2 }));
    let both = sums(&both, 1, 0, 10_000);
    let (hasty, columns): (Vec<_>, Vec<_>) =
        both.into_iter().partition(|sum| sum.trace == format!("{}+{}={}", sum.problem.0, sum.problem.1, sum.said));
    let share = hasty.len() as f64 / 10_000.0;
    assert!((share - 0.2).abs() < 0.016, "{share}");
    let right_at_once = right(&hasty) / hasty.len() as f64;
    assert!((right_at_once - 0.5).abs() < 0.045, "{right_at_once}");
    for sum in &hasty {
        let (truth, said) = ((sum.problem.0 + sum.problem.1).to_string(), sum.said.to_string());
        let differing = truth.bytes().zip(said.bytes()).filter(|(a, b)| a != b).count();
        assert!(truth.len() == said.len() && differing <= 1, "one digit at most: {truth} {said}");
    }
    let (made, forgotten) = columns.iter().map(carries).fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    assert!((f64::from(forgotten) / f64::from(made) - 0.6).abs() < 0.025, "{forgotten} of {made}");
}

#[test]
fn arithmetic_checks_its_config() {
    let rig = Rig::new();
    let objections = |config| objections(&rig, "arithmetic", &config);
    assert_eq!(objections(json!({ "split": "test" })), ["/split"]);
    assert_eq!(objections(json!({ "split": "train", "digits": 9 })), ["/digits"]);
    assert_eq!(objections(json!({ "split": "train", "slip": 1.5 })), ["/slip"]);
    assert_eq!(objections(json!({ "split": "held-out", "digits": 1 })), ["/count"]);
    let small = configured(&rig, "arithmetic", &json!({ "split": "train", "digits": 1, "count": 10 }));
    assert!(sums(&small, 3, 0, 10).iter().all(|sum| sum.problem.0 < 10 && sum.problem.1 < 10));
}

#[test]
fn format_wants_one_thought_then_one_answer_and_nothing_else() {
    let rig = Rig::new();
    let plugin = rig.builtin("format", &json!({}));
    let good = ["<think>a</think><answer>b</answer>", " <think>\na < b\n</think>\n\n<answer>1</answer>\n"];
    let bad = [
        "",
        "<think>a</think>",
        "<answer>b</answer>",
        "<answer>b</answer><think>a</think>",
        "x <think>a</think><answer>b</answer>",
        "<think>a</think> so <answer>b</answer>",
        "<think>a</think><answer>b</answer> x",
        "<think></think><answer>b</answer>",
        "<think>a</think><answer> </answer>",
        "<think>a</think><think>a</think><answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>b</answer>",
        "<think>a<think></think><answer>b</answer>",
        "<think>a</think><answer>b",
        "<think>a</think></think><answer>b</answer>",
        "<Think>a</Think><answer>b</answer>",
    ];
    assert_eq!(scores(&plugin.verify(&ctx(), &group(None, &good)).unwrap()), [1.0; 2]);
    assert_eq!(scores(&plugin.verify(&ctx(), &group(None, &bad)).unwrap()), [0.0; 15]);
    let plugin = rig.builtin("format", &json!({ "think": "reasoning" }));
    let texts = ["<reasoning>a</reasoning><answer>b</answer>", good[0]];
    let verdicts = plugin.verify(&ctx(), &group(None, &texts)).unwrap();
    assert_eq!(scores(&verdicts), [1.0, 0.0]);
    let Verdict::Decided(finding) = &verdicts[1] else { panic!() };
    assert_eq!(finding.note.as_deref(), Some("not <reasoning>..</reasoning><answer>..</answer>"));
}

#[test]
fn permute_deals_the_rewards_of_a_group_out_anew() {
    let rig = Rig::new();
    let plugin = rig.builtin("permute", &json!({ "weights": { "accuracy": 1.0, "format": 0.1 } }));
    let of_prompt = |id: u64| {
        let texts = ["a"; 16];
        let verdicts = (0..16).map(|i| score(f64::from(i))).collect();
        let both = judged(judged(group(None, &texts), "accuracy", verdicts), "format", vec![score(1.0); 16]);
        let prompt = base::Prompt { id, ..(*both.prompt).clone() };
        let both = base::Group { prompt: prompt.into(), ..both };
        let rewards = plugin.reward(&ctx(), &both).unwrap();
        rewards.into_iter().map(|reward| (reward.unwrap().unwrap() * 10.0).round() as i64).collect::<Vec<_>>()
    };
    let straight: Vec<i64> = (0..16).map(|i| 10 * i + 1).collect();
    let (one, two) = (of_prompt(1), of_prompt(2));
    assert_ne!(one, straight);
    assert_ne!(one, two);
    assert_eq!(one, of_prompt(1));
    for mut dealt in [one, two] {
        dealt.sort_unstable();
        assert_eq!(dealt, straight, "the same rewards in another order");
    }
    let two = judged(group(None, &["a", "b"]), "shape", vec![score(1.0); 2]);
    let reason = "config.weights has no weight for the stage shape".to_owned();
    assert_eq!(plugin.reward(&ctx(), &two).unwrap(), [Err(reason.clone()), Err(reason)]);
}

#[test]
fn no_path_of_the_machine_that_built_them_is_in_a_component() {
    for name in host::builtins() {
        let Ok(bytes) = std::fs::read(plugins().join(name).join(format!("{name}.wasm"))) else { continue };
        assert!(bytes.len() < 1_000_000, "{name} has {} bytes", bytes.len());
        for part in ["/home/", "/root/", "/tmp/", "/Users/", ".cache", "registry/src"] {
            assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()), "{name} holds {part}");
        }
    }
}
