//! Rhai scripts: glue over native helpers, in an engine without clock, files, modules or `eval`.
//!
//! A script defines one or more of `verify(ctx, group)`, `reward(ctx, group, judgements)`, `filter(ctx, groups, rewards)` and
//! `generate(ctx, first, count)`, and may define `schema()` and `configure(config)`. Its functions see the constant
//! `config`. Every call starts from nothing: a script can't keep anything from one call to the next.

mod condition;
mod helpers;
mod meter;
mod values;

use std::ops::Range;
use std::sync::Arc;

use base::{Context, Decision, Group, Limits, Row, Verdict};
pub use condition::{Condition, ConditionError};
use meter::Meter;
use rhai::packages::{
    BasicArrayPackage, BasicMapPackage, BitFieldPackage, CorePackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FuncArgs, OptimizationLevel, Scope};

use crate::sandbox::{Code, Cost, Fault, Outcome, Patience, Sandbox, grouped};
use crate::{HostError, Source, World};

/// Bytes that a script may log in a call, where the limits don't say.
const LOG: u64 = 64 << 10;

/// Bytes of a result, where the limits don't say.
const OUTPUT: u64 = 1 << 20;

/// The longest string and the longest array of a script, and of what one value holds: they bound what one operation can cost.
/// A group with more text than this is judged completion by completion.
const STRING: usize = 2 << 20;
const ARRAY: usize = 16_384;

/// The stack of a call. A script may nest lists as deep as the limit on their size lets it, and the engine walks them by
/// recursion.
const STACK: usize = 64 << 20;

/// A script that parses and has the function of a world.
pub(crate) struct Script {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    engine: Engine,
    ast: AST,
    worlds: Vec<World>,
    has_schema: bool,
    has_configure: bool,
    operations: u64,
    output: u64,
    log: u64,
}

impl Script {
    /// Parses a script and finds its worlds.
    pub(crate) fn load(source: &Source<'_>, limits: &Limits) -> Result<Self, HostError> {
        let operations = limits
            .operations
            .ok_or_else(|| source.missing("operations", "a script never runs without a limit on its operations"))?;
        let text = std::str::from_utf8(source.bytes).map_err(|_| source.unusable("the script is not UTF-8"))?;
        let engine = engine();
        let ast = engine.compile(text).map_err(|error| {
            let position = error.position();
            HostError::Syntax {
                origin: source.origin.into(),
                line: position.line().unwrap_or(1),
                column: position.position().unwrap_or(1),
                message: error.err_type().to_string(),
            }
        })?;
        let has = |name: &str, parameters: usize| {
            ast.iter_functions().any(|function| function.name == name && function.params.len() == parameters)
        };
        let worlds: Vec<World> =
            World::ALL.into_iter().filter(|world| has(world.function(), signature(*world).len())).collect();
        if worlds.is_empty() {
            let functions = World::ALL.map(|world| format!("{}({})", world.function(), signature(world).join(", ")));
            let named = World::ALL
                .into_iter()
                .find(|world| ast.iter_functions().any(|function| function.name == world.function()));
            let detail = match named {
                Some(world) => {
                    format!("its function `{0}` must be `{0}({1})`", world.function(), signature(world).join(", "))
                }
                None => format!("it must define one of {}", functions.join(", ")),
            };
            return Err(source.unusable(detail));
        }
        let (has_schema, has_configure) = (has("schema", 0), has("configure", 1));
        let inner = Inner {
            name: source.plugin.into(),
            engine,
            worlds,
            has_schema,
            has_configure,
            operations,
            output: limits.output.unwrap_or(OUTPUT),
            log: limits.log.unwrap_or(LOG),
            ast,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn worlds(&self) -> &[World] {
        &self.inner.worlds
    }
}

/// The parameters of a world's function.
fn signature(world: World) -> &'static [&'static str] {
    match world {
        World::Verifier => &["ctx", "group"],
        World::Rewarder => &["ctx", "group", "judgements"],
        World::Filterer => &["ctx", "groups", "rewards"],
        World::Generator => &["ctx", "first", "count"],
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new_raw();
    CorePackage::new().register_into_engine(&mut engine);
    BitFieldPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    helpers::register(&mut engine);
    // The powers and roots of the package would be the platform's; `helpers` has libm's.
    // What `this` holds would be copied without being metered.
    for symbol in ["eval", "import", "export", "print", "debug", "**", "**=", "this"] {
        engine.disable_symbol(symbol);
    }
    engine
        .set_optimization_level(OptimizationLevel::Simple)
        // The fast ones would pass by those of `helpers` that are metered.
        .set_fast_operators(false)
        .set_max_modules(0)
        .set_max_call_levels(16)
        .set_max_expr_depths(64, 64)
        .set_max_functions(256)
        .set_max_variables(64)
        .set_max_string_size(STRING)
        .set_max_array_size(ARRAY)
        .set_max_map_size(ARRAY)
        .on_print(|_| {})
        .on_debug(|_, _, _| {})
        .on_progress(meter::progress);
    #[expect(deprecated, reason = "the attribute only says that the callback's form may change")]
    engine.on_var(|name, index, context| {
        if name == "config" && index == 0 {
            return Ok(meter::config());
        }
        // Reading a variable may copy it, and the engine counts that as one operation, however much it holds.
        context.scope().get(name).map_or(Ok(()), |value| meter::copy(values::held(value)))?;
        Ok(None)
    });
    engine
}

impl Inner {
    /// One call of a function of the script, with the budget of `n` completions or rows.
    fn call(
        &self,
        function: &str,
        config: Option<&Dynamic>,
        n: u64,
        patience: Patience,
        args: impl FuncArgs,
    ) -> Outcome<Dynamic> {
        let limit = self.operations.saturating_mul(n.max(1));
        let call = || stacker::maybe_grow(STACK / 2, STACK, || self.call_here(function, config, limit, patience, args));
        // The engine has `unreachable!` where a script may bring it to.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_or_else(|_| {
            let reason = "the script engine failed on this script";
            Outcome { result: Err(Fault::Guest(reason.into())), cost: Cost::default() }
        })
    }

    fn call_here(
        &self,
        function: &str,
        config: Option<&Dynamic>,
        limit: u64,
        patience: Patience,
        args: impl FuncArgs,
    ) -> Outcome<Dynamic> {
        let meter = Meter::start(limit, self.log, patience, config.cloned());
        let options = CallFnOptions::new().eval_ast(true).rewind_scope(true);
        let result = self.engine.call_fn_with_options::<Dynamic>(options, &mut Scope::new(), &self.ast, function, args);
        let end = meter.finish();
        for message in &end.logged {
            tracing::info!(plugin = self.name, message, "log");
        }
        let result = result.map_err(|error| match end.stopped {
            Some(meter::Stopped::Operations) => Fault::Exhausted,
            Some(meter::Stopped::Time) => Fault::Expired,
            None => Fault::Guest(reason(&error)),
        });
        let result = result.and_then(|value| {
            let (size, allowed) = (values::size(&value), self.output);
            if size > allowed {
                let (size, allowed) = (grouped(size), grouped(allowed));
                return Err(Fault::Guest(format!("returned too much: {size} bytes, {allowed} allowed in a call")));
            }
            Ok(value)
        });
        Outcome { result, cost: Cost { units: end.operations, ..Cost::default() } }
    }
}

/// What the script threw, or the engine's message with its place.
fn reason(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => reason(inner),
        EvalAltResult::ErrorRuntime(thrown, _) if thrown.is_string() => thrown.to_string(),
        EvalAltResult::ErrorDataRace(..) => {
            format!(
                "{error}: a closure can't read a variable while a method of it runs; take what it needs before, as in `let want = group.reference;`"
            )
        }
        _ => error.to_string(),
    }
}

impl<T> Outcome<T> {
    fn and_then<U>(self, f: impl FnOnce(T) -> Result<U, String>) -> Outcome<U> {
        Outcome { result: self.result.and_then(|value| f(value).map_err(Fault::Guest)), cost: self.cost }
    }
}

impl Code for Script {
    fn schema(&self, patience: Patience) -> Outcome<Option<String>> {
        if !self.inner.has_schema {
            return Outcome { result: Ok(None), cost: Cost::default() };
        }
        self.inner.call("schema", None, 1, patience, ()).and_then(|value| match value.type_name() {
            "string" => Ok(Some(value.to_string())),
            _ => values::json(&value).map(|schema| Some(schema.to_string())),
        })
    }

    fn check(&self, config: &str, patience: Patience) -> Outcome<Vec<(String, String)>> {
        if !self.inner.has_configure {
            return Outcome { result: Ok(Vec::new()), cost: Cost::default() };
        }
        let config = match serde_json::from_str(config) {
            Ok(value) => values::dynamic(&value),
            Err(error) => return Outcome { result: Err(Fault::Guest(error.to_string())), cost: Cost::default() },
        };
        self.inner.call("configure", Some(&config.clone()), 1, patience, (config,)).and_then(values::config_errors)
    }

    fn bind(&self, config: &serde_json::Value) -> Arc<dyn Sandbox> {
        Arc::new(Bound { inner: Arc::clone(&self.inner), config: values::dynamic(config) })
    }

    fn interface(&self) -> Option<(&'static str, Vec<String>)> {
        None
    }

    fn budget(&self) -> (u64, &'static str) {
        (self.inner.operations, "operations")
    }
}

/// A script with its config.
struct Bound {
    inner: Arc<Inner>,
    config: Dynamic,
}

impl Sandbox for Bound {
    fn verify(&self, ctx: &Context, group: &Group, which: Range<usize>, patience: Patience) -> Outcome<Vec<Verdict>> {
        let args = (values::context(ctx), values::group(group, which.clone()));
        let n = which.len() as u64;
        self.inner.call("verify", Some(&self.config), n, patience, args).and_then(values::verdicts)
    }

    fn reward(&self, ctx: &Context, group: &Group, patience: Patience) -> Outcome<Vec<Option<f64>>> {
        let n = group.completions.len();
        let args = (values::context(ctx), values::group(group, 0..n), values::judgements(&group.judgements));
        self.inner.call("reward", Some(&self.config), n as u64, patience, args).and_then(values::rewards)
    }

    fn filter(&self, ctx: &Context, groups: &[Arc<Group>], patience: Patience) -> Outcome<Vec<Vec<Decision>>> {
        let n: usize = groups.iter().map(|group| group.completions.len()).sum();
        let (shapes, rewards) = values::step(groups);
        let args = (values::context(ctx), shapes, rewards);
        self.inner.call("filter", Some(&self.config), n as u64, patience, args).and_then(values::decisions)
    }

    fn generate(&self, ctx: &Context, first: u64, count: u32, patience: Patience) -> Outcome<Vec<Row>> {
        let args = (values::context(ctx), first as i64, i64::from(count));
        self.inner.call("generate", Some(&self.config), u64::from(count), patience, args).and_then(values::rows)
    }
}
