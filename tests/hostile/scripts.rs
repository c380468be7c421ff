//! Rhai scripts that attack.

use base::Limits;
use serde_json::json;

use crate::common::{Rig, ctx, group, rhai_limits};
use crate::{compare, ends, reason, verdict_among_honest};

/// Judges honestly, but does `body` with a text that begins with `!`.
fn script(body: &str) -> String {
    format!(
        "fn judge(text, want) {{ if text.starts_with(\"!\") {{ {body} }} if text == want {{ 1.0 }} else {{ 0.0 }} }}
         fn verify(ctx, group) {{ let want = group.reference; group.completions.map(|c| judge(c.text, want)) }}"
    )
}

const EXHAUSTED: &str = "operations exhausted: ";

const MISDEEDS: [(&str, &str, &str); 24] = [
    ("an endless loop", "loop { }", EXHAUSTED),
    ("a loop that catches", "loop { try { loop { } } catch { } }", EXHAUSTED),
    ("a loop in a closure", "[1].map(|x| { loop { } });", EXHAUSTED),
    ("a range without an end", "for i in 0..9223372036854775807 { let x = i; }", EXHAUSTED),
    ("a string that doubles", "let s = \"x\"; loop { s += s; }", "exhausted"),
    ("a list that doubles", "let l = [0]; loop { l += l; }", "too large"),
    ("nested lists", "let a = []; for i in 0..100000 { let b = [0]; b[0] = a; a = b; }", ""),
    ("nested maps", "let m = #{}; for i in 0..100000 { let n = #{}; n.x = m; m = n; }", ""),
    ("lists of long strings", "let s = text; for i in 0..16 { s += s; } let l = []; loop { l.push(s + l.len()); }", ""),
    ("recursion", "return judge(text, want);", "Stack overflow"),
    ("recursion by a pointer", "let f = |g| g.call(g); f.call(f);", ""),
    ("padding", "let s = \"\"; s.pad(2000000000, \"x\");", ""),
    ("a long list", "let l = []; l.pad(2000000000, 0);", ""),
    ("sleep", "sleep(3600000);", "`sleep` is not given to plugins"),
    ("sleep by a pointer", "Fn(\"sleep\").call(3600000);", "`sleep` is not given to plugins"),
    ("the time", "timestamp();", "Function not found: timestamp"),
    ("eval by a pointer", "Fn(\"eval\").call(\"loop { }\");", "eval"),
    ("overflow", "let x = 9223372036854775807; x += 1;", "overflow"),
    ("division by zero", "1 / 0;", "Division by zero"),
    ("a power that is enormous", "let x = 10; for i in 0..100 { x *= x; }", "overflow"),
    ("a score that is no number", "return 0.0 / 0.0;", "not finite"),
    ("a reason without an end", "let s = text; for i in 0..19 { s += s; } throw s + s + s;", ""),
    ("floods the log", "loop { log(text + text + text + text); }", "logged too much"),
    ("another shape", "return #{ score: #{ score: 1 } };", ""),
];

#[test]
fn a_misdeed_on_one_text_is_that_texts_reason() {
    let mut found = Vec::new();
    for (name, body, _) in MISDEEDS {
        let verdict = ends(name, move || {
            let plugin = Rig::new().rhai(&script(body), &rhai_limits());
            verdict_among_honest(&plugin, "!text")
        });
        found.push((name.to_owned(), reason(name, verdict)));
    }
    compare(&found, &MISDEEDS.map(|(_, _, part)| part));
    for (name, reason) in found {
        assert!(reason.len() < 1 << 20, "{name}: a reason of {} bytes", reason.len());
    }
}

#[test]
fn helpers_that_walk_text_are_paid_for() {
    let text = format!("!{}", "<a>\\boxed{{{".repeat(100_000));
    for body in [
        "loop { tag(text, \"a\"); }",
        "loop { tags(text, \"a\"); }",
        "loop { blocks(text); }",
        "loop { boxed(text); }",
        "loop { count(text, \"<\"); }",
        "loop { words(text); }",
        "loop { count_words(text); }",
        "loop { numbers(text); }",
        "loop { number(text); }",
        "loop { text.split(\"<\"); }",
        "loop { text.replace(\"<\", \">\"); }",
        "loop { text.to_upper(); }",
        "loop { text.contains(\"zzzz\"); }",
        "loop { text.index_of(\"zzzz\"); }",
        "loop { text.len(); }",
    ] {
        let text = text.clone();
        let verdict = ends(body, move || {
            let plugin = Rig::new().rhai(&script(body), &rhai_limits());
            plugin.verify(&ctx(), &group(Some("2"), &[text.as_str()])).unwrap().remove(0)
        });
        let reason = reason(body, verdict);
        assert!(reason.contains("exhausted") || reason.contains("too large"), "{body}: {reason}");
    }
}

#[test]
fn a_script_that_attacks_before_it_is_called_is_refused() {
    let verify = "fn verify(ctx, group) { [] }";
    let deep = format!("fn f() {{ {}1{} }} {verify}", "(".repeat(50_000), ")".repeat(50_000));
    let braces = format!("fn f() {{ {} {} }} {verify}", "if true {".repeat(20_000), "}".repeat(20_000));
    let lists = format!("const A = {}{}; {verify}", "[".repeat(50_000), "]".repeat(50_000));
    let cases = [
        ("imports", format!("import \"os\" as os; {verify}"), "import"),
        ("evaluates", format!("fn f() {{ eval(\"1\") }} {verify}"), "eval"),
        ("prints", format!("fn f() {{ print(1) }} {verify}"), "print"),
        ("deep parentheses", deep, ""),
        ("deep blocks", braces, ""),
        ("deep lists", lists, ""),
        ("loops in schema", format!("fn schema() {{ loop {{ }} }} {verify}"), EXHAUSTED),
        ("loops in configure", format!("fn configure(c) {{ loop {{ }} }} {verify}"), EXHAUSTED),
        ("is no text", "\u{0}\u{1}\u{2}".into(), ""),
        ("is empty", String::new(), "it must define one of"),
    ];
    let mut found = Vec::new();
    for (name, text, _) in &cases {
        let text = text.clone();
        let message = ends(name, move || {
            let rig = Rig::new();
            match rig.load_rhai(&text, &rhai_limits()) {
                Err(error) => error.to_string(),
                Ok(plugin) => plugin.configure(&json!({})).map(|_| ()).unwrap_err().to_string(),
            }
        });
        found.push(((*name).to_owned(), message));
    }
    compare(&found, &cases.each_ref().map(|(_, _, part)| *part));
}

/// Values that hold themselves would stay after the call.
#[test]
fn what_a_script_leaves_behind_does_not_grow() {
    let body = "let s = text; for i in 0..16 { s += s; } let a = [s]; let f = || a; a.push(f); a.push(a);";
    let limits = Limits { operations: Some(1_000_000), ..rhai_limits() };
    let plugin = Rig::new().rhai(&script(body), &limits);
    let call = || plugin.verify(&ctx(), &group(Some("2"), &["!some text of the model"])).unwrap();
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    (0..20).for_each(|_| drop(call()));
    let before = resident();
    (0..200).for_each(|_| drop(call()));
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "200 calls left {grown} bytes behind");
}
