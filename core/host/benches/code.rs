//! One program in a granted runtime, in a fresh sandbox: what a case of the plugin `code` costs, the plugin's own call included.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark; one that is skipped says so")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;

use base::{Grants, Limits, Runs};
use common::{ctx, group};
use divan::Bencher;
use host::{Code, Host, Options, Runtime};
use serde_json::json;

fn main() {
    divan::main();
}

const PROGRAMS: [(Runtime, &str); 2] = [
    (Runtime::Python, "```python\nprint(sum(map(int, input().split())))\n```"),
    (Runtime::JavaScript, "```js\nconsole.log(readline().split(' ').map(Number).reduce((a, b) => a + b));\n```"),
];

#[divan::bench(args = PROGRAMS.map(|(runtime, _)| runtime.name()))]
fn one_run(bencher: Bencher<'_, '_>, name: &str) {
    let (runtime, program) = PROGRAMS.into_iter().find(|(runtime, _)| runtime.name() == name).unwrap();
    if runtime.path().is_some_and(|path| !path.exists()) {
        println!("skipped: `pipeline plugin build --runtime {name}` builds what this needs");
        return;
    }
    let host = Host::new(Options::default()).unwrap();
    let runs = Runs { fuel: 2_000_000_000, memory: 256 << 20, runs: 16 };
    let grants = Grants { runtimes: BTreeMap::from([(name.to_owned(), runs)]), ..Grants::default() };
    let limits = Limits { fuel: Some(100_000_000), memory: Some(64 << 20), ..Limits::default() };
    let plugin = host.load("code", Code::Builtin("code"), &limits, &grants).unwrap();
    let plugin = plugin.configure(&json!({ "language": name })).unwrap();
    let mut group = group(None, &[program]);
    let mut prompt = (*group.prompt).clone();
    prompt.fields = vec![("inputs".into(), r#"["1 2 3\n"]"#.into()), ("outputs".into(), r#"["6\n"]"#.into())];
    group.prompt = prompt.into();
    bencher.bench(|| plugin.verify(&ctx(), &group).unwrap());
}
