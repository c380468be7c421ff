//! The plugin `code` with its runtimes: what it makes of programs, honest and hostile, and of published sets of problems.
//!
//! Tests that run Python are skipped with a line where its runtime was not built (`pipeline plugin build --runtime python`),
//! and those that need data where it is absent.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests; one that is skipped says so")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base::{Grants, Group, Limits, Runs, Verdict};
use common::{ctx, group};
use host::{Code, Configured, Host, Options, Runtime};
use serde_json::{Value, json};

const LIMITS: Limits =
    Limits { fuel: Some(200_000_000), memory: Some(64 << 20), operations: None, output: Some(16 << 20), log: None };

/// One for all tests: the pool of instances and the compiled runtimes are large.
fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new(Options::default()).unwrap())
}

/// The plugin with a runtime, or `None` with a printed line where that was not built.
fn code(runtime: Runtime, runs: Runs, config: &Value) -> Option<Configured> {
    if runtime.path().is_some_and(|path| !path.exists()) {
        println!("skipped: `pipeline plugin build --runtime {}` builds what this test needs", runtime.name());
        return None;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let folder = std::env::var_os("PIPELINE_PLUGINS").map_or(folder, PathBuf::from);
    let grants = Grants { runtimes: BTreeMap::from([(runtime.name().to_owned(), runs)]), ..Grants::default() };
    let plugin = host().load("code", Code::Wasm(&folder.join("code/code.wasm")), &LIMITS, &grants).unwrap();
    Some(plugin.configure(config).unwrap_or_else(|error| panic!("{error}")))
}

const RUNS: Runs = Runs { fuel: 4_000_000_000, memory: 128 << 20, runs: 16 };

fn python(config: &Value) -> Option<Configured> {
    code(Runtime::Python, RUNS, config)
}

/// Data that is too large for the project, or `None` with a printed line where it is absent.
fn shared(path: &str) -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there", path.display());
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A row with completions.
fn row(fields: &[(&str, &Value)], completions: &[&str]) -> Group {
    let mut group = group(None, completions);
    let mut prompt = (*group.prompt).clone();
    prompt.fields = fields.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    group.prompt = prompt.into();
    group
}

fn fenced(program: &str) -> String {
    format!("Here it is:\n```python\n{program}\n```\n")
}

/// Scores, and notes.
fn found(verdicts: &[Verdict]) -> Vec<(f64, String)> {
    let found = |verdict: &Verdict| match verdict {
        Verdict::Decided(finding) => (finding.score, finding.note.clone().unwrap()),
        other => panic!("{other:?}"),
    };
    verdicts.iter().map(found).collect()
}

/// Calls `f` for all rows on all cores, and gives what it gave in order.
fn map<T: Send>(rows: &[Value], f: impl Fn(&Value) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            rows.chunks(share).map(|rows| scope.spawn(|| rows.iter().map(&f).collect::<Vec<_>>())).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn all_canonical_solutions_of_humaneval_pass_and_no_empty_body_does() {
    let Some(plugin) = python(&json!({ "tests": "test", "prepend": "prompt" })) else { return };
    let Some(rows) = shared("humaneval/python.jsonl") else { return };
    let verdicts = map(&rows, |problem| {
        let prompt = text(&problem["prompt"]);
        let body = text(&problem["canonical_solution"]);
        let completions = [fenced(&body), fenced(&format!("{prompt}{body}")), fenced("    pass"), "    pass".into()];
        let fields = [("test", &problem["test"]), ("prompt", &problem["prompt"])];
        let completions = completions.each_ref().map(String::as_str);
        found(&plugin.verify(&ctx(), &row(&fields, &completions)).unwrap())
    });
    for (problem, found) in rows.iter().zip(&verdicts) {
        let scores: Vec<_> = found.iter().map(|(score, _)| *score).collect();
        assert_eq!(scores, [1.0, 1.0, 0.0, 0.0], "{}: {found:?}", problem["task_id"]);
    }
    assert_eq!(verdicts.len(), 164);
    println!("{:?}", plugin.spent());
}

#[test]
fn the_reference_programs_of_mbpp_pass_their_asserts_but_one() {
    let Some(plugin) = python(&json!({ "tests": "test_list", "setup": "test_setup_code" })) else { return };
    let Some(rows) = shared("mbpp/mbpp.jsonl") else { return };
    let verdicts = map(&rows, |problem| {
        let completions = [fenced(&text(&problem["code"])), fenced("def unrelated():\n    pass")];
        let fields = ["test_list", "test_setup_code"].map(|name| (name, &problem[name]));
        found(&plugin.verify(&ctx(), &row(&fields, &completions.each_ref().map(String::as_str))).unwrap())
    });
    assert_eq!(verdicts.len(), 974);
    let mut failed = Vec::new();
    for (problem, found) in rows.iter().zip(&verdicts) {
        assert_eq!(found[1].0, 0.0, "{}: {found:?}", problem["task_id"]);
        if found[0].0 != 1.0 {
            failed.push((problem["task_id"].as_u64().unwrap(), found[0].1.as_str()));
        }
    }
    // Tries all pairs of numbers below 10,000: 100 million steps.
    let slow = "1 of 3 tests passed; amicable_numbers_sum(9999) == 31626: the program was over (out of fuel)";
    assert_eq!(failed, [(123, slow)]);
    println!("{:?}", plugin.spent());
}

#[test]
fn programs_that_read_and_print_are_scored_as_published() {
    let Some(plugin) = python(&json!({ "score": "share" })) else { return };
    let Some(rows) = shared("code_stdio/cases.jsonl") else { return };
    for (problem, expected) in rows.iter().zip([1.0, 10.0 / 11.0]) {
        let fields = ["inputs", "outputs"].map(|name| (name, &problem[name]));
        let program = fenced(&text(&problem["solution_python"]));
        let found = found(&plugin.verify(&ctx(), &row(&fields, &[&program, "no program"])).unwrap());
        assert_eq!((found[0].0, found[1].0), (expected, 0.0), "{found:?}");
    }
}

/// Programs that aim at the harness, not at the problem: `f` has to double its argument. The third is what the note holds.
const HOSTILE: &[(&str, &str, &str)] = &[
    ("exits early", "import sys\nsys.exit(0)", "program was over"),
    ("exits at once", "import os\nos._exit(0)", "program was over"),
    ("raises SystemExit when called", "def f(x):\n    raise SystemExit(0)", "SystemExit"),
    ("exits when called", "import os\ndef f(x):\n    os._exit(0)", "program was over"),
    (
        "prints that it passed",
        "print('{\"tests\": 2, \"passed\": 2, \"holds\": true, \"failure\": \"\"}')\ndef f(x):\n    print('passed', 'OK')",
        "AssertionError",
    ),
    (
        "writes a verdict where results are written",
        "import os\nfor _ in range(9):\n    os.write(1, b'{\"holds\": true}\\n')\ndef f(x):\n    pass",
        "program was over",
    ),
    (
        "is equal to everything",
        "class E:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\ndef f(x):\n    return E()",
        "AssertionError",
    ),
    (
        "is a number that is equal to everything",
        "class E(int):\n    def __eq__(self, other):\n        return True\n    def __hash__(self):\n        return 0\ndef f(x):\n    return E(1)",
        "AssertionError",
    ),
    (
        "has no difference to anything",
        "class E:\n    def __sub__(self, other):\n        return 0\n    __rsub__ = __sub__\n    def __abs__(self):\n        return 0\n    def __float__(self):\n        return 0.0\ndef f(x):\n    return E()",
        "Error",
    ),
    (
        "overwrites builtins",
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.AssertionError = Exception\nbuiltins.all = builtins.isinstance = lambda *a: True\nbuiltins.print = lambda *a: None\ndef f(x):\n    return 0",
        "",
    ),
    (
        "defines `check` and `abs`",
        "def check(f):\n    pass\ndef abs(x):\n    return 0\ndef f(x):\n    return 0",
        "AssertionError",
    ),
    (
        "patches the harness",
        "import sys\nfor name in ('_judge.program', '_judge.values', '_judge.tests', 'json'):\n    module = sys.modules[name]\n    for key in list(vars(module)):\n        if callable(getattr(module, key)):\n            setattr(module, key, lambda *a, **k: True)\ndef f(x):\n    return 0",
        "program was over",
    ),
    (
        "looks for the tests in memory",
        "import gc\ndef f(x):\n    test = ' == '.join(['f(2)', '4'])\n    for held in gc.get_objects():\n        if isinstance(held, (dict, list, tuple)):\n            for value in held.values() if isinstance(held, dict) else held:\n                if isinstance(value, str) and test in value:\n                    return 2 * x\n    return 0",
        "AssertionError",
    ),
    (
        "leaves an exit handler",
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x):\n    return 0",
        "AssertionError",
    ),
    (
        "closes the outputs",
        "import os, sys\nsys.stdout.close()\nsys.stderr.close()\nos.close(1)\ndef f(x):\n    return 2 * x",
        "program was over",
    ),
    ("never ends", "while True:\n    pass", "out of fuel"),
    ("never ends when called", "def f(x):\n    while True:\n        pass", "out of fuel"),
    ("sleeps", "import time\ndef f(x):\n    time.sleep(10**6)\n    return 0", "AssertionError"),
    (
        "takes all memory",
        "def f(x):\n    a = []\n    while True:\n        a.append(bytearray(1 << 20))",
        "out of memory",
    ),
    ("takes all memory at once", "def f(x):\n    return 'a' * (1 << 30)", "out of memory"),
    ("calls itself without end", "def f(x):\n    return f(x)", "RecursionError"),
    (
        "calls itself deeper than the stack",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return repr(f(x))",
        "",
    ),
    ("forks", "import os\ndef f(x):\n    while True:\n        os.fork()", "AttributeError"),
    (
        "starts a process",
        "import subprocess\ndef f(x):\n    return int(subprocess.check_output(['echo', str(2 * x)]))",
        "OSError",
    ),
    ("reads files", "def f(x):\n    open('/etc/passwd').read()\n    return 2 * x", "FileNotFoundError"),
    ("lists files", "import os\ndef f(x):\n    return 2 * x if os.listdir('/') else 0", "Error"),
    ("reads the environment", "import os\ndef f(x):\n    return 2 * x if os.environ else 0", "AssertionError"),
    (
        "opens a connection",
        "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', 80))\n    return 2 * x",
        "Error",
    ),
    ("prints without end", "def f(x):\n    while True:\n        print('x' * 1000)", "out of fuel"),
    ("gives a value that holds itself", "def f(x):\n    a = []\n    a.append(a)\n    return a", "Foreign"),
    (
        "gives a deep value",
        "def f(x):\n    a = []\n    for _ in range(100000):\n        a = [a]\n    return a",
        "program was over",
    ),
    ("gives a huge value", "def f(x):\n    return list(range(10**7))", "out of"),
    ("asks for ever more", "import itertools\ndef f(x):\n    return itertools.count()", "AssertionError"),
    (
        "raises what can't be shown",
        "class E(Exception):\n    def __str__(self):\n        raise self\n    args = property(lambda self: 1 / 0)\ndef f(x):\n    raise E",
        "E",
    ),
    (
        "raises a class with a lying name",
        "class Foreign(BaseException):\n    pass\ndef f(x):\n    raise Foreign",
        "program was over",
    ),
    ("is no Python", "def f(x) return 2 * x", "SyntaxError"),
    ("holds a null character", "def f(x):\n    return '\\0'\n#\0", ""),
];

#[test]
fn no_program_gains_by_aiming_at_the_harness() {
    let runs = Runs { fuel: 500_000_000, memory: 64 << 20, ..RUNS };
    let Some(plugin) = code(Runtime::Python, runs, &json!({})) else { return };
    let tests = json!(["assert f(2) == 4", "assert abs(f(3) - 6) < 1e-6", "assert f(4) in [8]"]);
    let mut programs: Vec<String> = HOSTILE.iter().map(|(_, program, _)| fenced(program)).collect();
    // Honest ones among them.
    let honest = [
        "def f(x):\n    return 2 * x",
        "import sys\ndef f(x):\n    print(x)\n    return x + x\nif __name__ == '__main__':\n    sys.exit(f(1))",
    ];
    programs.extend(honest.map(fenced));
    let completions: Vec<&str> = programs.iter().map(String::as_str).collect();
    let verdicts = found(&plugin.verify(&ctx(), &row(&[("tests", &tests)], &completions)).unwrap());
    let other: Vec<_> = HOSTILE
        .iter()
        .zip(&verdicts)
        .filter(|((_, _, note), (score, found))| *score != 0.0 || !found.contains(note))
        .map(|((name, ..), found)| (name, found))
        .collect();
    assert!(other.is_empty(), "{other:#?}");
    assert_eq!(verdicts[HOSTILE.len()..], vec![(1.0, "3 of 3 tests passed".into()); honest.len()]);
}

/// Programs of JavaScript; `f` has to double its argument.
const HOSTILE_JAVASCRIPT: &[(&str, &str)] = &[
    ("exits early", "process.exit(0)"),
    ("exits when called", "function f(x) { process.exit(0); }"),
    ("prints that it passed", "console.log('passed'); console.log('{\"holds\":true}'); function f(x) {}"),
    ("is equal to everything", "function f(x) { return { valueOf: () => true, [Symbol.toPrimitive]: () => NaN }; }"),
    (
        "gives a proxy",
        "function f(x) { return new Proxy({}, { get: () => 2, has: () => true, ownKeys: () => ['0'], getPrototypeOf: () => Number.prototype }); }",
    ),
    (
        "overwrites builtins",
        "Object.is = () => true; Math.abs = () => 0; JSON.parse = () => ({}); JSON.stringify = () => '{\"gave\":4}'; Array.prototype.every = () => true; function f(x) { return 0; }",
    ),
    (
        "defines `assert`",
        "var assert = () => {}; assert.equal = assert.deepEqual = () => {}; function f(x) { return 0; }",
    ),
    ("lies about prototypes", "Object.prototype.gave = 4; Object.prototype.holds = true; function f(x) {}"),
    ("never ends", "for (;;) {}"),
    ("never ends when called", "function f(x) { for (;;) {} }"),
    ("takes all memory", "function f(x) { const a = []; for (;;) a.push(new Uint8Array(1 << 20)); }"),
    ("calls itself without end", "function f(x) { return f(x) + 1; }"),
    ("reads files", "function f(x) { return require('fs').readFileSync('/etc/passwd').length ? 2 * x : 0; }"),
    ("imports modules", "function f(x) { require('child_process'); return 2 * x; }"),
    ("waits", "async function f(x) { await null; return 2 * x; }"),
    ("holds itself", "function f(x) { const a = []; a.push(a); return a; }"),
    ("is no JavaScript", "function f(x { return 2 * x; }"),
];

#[test]
fn no_program_of_javascript_gains_by_aiming_at_the_harness() {
    let runs = Runs { fuel: 200_000_000, memory: 32 << 20, ..RUNS };
    let plugin = code(Runtime::JavaScript, runs, &json!({ "language": "javascript" })).unwrap();
    let tests = json!(["assert(f(2) === 4)", "assert.equal(f(3), 6);", "assert.deepEqual([f(4), f(5)], [8, 10])"]);
    let fenced = |program: &&str| format!("```js\n{program}\n```");
    let honest = ["function f(x) { console.log(x); return 2 * x; }", "const f = (x) => x + x;\nconsole.log(f(1));"];
    let programs = HOSTILE_JAVASCRIPT.iter().map(|(_, program)| program).chain(&honest);
    let programs: Vec<String> = programs.map(fenced).collect();
    let completions: Vec<&str> = programs.iter().map(String::as_str).collect();
    let verdicts = found(&plugin.verify(&ctx(), &row(&[("tests", &tests)], &completions)).unwrap());
    let gained: Vec<_> = HOSTILE_JAVASCRIPT.iter().zip(&verdicts).filter(|(_, found)| found.0 != 0.0).collect();
    assert!(gained.is_empty(), "{gained:#?}");
    assert_eq!(verdicts[HOSTILE_JAVASCRIPT.len()..], vec![(1.0, "3 of 3 tests passed".into()); honest.len()]);
}

#[test]
fn asynchronous_tests_of_javascript_decide_nothing() {
    let plugin = code(Runtime::JavaScript, RUNS, &json!({ "language": "javascript" })).unwrap();
    let tests = json!(["(async () => { assert(f(2) === 5); })();"]);
    let verdicts = plugin.verify(&ctx(), &row(&[("tests", &tests)], &["```js\nconst f = (x) => 2 * x;\n```"])).unwrap();
    let [Verdict::Undecided(reason)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
    assert!(reason.contains("asynchronous"), "{reason}");
}

/// What programs read and print: source, stdin, stdout; `None` for one that has to fail.
type Printed<'a> = (&'a str, &'a str, Option<&'a str>);

#[track_caller]
fn check_printed(runtime: Runtime, language: &str, programs: &[Printed<'_>]) {
    let Some(plugin) = code(runtime, RUNS, &json!({ "language": language, "whitespace": "exact" })) else { return };
    for (source, stdin, stdout) in programs {
        let (inputs, outputs) = (json!([stdin]), json!([stdout.unwrap_or_default()]));
        let fields = [("inputs", &inputs), ("outputs", &outputs)];
        let found = found(&plugin.verify(&ctx(), &row(&fields, &[&format!("```{language}\n{source}\n```")])).unwrap());
        assert_eq!(found[0].0, f64::from(stdout.is_some()), "{source}\n{}", found[0].1);
    }
}

#[test]
fn programs_of_python_read_and_print_as_they_are_used_to() {
    check_printed(
        Runtime::Python,
        "python",
        &[
            ("print(sum(map(int, input().split())))", "1 2\n", Some("3\n")),
            ("import sys\nfor line in sys.stdin:\n    print(line.strip()[::-1])", "ab\ncd", Some("ba\ndc\n")),
            ("import sys\nprint(len(sys.stdin.read()), end='')", "h\u{e9}\n", Some("3")),
            ("import sys\nprint(len(sys.stdin.buffer.read()))", "h\u{e9}\n", Some("4\n")),
            ("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.readline())", "h\u{e9}\n", Some("h\u{e9}\n")),
            (
                "import sys\nsys.stdout.write('a')\nprint('b', file=sys.stderr)\nprint('c', flush=True)",
                "",
                Some("ac\n"),
            ),
            ("def main():\n    print(1)\nif __name__ == '__main__':\n    main()", "", Some("1\n")),
            ("import sys\nprint(1)\nsys.exit()", "", Some("1\n")),
            ("print(1)\nexit(0)", "", Some("1\n")),
            ("import os\nprint(1, flush=True)\nos._exit(0)", "", Some("1\n")),
            ("import sys\nsys.exit(1)", "", None),
            ("import sys\nsys.exit('no')", "", None),
            ("raise ValueError", "", None),
            ("input()", "", None),
            (
                "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return n and 1 + f(n - 1)\nprint(f(20000))",
                "",
                Some("20000\n"),
            ),
            (
                "import sys, threading\ndef main():\n    print(input())\nthreading.stack_size(1 << 27)\nt = threading.Thread(target=main)\nt.start()\nt.join()",
                "x\n",
                Some("x\n"),
            ),
            (
                "from collections import *\nfrom heapq import *\nfrom math import *\nimport bisect, itertools, functools, re, string, decimal, fractions, random, copy, datetime, time, statistics, json, typing, dataclasses, enum, operator, array, queue\nprint(gcd(4, 6), Counter('aab').most_common(1))",
                "",
                Some("2 [('a', 2)]\n"),
            ),
            ("import datetime\nprint(datetime.datetime.strptime('2020-01-02', '%Y-%m-%d').day)", "", Some("2\n")),
            (
                "import time\na = time.time()\ntime.sleep(3)\nprint(time.perf_counter() >= 0, f'{1.5:.2f}')",
                "",
                Some("True 1.50\n"),
            ),
            ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1))", "", Some("A(x=1)\n")),
            (
                "import asyncio\nasync def f(x):\n    await asyncio.sleep(x)\n    return x\nasync def main():\n    print(await asyncio.gather(f(2), f(1)))\nasyncio.run(main())",
                "",
                Some("[2, 1]\n"),
            ),
            ("print('x' * 100000)", "", Some(&format!("{}\n", "x".repeat(100_000)))),
        ],
    );
}

#[test]
fn programs_of_javascript_read_and_print_as_they_are_used_to() {
    check_printed(
        Runtime::JavaScript,
        "javascript",
        &[
            ("const [a, b] = readline().split(' ').map(Number);\nconsole.log(a + b);", "1 2\n", Some("3\n")),
            (
                "const lines = require('fs').readFileSync(0, 'utf8').trim().split('\\n');\nconsole.log(lines.length);",
                "a\nb\n",
                Some("2\n"),
            ),
            ("console.log(require('node:fs').readFileSync('/dev/stdin').toString().length);", "h\u{e9}", Some("2\n")),
            (
                "const rl = require('readline').createInterface({ input: process.stdin });\nconst lines = [];\nrl.on('line', (line) => lines.push(line)).on('close', () => console.log(lines.join()));",
                "a\nb\n",
                Some("a,b\n"),
            ),
            (
                "let all = '';\nprocess.stdin.on('data', (part) => (all += part));\nprocess.stdin.on('end', () => console.log(all));",
                "x",
                Some("x\n"),
            ),
            ("process.stdout.write('a');\nconsole.error('b');\nconsole.log('%d-%s', 1, 'c');", "", Some("a1-c\n")),
            (
                "console.log([1, 'a', { b: null }], new Map([[1, 2]]), -0, 5n, undefined);",
                "",
                Some("[ 1, 'a', { b: null } ] Map(1) { 1 => 2 } -0 5n undefined\n"),
            ),
            ("setTimeout(() => console.log(2), 5);\nsetTimeout(() => console.log(1), 1);", "", Some("1\n2\n")),
            ("console.log(1);\nprocess.exit();", "", Some("1\n")),
            ("process.exit(1);", "", None),
            ("throw new Error('x');", "", None),
            ("null.x", "", None),
            ("Promise.resolve(1).then(console.log);", "", None),
            ("(async () => { throw new Error('x'); })();", "", None),
            ("(async () => { await 0; throw new Error('x'); })();", "", None),
            ("console.log('async'); // await it\n", "", Some("async\n")),
        ],
    );
}
