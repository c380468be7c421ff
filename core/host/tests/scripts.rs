//! Rhai scripts that are right, wrong and hostile.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use base::{Decision, Verdict};
use common::{Rig, ctx, group, judged, rhai_limits, score, scores, undecided};
use host::{ConfigureError, HostError, World};
use serde_json::json;
use std::sync::Arc;

/// Wraps the body of `judge(text)`, which gives one verdict.
fn verifier(body: &str) -> String {
    format!("fn judge(text) {{ {body} }}\nfn verify(ctx, group) {{ group.completions.map(|c| judge(c.text)) }}")
}

fn verdict_of(body: &str) -> Verdict {
    let plugin = Rig::new().rhai(&verifier(body), &rhai_limits());
    plugin.verify(&ctx(), &group(None, &["some text"])).unwrap().remove(0)
}

/// The reason for which a body is undecided.
fn reason_of(body: &str) -> String {
    match verdict_of(body) {
        Verdict::Undecided(reason) => reason,
        other => panic!("{body}: {other:?}"),
    }
}

fn load_error(text: &str) -> String {
    let rig = Rig::new();
    let error = rig.load_rhai(text, &rhai_limits()).unwrap_err().to_string();
    error.replace(&format!("{}/", rig.path().display()), "")
}

#[test]
fn a_script_judges_with_native_helpers() {
    let text = verifier(
        r#"let answer = tag(text, "answer");
           if answer == () { return undecided("no answer"); }
           #{ score: number(answer) + 0.5, answer: answer, metrics: #{ words: count_words(text) }, note: `says ${answer}` }"#,
    );
    let plugin = Rig::new().rhai(&text, &rhai_limits());
    let verdicts = plugin.verify(&ctx(), &group(None, &["so <answer>3</answer>", "none"])).unwrap();
    let Verdict::Decided(finding) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((finding.score, finding.answer.as_deref(), finding.note.as_deref()), (3.5, Some("3"), Some("says 3")));
    assert_eq!(finding.metrics, [("words".to_owned(), 2.0)]);
    assert_eq!(verdicts[1], undecided("no answer"));
    let spent = plugin.spent();
    assert_eq!((spent.calls, spent.fuel, spent.undecided), (1, 0, 1));
    assert!(spent.operations > 10, "{spent:?}");
}

#[test]
fn a_script_sees_all_of_its_group() {
    let text = r#"fn verify(ctx, group) {
        [`${ctx.step} ${ctx.seed} ${ctx.max_tokens} ${ctx.evaluating} ${group.prompt_id} ${group.source} ${group.reference} ` +
         `${group.prompt[0].role} ${group.prompt[0].content} ${group.fields.level} ${group.completions[0].id} ` +
         `${group.completions[0].tokens} ${group.completions[0].finish}`].map(|note| #{ score: 0, note: note })
    }"#;
    let verdicts = Rig::new().rhai(text, &rhai_limits()).verify(&ctx(), &group(Some("2"), &["abc"])).unwrap();
    let Verdict::Decided(finding) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!(finding.note.as_deref(), Some("3 17 1024 false 7 sums 2 user 1+1=? 2 0 3 stop"));
}

#[test]
fn what_a_script_does_wrong_is_a_reason() {
    let exhausted = "operations exhausted: 50,000 spent, 50,000 allowed for one completion";
    let cases = [
        ("loop { }", exhausted),
        ("let s = \"x\"; loop { s += s; }", exhausted),
        ("let s = \"x\"; let l = []; loop { l.push(s + text); }", exhausted),
        ("let l = [0]; loop { l += l; }", "Size of array/BLOB too large (line 2, position 43)"),
        (
            "fn_that_is_not(text)",
            "Function not found: fn_that_is_not (&str | ImmutableString | String) (line 1, position 18)",
        ),
        ("variable_that_is_not", "Variable not found: variable_that_is_not (line 1, position 18)"),
        ("throw \"it gave up\"", "it gave up"),
        ("judge(text)", "Stack overflow (line 2, position 43)"),
        (
            "let g = [text]; g.map(|x| g.len())",
            "Data race detected on argument #1 of function 'map': a closure can't read a variable while a method of it \
             runs; take what it needs before, as in `let want = group.reference;`",
        ),
        ("1 / 0", "Division by zero: 1 / 0 (line 1, position 20)"),
        ("9223372036854775807 + 1", "Addition overflow: 9223372036854775807 + 1 (line 1, position 38)"),
        ("0.0 / 0.0", "returned a score that is not finite: NaN"),
        ("\"good\"", "returned a string where a verdict belongs"),
        ("#{ answer: \"3\" }", "returned a verdict without a `score`"),
        ("#{ score: 1, metrics: #{ a: \"b\" } }", "returned a metric `a` that is no number"),
        ("undecided(\"too hard\")", "too hard"),
        ("sleep(1000)", "`sleep` is not given to plugins"),
        ("Fn(\"sleep\").call(1000)", "`sleep` is not given to plugins"),
        ("timestamp()", "Function not found: timestamp () (line 1, position 18)"),
        ("loop { log(text + text + text + text) }", "logged too much: 65,572 bytes, 65,536 allowed in a call"),
    ];
    let found: Vec<_> = cases.iter().map(|(body, _)| (*body, reason_of(body))).collect();
    let expected: Vec<_> = cases.iter().map(|(body, reason)| (*body, (*reason).to_owned())).collect();
    assert_eq!(found, expected);
    assert_eq!(verdict_of("not_applicable()"), Verdict::NotApplicable);
}

#[test]
fn a_budget_can_not_be_caught_nor_escaped() {
    for body in [
        "loop { try { loop { } } catch { } }",
        "let f = |x| { loop { } }; f.call(1)",
        "[1, 2].map(|x| { loop { } })",
        "let s = \"x\"; for i in 0..60 { s = s + s; } s.split(\"\").len()",
    ] {
        let reason = reason_of(body);
        assert_eq!(reason, "operations exhausted: 50,000 spent, 50,000 allowed for one completion", "{body}");
    }
}

#[test]
fn deep_lists_and_shared_values_do_not_bring_the_host_down() {
    let limits = base::Limits { operations: Some(25_000), ..rhai_limits() };
    for body in [
        "let a = []; for i in 0..100000 { let b = [0]; b[0] = a; a = b; } 1",
        "let m = #{}; for i in 0..100000 { let n = #{}; n.x = m; m = n; } 1",
        "let x = 1; let f = || x; let a = [x]; a.push(x); a[0] = f; a += [x]; a",
    ] {
        let plugin = Rig::new().rhai(&verifier(body), &limits);
        let verdict = plugin.verify(&ctx(), &group(None, &["text"])).unwrap().remove(0);
        assert!(matches!(verdict, Verdict::Undecided(_)), "{body}: {verdict:?}");
    }
}

#[test]
fn what_scripts_are_not_given_is_refused_with_its_place() {
    for (body, message) in [
        ("eval(\"1\")", "mine.rhai:1:18: 'eval' is a reserved keyword"),
        ("import \"os\" as os;", "mine.rhai:1:18: 'import' is a reserved keyword"),
        ("print(1)", "mine.rhai:1:18: 'print' is a reserved keyword"),
    ] {
        let error = load_error(&verifier(body));
        assert!(error.starts_with(message.split(": ").next().unwrap()), "{error}");
        assert!(error.contains(message.split('\'').nth(1).unwrap()), "{error}");
    }
    let reason = reason_of("Fn(\"eval\").call(\"40 + 2\")");
    assert!(reason.contains("eval"), "{reason}");
}

#[test]
fn a_syntax_error_has_its_place() {
    let error = load_error("fn verify(ctx, group) {\n    let x = ;\n}");
    assert!(error.starts_with("mine.rhai:2:13: "), "{error}");
    let error = load_error("fn verify(ctx, group) {\n    [1, 2\n");
    assert!(error.starts_with("mine.rhai:3:1: ") || error.starts_with("mine.rhai:2:"), "{error}");
}

#[test]
fn a_script_has_one_world_or_more() {
    let list = "it must define one of verify(ctx, group), reward(ctx, group, judgements), filter(ctx, groups, rewards), \
                generate(ctx, first, count)";
    assert_eq!(load_error("fn other() { 1 }"), format!("plugin `mine`: mine.rhai can't be used: {list}"));
    let error = load_error("fn verify(group) { [] }");
    assert_eq!(error, "plugin `mine`: mine.rhai can't be used: its function `verify` must be `verify(ctx, group)`");
    let both = "fn verify(ctx, group) { group.completions.map(|c| 1.0) }
                fn generate(ctx, first, count) { [#{ prompt: \"a\" }] }";
    let both = Rig::new().rhai(both, &rhai_limits());
    assert_eq!(both.worlds(), [World::Verifier, World::Generator]);
    assert_eq!(both.verify(&ctx(), &group(None, &["a"])).unwrap(), [score(1.0)]);
    assert_eq!(both.generate(&ctx(), 0, 1).unwrap().len(), 1);
    let error = both.reward(&ctx(), &group(None, &["a"])).unwrap_err().to_string();
    assert_eq!(error, "plugin `mine` is a verifier and generator, and a rewarder is needed here");
}

#[test]
fn a_script_never_runs_without_a_budget() {
    let error = Rig::new().load_rhai("fn verify(a, b) { [] }", &common::wasm_limits()).unwrap_err();
    assert!(matches!(error, HostError::MissingLimit { key: "operations", .. }), "{error}");
}

#[test]
fn only_the_offender_of_a_group_is_undecided() {
    let text = verifier("if text == \"bad\" { loop { } } text.len()");
    let plugin = Rig::new().rhai(&text, &rhai_limits());
    let verdicts = plugin.verify(&ctx(), &group(None, &["a", "bad", "abc"])).unwrap();
    let reason = undecided("operations exhausted: 50,000 spent, 50,000 allowed for one completion");
    assert_eq!(verdicts, [score(1.0), reason, score(3.0)]);
    let spent = plugin.spent();
    assert_eq!((spent.calls, spent.undecided), (4, 1));
    assert!((200_000..200_200).contains(&spent.operations), "the group's 150,000 and the offender's 50,000: {spent:?}");
    for shape in ["[1.0]", "1.0", "()", "[1.0, 0.0, 1.0, 0.0]"] {
        let plugin = Rig::new().rhai(&format!("fn verify(ctx, group) {{ {shape} }}"), &rhai_limits());
        let verdicts = plugin.verify(&ctx(), &group(None, &["a", "b"])).unwrap();
        let reason = match shape {
            "1.0" => "returned a number where a list of verdicts belongs",
            "()" => "returned nothing where a list of verdicts belongs",
            "[1.0]" => {
                assert_eq!(verdicts, [score(1.0), score(1.0)], "each alone has its one verdict");
                continue;
            }
            _ => "returned 4 verdicts for one completion",
        };
        assert_eq!(verdicts, [undecided(reason), undecided(reason)], "{shape}");
    }
}

#[test]
fn a_script_keeps_nothing_between_calls_and_large_groups_pass() {
    let text = "let calls = 0;\nfn verify(ctx, group) { group.completions.map(|c| c.text.len()) }";
    let plugin = Rig::new().rhai(text, &rhai_limits());
    for (length, calls) in [(100_000, 1), (300_000, 17)] {
        let long = "x".repeat(length);
        let before = plugin.spent().calls;
        let verdicts = plugin.verify(&ctx(), &group(None, &[long.as_str(); 16])).unwrap();
        assert_eq!(scores(&verdicts), [length as f64; 16]);
        assert_eq!(plugin.spent().calls - before, calls);
    }
}

#[test]
fn a_config_is_held_against_the_schema_then_checked_by_the_script() {
    let text = r#"
        fn schema() { #{ type: "object", additionalProperties: false,
                         properties: #{ low: #{ type: "number" }, high: #{ type: "number" } } } }
        fn configure(config) { if config.low > config.high { [#{ path: "/low", message: "low is above high" }] } }
        fn verify(ctx, group) { group.completions.map(|c| config.high) }"#;
    let rig = Rig::new();
    let plugin = rig.load_rhai(text, &rhai_limits()).unwrap();
    assert_eq!(plugin.worlds(), [World::Verifier]);
    assert_eq!(plugin.schema().unwrap()["properties"]["low"]["type"], "number");
    let errors = |config| match plugin.configure(&config) {
        Err(ConfigureError::Config { errors }) => errors,
        other => panic!("{other:?}"),
    };
    assert_eq!(errors(json!({ "low": 2, "high": 1 })), [("/low".to_owned(), "low is above high".to_owned())]);
    assert_eq!(
        errors(json!({ "lo/w": 2 })),
        [("/lo~1w".to_owned(), "unknown key `lo/w`; did you mean `low`?".to_owned())]
    );
    let wrong = errors(json!({ "low": "2", "high": true }));
    assert_eq!(wrong.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["/low", "/high"]);
    let configured = plugin.configure(&json!({ "low": 1, "high": 2 })).unwrap();
    assert_eq!(configured.verify(&ctx(), &group(None, &["a"])).unwrap(), [score(2.0)]);
    let takes_none = rig.load_rhai("fn verify(a, b) { [] }", &rhai_limits()).unwrap();
    assert!(takes_none.configure(&json!(null)).is_ok());
    assert!(matches!(takes_none.configure(&json!({ "x": 1 })), Err(ConfigureError::Config { .. })));
}

#[test]
fn a_failed_reward_is_the_whole_groups_and_a_failed_filter_is_an_error() {
    let rig = Rig::new();
    let two = || judged(group(None, &["a", "b"]), "accuracy", vec![score(1.0), undecided("why")]);
    let reward = |body: &str| {
        let text = format!("fn reward(ctx, group, judgements) {{ {body} }}");
        rig.rhai(&text, &rhai_limits()).reward(&ctx(), &two()).unwrap()
    };
    let fine = "judgements[0].verdicts.map(|v| if \"score\" in v { v.score * 2 } else { () })";
    assert_eq!(reward(fine), [Ok(Some(2.0)), Ok(None)]);
    let reason =
        "operations exhausted: 100,000 spent, 50,000 allowed for one completion, of which there were 2".to_owned();
    assert_eq!(reward("loop { }"), [Err(reason.clone()), Err(reason)]);
    let reason = "returned one reward for 2 completions".to_owned();
    assert_eq!(reward("[1.0]"), [Err(reason.clone()), Err(reason)]);

    let filter = |body: &str| {
        let text = format!("fn filter(ctx, groups, rewards) {{ {body} }}");
        let groups = [Arc::new(base::Group { rewards: vec![Some(1.0), None], ..two() })];
        rig.rhai(&text, &rhai_limits()).filter(&ctx(), &groups)
    };
    let kept = filter("rewards.map(|of| of.map(|r| if r == () { drop(\"no reward\") } else { \"keep\" }))").unwrap();
    assert_eq!(kept, [[Decision::Keep, Decision::Drop("no reward".into())]]);
    let error = filter("[[\"keep\"]]").unwrap_err().to_string();
    assert_eq!(
        error,
        "plugin `mine` failed in filter: returned decisions that don't fit: one list for each group, one \
                       decision for each completion"
    );
    assert!(matches!(filter("loop { }"), Err(HostError::Failed { call: "filter", .. })));
    let verifier = rig.rhai("fn verify(ctx, group) { [] }", &rhai_limits());
    let error = verifier.reward(&ctx(), &two()).unwrap_err().to_string();
    assert_eq!(error, "plugin `mine` is a verifier, and a rewarder is needed here");
}

#[test]
fn a_generator_gives_the_rows_that_were_asked_for_or_fails() {
    let rig = Rig::new();
    let text = r#"fn generate(ctx, first, count) {
        let rows = [];
        for i in first..first + count { rows.push(#{ prompt: `${i}?`, reference: i.to_string(), fields: #{ n: i, s: "t" } }); }
        rows
    }"#;
    let rows = rig.rhai(text, &rhai_limits()).generate(&ctx(), 5, 2).unwrap();
    assert_eq!(rows[1].prompt[0].content, "6?");
    assert_eq!(rows[1].reference.as_deref(), Some("6"));
    assert_eq!(rows[1].fields, [("n".into(), "6".into()), ("s".into(), "t".into())]);
    let error = rig.rhai("fn generate(ctx, first, count) { [] }", &rhai_limits()).generate(&ctx(), 0, 3).unwrap_err();
    assert_eq!(error.to_string(), "plugin `mine` failed in generate: returned 0 rows where 3 rows were asked for");
}
