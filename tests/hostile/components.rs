//! Components that attack when they are started, asked for their schema, configured and called.

use base::{Limits, Verdict};
use serde_json::json;

use crate::common::{Rig, ctx, group, score, wasm_limits};
use crate::guest::{Guest, on_text};
use crate::{compare, ends, reason, verdict_among_honest};

const LOOP: &str = "(loop $for-ever (br $for-ever))";

/// Name, what is done, and what must be said of it.
const MISDEEDS: [(&str, &str, &str); 31] = [
    ("an endless loop", LOOP, "fuel exhausted: "),
    ("a loop without a branch back that costs", "(loop $a (loop $b (br $a)))", "fuel exhausted: "),
    ("memory bomb", "(loop $more (drop (memory.grow (i32.const 16))) (br $more))", "memory exhausted: "),
    ("memory bomb at once", "(drop (memory.grow (i32.const 60000)))", "memory exhausted: "),
    ("a page at a time", "(loop $more (drop (memory.grow (i32.const 1))) (br $more))", "memory exhausted: "),
    ("table bomb", "(drop (table.grow $table (ref.null func) (i32.const 70000)))", "table exhausted: "),
    (
        "table bomb by steps",
        "(loop $more (drop (table.grow $table (ref.null func) (i32.const 1000))) (br $more))",
        "table exhausted: ",
    ),
    ("fills four gigabytes", "(memory.fill (i32.const 0) (i32.const 1) (i32.const -1))", "fuel exhausted: "),
    ("a table of two billion", "(drop (table.grow $table (ref.null func) (i32.const 0x7fffffff)))", "fuel exhausted: "),
    ("stack bomb", "(drop (call $deep (i64.const 0)))", "trapped: call stack exhausted"),
    ("trap", "unreachable", "trapped: wasm `unreachable` instruction executed"),
    ("division by zero", "(drop (i32.div_u (i32.const 1) (local.get $i32-zero)))", "trapped: integer divide by zero"),
    ("reads outside", "(drop (i32.load (i32.const -4)))", "trapped: out of bounds memory access"),
    (
        "fills outside",
        "(memory.fill (i32.const 65000) (i32.const 1) (i32.const 100000))",
        "trapped: out of bounds memory access",
    ),
    ("calls an empty place of a table", "(call_indirect $table (i32.const 0))", "trapped: uninitialized element"),
    (
        "one verdict too few",
        "(i32.store offset=8 (local.get $ret) (i32.sub (local.get $n) (i32.const 1)))
       (return (local.get $ret))",
        "returned 0 verdicts for one completion",
    ),
    (
        "one verdict too many",
        "(i32.store offset=8 (local.get $ret) (i32.add (local.get $n) (i32.const 1)))
       (drop (memory.grow (i32.const 1))) (return (local.get $ret))",
        "returned 2 verdicts for one completion",
    ),
    (
        "two billion verdicts",
        "(i32.store offset=8 (local.get $ret) (i32.const 0x7fffffff)) (return (local.get $ret))",
        "out of bounds",
    ),
    (
        "a hundred thousand verdicts",
        "(drop (memory.grow (i32.const 100)))
       (i32.store offset=4 (local.get $ret) (i32.const 65536))
       (i32.store offset=8 (local.get $ret) (i32.const 100000)) (return (local.get $ret))",
        "returned too much: ",
    ),
    (
        "a list that is not aligned",
        "(i32.store offset=4 (local.get $ret) (i32.const 4097)) (return (local.get $ret))",
        "aligned",
    ),
    ("a result outside of memory", "(return (i32.const -16))", "out of bounds"),
    (
        "a string of 8 MiB",
        "(drop (memory.grow (i32.const 128)))
       (i32.store8 (local.get $verdict) (i32.const 1)) (i32.store offset=8 (local.get $verdict) (i32.const 0))
       (i32.store offset=12 (local.get $verdict) (i32.const 8388608))",
        "returned too much: ",
    ),
    (
        "a string that is no text",
        "(i32.store8 (local.get $verdict) (i32.const 1))
       (i32.store offset=8 (local.get $verdict) (i32.const 2048))
       (i32.store offset=12 (local.get $verdict) (i32.const 8))",
        "invalid utf-8",
    ),
    ("a case that there is not", "(i32.store8 (local.get $verdict) (i32.const 9))", "discriminant"),
    (
        "a score that is no number",
        "(f64.store offset=8 (local.get $verdict) (f64.const nan))",
        "returned a score that is not finite: NaN",
    ),
    (
        "an infinite score",
        "(f64.store offset=8 (local.get $verdict) (f64.const inf))",
        "returned a score that is not finite: inf",
    ),
    (
        "floods the log",
        "(loop $flood (call $emit (i32.const 1) (local.get $text) (local.get $len)) (br $flood))",
        "logged too much: ",
    ),
    (
        "floods the log with nothing",
        "(loop $flood (call $emit (i32.const 0) (i32.const 0) (i32.const 0)) (br $flood))",
        "logged too much: ",
    ),
    ("logs what is no text", "(call $emit (i32.const 1) (i32.const 2048) (i32.const 8))", "invalid utf-8"),
    ("logs what is not its own", "(call $emit (i32.const 1) (i32.const 0) (i32.const -1))", "out of bounds"),
    ("logs at a level that there is not", "(call $emit (i32.const 77) (i32.const 0) (i32.const 1))", "discriminant"),
];

#[test]
fn a_misdeed_on_one_text_is_that_texts_reason() {
    let mut found = Vec::new();
    for (name, misdeed, _) in MISDEEDS {
        let misdeed = misdeed.replace("(local.get $i32-zero)", "(i32.wrap_i64 (local.get $y))");
        let verdict = ends(name, move || {
            let plugin = Rig::new().wasm(&on_text(&misdeed), &wasm_limits());
            verdict_among_honest(&plugin, "!")
        });
        found.push((name.to_owned(), reason(name, verdict)));
    }
    compare(&found, &MISDEEDS.map(|(_, _, part)| part));
}

#[test]
fn a_misdeed_is_the_same_twice_and_for_the_same_fuel() {
    for (name, misdeed, _) in [MISDEEDS[0], MISDEEDS[2], MISDEEDS[9], MISDEEDS[26]] {
        let plugin = Rig::new().wasm(&on_text(misdeed), &wasm_limits());
        let call = || {
            let before = plugin.spent().fuel;
            let verdicts = plugin.verify(&ctx(), &group(Some("2"), &["!", "2"])).unwrap();
            (verdicts, plugin.spent().fuel - before)
        };
        assert_eq!(call(), call(), "{name}");
    }
}

/// What can't be configured never comes to be called.
#[test]
fn a_component_that_attacks_before_it_is_called_is_refused() {
    let spin = format!("(func $spin {LOOP}) (start $spin)");
    let grow = "(func $grow (loop $l (drop (memory.grow (i32.const 64))) (br $l))) (start $grow)";
    let trap = "(func $trap unreachable) (start $trap)";
    let flood =
        "(func $flood (loop $l (call $emit (i32.const 1) (i32.const 4096) (i32.const 4096)) (br $l))) (start $flood)";
    let deep = "(func $deeply (drop (call $deep (i64.const 0)))) (start $deeply)";
    let items = |items| Guest { items, ..Guest::default() };
    let schema = |schema| Guest { schema, ..Guest::default() };
    let text = |schema_text| Guest { schema_text, ..Guest::default() };
    let configure = |configure| Guest { configure, ..Guest::default() };
    let nested = "[".repeat(1_000);
    let cases = [
        ("loops when it starts", items(&spin), "it fails when it starts: fuel exhausted: "),
        ("eats memory when it starts", items(grow), "it fails when it starts: memory exhausted: "),
        ("traps when it starts", items(trap), "it fails when it starts: trapped: "),
        ("floods the log when it starts", items(flood), "logged too much: "),
        ("overflows the stack when it starts", items(deep), "call stack exhausted"),
        ("loops in schema", schema(LOOP), "failed in schema: fuel exhausted: "),
        ("traps in schema", schema("unreachable"), "failed in schema: trapped: "),
        ("a schema outside of memory", schema("(return (i32.const -8))"), "out of bounds"),
        ("a schema that is no JSON", text("{\"type\":"), "the schema is no JSON: "),
        ("a schema that is no schema", text(r#"{"type":"thing"}"#), "the schema is no JSON Schema: "),
        (
            "a schema from the network",
            text(r#"{"$ref":"http://example.com/schema"}"#),
            "the schema is no JSON Schema: ",
        ),
        ("a schema from a file", text(r#"{"$ref":"file:///etc/passwd"}"#), "the schema is no JSON Schema: "),
        ("a schema without a bottom", text(&nested), "the schema is no JSON: "),
        ("loops in configure", configure(LOOP), "failed in configure: fuel exhausted: "),
        (
            "eats memory in configure",
            configure("(loop $l (drop (memory.grow (i32.const 64))) (br $l))"),
            "memory exhausted: ",
        ),
        ("traps in configure", configure("unreachable"), "failed in configure: trapped: "),
        (
            "objects for ever",
            configure(
                "(i32.store8 (i32.const 1536) (i32.const 1)) (i32.store (i32.const 1540) (i32.const 0))
             (i32.store (i32.const 1544) (i32.const 0x7ffffff)) (return (i32.const 1536))",
            ),
            "out of bounds",
        ),
    ];
    let mut found = Vec::new();
    for (name, guest, _) in &cases {
        let bytes = guest.bytes();
        let message = ends(name, move || {
            let rig = Rig::new();
            match rig.load_wasm(&bytes, &wasm_limits()) {
                Err(error) => error.to_string(),
                Ok(plugin) => plugin.configure(&json!({})).map(|_| ()).unwrap_err().to_string(),
            }
        });
        found.push(((*name).to_owned(), message));
    }
    compare(&found, &cases.map(|(_, _, part)| part));
}

/// A schema that refers to itself, or that takes for ever to hold against a config, ends with an answer.
#[test]
fn a_schema_that_aims_at_its_checker_ends() {
    let long = "a".repeat(40);
    for (name, schema_text, config) in [
        ("refers to itself", r##"{"$ref":"#"}"##, json!({ "a": 1 })),
        (
            "refers to itself by two",
            r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}"##,
            json!({}),
        ),
        (
            "a pattern that backtracks",
            r#"{"properties":{"a":{"pattern":"^(a+)+$"}}}"#,
            json!({ "a": format!("{long}!") }),
        ),
        (
            "a pattern that is enormous",
            r#"{"properties":{"a":{"pattern":"((a{1000}){1000}){1000}"}}}"#,
            json!({ "a": "a" }),
        ),
    ] {
        let bytes = Guest { schema_text, ..Guest::default() }.bytes();
        ends(name, move || {
            let rig = Rig::new();
            // Whether such a config is taken or refused does not matter: that an answer comes does.
            let _ = rig.load_wasm(&bytes, &wasm_limits()).unwrap().configure(&config);
            let honest = rig.wasm(&on_text(""), &wasm_limits());
            assert_eq!(honest.verify(&ctx(), &group(Some("2"), &["2"])).unwrap(), [score(1.0)]);
        });
    }
}

/// The allocator belongs to the guest, and the host calls it while it writes the arguments.
#[test]
fn an_allocator_that_attacks_is_contained() {
    let honest = on_text("");
    for (name, body, part) in [
        ("loops", LOOP, "fuel exhausted: "),
        ("traps", "unreachable", "trapped: "),
        ("points outside", "(return (i32.const -64))", "realloc return: beyond end of memory"),
        ("points at what is not aligned", "(return (i32.const 4097))", "realloc return: result not aligned"),
        ("eats memory", "(loop $l (drop (memory.grow (i32.const 16))) (br $l))", "memory exhausted: "),
    ] {
        let verdicts = ends(name, {
            let body = body.to_owned();
            move || {
                let bytes = Guest::default().with_allocator(&body);
                let plugin = Rig::new().load_wasm(&bytes, &wasm_limits()).unwrap();
                match plugin.configure(&json!({})) {
                    Ok(plugin) => format!("{:?}", plugin.verify(&ctx(), &group(Some("2"), &["2"])).unwrap()),
                    Err(error) => error.to_string(),
                }
            }
        });
        compare(&[(name.to_owned(), verdicts)], &[part]);
    }
    let plugin = Rig::new().wasm(&honest, &wasm_limits());
    assert_eq!(plugin.verify(&ctx(), &group(Some("2"), &["2"])).unwrap(), [score(1.0)]);
}

/// What a component may ask of the outside: name, import, core signature, call, and what comes of it.
struct Outside {
    name: &'static str,
    import: &'static str,
    lower: &'static str,
    core_imports: &'static str,
    misdeed: &'static str,
    /// `None`: the call is answered, harmlessly, and the text is judged as ever.
    part: Option<&'static str>,
}

const OUTSIDE: [Outside; 9] = [
    Outside {
        name: "sleeps through WASI",
        import: r#"(import "wasi:io/poll@0.2.6" (instance $poll (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $p))))))
          (alias export $poll "pollable" (type $pollable))
          (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
            (export "pollable" (type (eq $pollable)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))"#,
        lower: r#"(core func $block (canon lower (func $poll "[method]pollable.block")))
          (core func $after (canon lower (func $clock "subscribe-duration")))
          (core instance $wasi (export "block" (func $block)) (export "after" (func $after)))"#,
        core_imports: r#"(import "wasi" "block" (func $block (param i32)))
          (import "wasi" "after" (func $after (param i64) (result i32)))"#,
        misdeed: "(call $block (call $after (i64.const 3600000000000)))",
        part: None,
    },
    Outside {
        name: "sleeps through WASI for ever",
        import: r#"(import "wasi:io/poll@0.2.6" (instance $poll (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $p))))))
          (alias export $poll "pollable" (type $pollable))
          (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
            (export "pollable" (type (eq $pollable)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))"#,
        lower: r#"(core func $block (canon lower (func $poll "[method]pollable.block")))
          (core func $after (canon lower (func $clock "subscribe-duration")))
          (core instance $wasi (export "block" (func $block)) (export "after" (func $after)))"#,
        core_imports: r#"(import "wasi" "block" (func $block (param i32)))
          (import "wasi" "after" (func $after (param i64) (result i32)))"#,
        misdeed: "(loop $l (call $block (call $after (i64.const 3600000000000))) (br $l))",
        part: Some("fuel exhausted: "),
    },
    Outside {
        name: "asks for four gigabytes of random numbers",
        import: r#"(import "wasi:random/random@0.2.6" (instance $random
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
        lower: r#"(core func $draw (canon lower (func $random "get-random-bytes") (memory $mem) (realloc $realloc)))
          (core instance $wasi (export "draw" (func $draw)))"#,
        core_imports: r#"(import "wasi" "draw" (func $draw (param i64 i32)))"#,
        misdeed: "(call $draw (i64.const 4294967296) (i32.const 1024))",
        part: Some("asked for more than 65536 random bytes at once"),
    },
    Outside {
        name: "tells the seconds by the wall clock",
        import: r#"(import "wasi:clocks/wall-clock@0.2.6" (instance $clock
            (type $d' (record (field "seconds" u64) (field "nanoseconds" u32)))
            (export "datetime" (type $d (eq $d')))
            (export "now" (func (result $d)))))"#,
        lower: r#"(core func $now (canon lower (func $clock "now") (memory $mem)))
          (core instance $wasi (export "now" (func $now)))"#,
        core_imports: r#"(import "wasi" "now" (func $now (param i32)))"#,
        misdeed: "(call $now (i32.const 1024))
          (if (i64.ne (i64.load (i32.const 1024)) (i64.const 1577836800)) (then unreachable))",
        part: None,
    },
    Outside {
        name: "reads the environment",
        import: r#"(import "wasi:cli/environment@0.2.6" (instance $environment
            (export "get-environment" (func (result (list (tuple string string)))))))"#,
        lower: r#"(core func $get (canon lower (func $environment "get-environment") (memory $mem) (realloc $realloc)))
          (core instance $wasi (export "get" (func $get)))"#,
        core_imports: r#"(import "wasi" "get" (func $get (param i32)))"#,
        misdeed: "(call $get (i32.const 1024)) (if (i32.load (i32.const 1028)) (then unreachable))",
        part: None,
    },
    Outside {
        name: "looks for folders",
        import: r#"(import "wasi:filesystem/types@0.2.6" (instance $filesystem (export "descriptor" (type (sub resource)))))
          (alias export $filesystem "descriptor" (type $descriptor))
          (import "wasi:filesystem/preopens@0.2.6" (instance $preopens
            (export "descriptor" (type (eq $descriptor)))
            (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))"#,
        lower: r#"(core func $get (canon lower (func $preopens "get-directories") (memory $mem) (realloc $realloc)))
          (core instance $wasi (export "get" (func $get)))"#,
        core_imports: r#"(import "wasi" "get" (func $get (param i32)))"#,
        misdeed: "(call $get (i32.const 1024)) (if (i32.load (i32.const 1028)) (then unreachable))",
        part: None,
    },
    Outside {
        name: "opens a file by a handle that it made up",
        import: r#"(import "wasi:filesystem/types@0.2.6" (instance $filesystem (export "descriptor" (type $d (sub resource)))
            (export "[method]descriptor.sync" (func (param "self" (borrow $d)) (result (result))))))"#,
        lower: r#"(core func $sync (canon lower (func $filesystem "[method]descriptor.sync")))
          (core instance $wasi (export "sync" (func $sync)))"#,
        core_imports: r#"(import "wasi" "sync" (func $sync (param i32) (result i32)))"#,
        misdeed: "(drop (call $sync (i32.const 1)))",
        part: Some("unknown handle index"),
    },
    Outside {
        name: "makes a socket",
        import: r#"(import "wasi:sockets/tcp-create-socket@0.2.6" (instance $sockets
            (export "create-tcp-socket" (func (result (result (error u8)))))))"#,
        lower: r#"(core func $make (canon lower (func $sockets "create-tcp-socket") (memory $mem)))
          (core instance $wasi (export "make" (func $make)))"#,
        core_imports: r#"(import "wasi" "make" (func $make (param i32)))"#,
        misdeed: "(call $make (i32.const 1024))",
        part: Some(""),
    },
    Outside {
        name: "leaves by the door",
        import: r#"(import "wasi:cli/exit@0.2.6" (instance $exit (export "exit" (func (param "status" (result))))))"#,
        lower: r#"(core func $leave (canon lower (func $exit "exit")))
          (core instance $wasi (export "leave" (func $leave)))"#,
        core_imports: r#"(import "wasi" "leave" (func $leave (param i32)))"#,
        misdeed: "(call $leave (i32.const 0))",
        part: Some("exited with status"),
    },
];

#[test]
fn nothing_of_the_outside_can_be_reached() {
    for outside in &OUTSIDE {
        let imports = format!("{}\n{}", outside.import, outside.lower);
        let guest = Guest {
            imports: &imports,
            core_imports: outside.core_imports,
            core_arguments: r#" (with "wasi" (instance $wasi))"#,
            misdeed: outside.misdeed,
            ..Guest::default()
        };
        let bytes = guest.bytes();
        let verdict = ends(outside.name, move || {
            let plugin = Rig::new().wasm(&bytes, &wasm_limits());
            verdict_among_honest(&plugin, "!")
        });
        match outside.part {
            None => assert_eq!(verdict, score(0.0), "{}", outside.name),
            Some(part) => compare(&[(outside.name.to_owned(), reason(outside.name, verdict))], &[part]),
        }
    }
}

/// While one plugin attacks from eight threads, another judges as ever, at the same cost.
#[test]
fn honest_plugins_are_not_disturbed_by_others() {
    let limits = Limits { fuel: Some(2_000_000), ..wasm_limits() };
    let rig = Rig::new();
    let honest = rig.wasm(&on_text(""), &limits);
    let work = || honest.verify(&ctx(), &group(Some("2"), &["2", "3", "2"])).unwrap();
    let alone = (work(), honest.spent().fuel);
    let hostile: Vec<_> = MISDEEDS.iter().take(9).map(|(_, misdeed, _)| rig.wasm(&on_text(misdeed), &limits)).collect();
    std::thread::scope(|scope| {
        for plugin in &hostile[..8] {
            scope.spawn(|| {
                for _ in 0..8 {
                    let verdicts = plugin.verify(&ctx(), &group(Some("2"), &["!", "2"])).unwrap();
                    assert!(matches!(verdicts[0], Verdict::Undecided(_)) && verdicts[1] == score(1.0));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let before = work();
                    assert_eq!(before, alone.0);
                }
            });
        }
    });
    assert_eq!(honest.spent().fuel, alone.1 * 401, "the cost does not depend on the company");
}
