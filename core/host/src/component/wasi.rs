//! A virtual WASI 0.2 for components that were built against it: no files, no sockets, no arguments, a fixed wall clock, a
//! monotonic clock that counts calls, pollables that are ready at once, and random numbers from the call's seed.
//!
//! Functions are defined from the component's own import types, whatever 0.2 release it names. What has no sensible virtual
//! form traps when it is called, with its name.

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut, bail};

use super::imports::{Level, State, charge};

/// The wall clock: 2020-01-01T00:00:00Z, in seconds since 1970.
const WALL_CLOCK: u64 = 1_577_836_800;

/// What a look at the monotonic clock adds to it, in nanoseconds.
const TICK: u64 = 1_000;

/// Bytes that a stream takes at once.
const CHUNK: u64 = 4_096;

/// Random bytes that are given at once.
const RANDOM_BYTES: usize = 65_536;

struct Pollable;
struct InputStream;
/// The representation says which: 1 is stdout, 2 is stderr.
struct OutputStream;
struct Network;
/// A resource of which there is never an instance.
struct Absent;

/// What ends an instance that exits, as a trap.
#[derive(Debug, thiserror::Error)]
#[error("exited with status {0}")]
pub(super) struct Exited(pub(super) u8);

impl Exited {
    fn new(params: &[Val]) -> Self {
        Self(match params {
            [Val::Result(Ok(_))] => 0,
            [Val::U8(status)] => *status,
            _ => 1,
        })
    }
}

type Answer = fn(&mut StoreContextMut<'_, State>, &[Val]) -> wasmtime::Result<Val>;

/// Whether an import is WASI's.
pub(super) fn is_wasi(import: &str) -> bool {
    import.starts_with("wasi:") && import.contains("@0.2.")
}

/// Defines the functions and resources of `import`.
pub(super) fn define(
    linker: &mut Linker<State>,
    engine: &Engine,
    import: &str,
    instance: &ComponentInstance,
) -> wasmtime::Result<()> {
    let interface = import.trim_start_matches("wasi:").split('@').next().unwrap_or_default();
    let mut scope = linker.instance(import)?;
    for (name, item) in instance.exports(engine) {
        match item.ty {
            ComponentItem::Resource(_) => resource(&mut scope, name)?,
            ComponentItem::ComponentFunc(_) => function(&mut scope, interface, name)?,
            _ => {}
        }
    }
    Ok(())
}

fn resource(scope: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<()> {
    let ty = match name {
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "network" => ResourceType::host::<Network>(),
        _ => ResourceType::host::<Absent>(),
    };
    scope.resource(name, ty, |_, _| Ok(()))
}

fn function(scope: &mut LinkerInstance<'_, State>, interface: &str, name: &str) -> wasmtime::Result<()> {
    let called = format!("wasi:{interface}#{name}");
    let answer = answer(interface, name);
    scope.func_new(name, move |mut store, _, params, results| {
        charge(&mut store, params.iter().map(size).sum())?;
        let Some(answer) = answer else { bail!("called {called}, which plugins are not given") };
        let value = answer(&mut store, params)?;
        release(&mut store, params);
        charge(&mut store, size(&value))?;
        if let [result] = results {
            *result = value;
        }
        Ok(())
    })
}

/// Lets go of the handles that a call borrowed; the guest traps where one is still held after it.
fn release(store: &mut StoreContextMut<'_, State>, params: &[Val]) {
    for param in params {
        match param {
            Val::List(items) => release(store, items),
            Val::Resource(resource) if !resource.owned() => {
                // A stream that was written to has been let go of already.
                let _ = resource.resource_drop(&mut *store);
            }
            _ => {}
        }
    }
}

/// Bytes that a value brings along.
fn size(value: &Val) -> usize {
    match value {
        Val::String(text) => text.len(),
        Val::List(items) => items.len(),
        _ => 0,
    }
}

/// What a function answers; the value is dropped where the function has no result.
fn answer(interface: &str, name: &str) -> Option<Answer> {
    Some(match (interface, name) {
        ("cli/environment", "get-environment" | "get-arguments") => |_, _| Ok(Val::List(Vec::new())),
        ("cli/environment", "initial-cwd") => |_, _| Ok(Val::Option(None)),
        ("cli/exit", _) => |_, params| Err(Exited::new(params).into()),
        ("cli/stdin", "get-stdin") => |store, _| own::<InputStream>(store, 0),
        ("cli/stdout", "get-stdout") => |store, _| own::<OutputStream>(store, 1),
        ("cli/stderr", "get-stderr") => |store, _| own::<OutputStream>(store, 2),
        ("cli/terminal-stdin" | "cli/terminal-stdout" | "cli/terminal-stderr", _) => |_, _| Ok(Val::Option(None)),
        ("clocks/wall-clock", "now") => |_, _| Ok(datetime(WALL_CLOCK)),
        ("clocks/wall-clock", "resolution") => |_, _| Ok(datetime(1)),
        ("clocks/monotonic-clock", "now") => |store, _| {
            store.data_mut().clock += TICK;
            Ok(Val::U64(store.data().clock))
        },
        ("clocks/monotonic-clock", "resolution") => |_, _| Ok(Val::U64(TICK)),
        // Waiting takes no time; the clock shows that it is over.
        ("clocks/monotonic-clock", "subscribe-instant") => |store, params| {
            let clock = store.data().clock.max(number(params));
            store.data_mut().clock = clock;
            own::<Pollable>(store, 0)
        },
        ("clocks/monotonic-clock", "subscribe-duration") => |store, params| {
            let clock = store.data().clock.saturating_add(number(params));
            store.data_mut().clock = clock;
            own::<Pollable>(store, 0)
        },
        ("io/poll", "poll") => |_, params| match params {
            [Val::List(pollables)] => Ok(Val::List((0..pollables.len() as u32).map(Val::U32).collect())),
            _ => bail!("malformed call of wasi:io/poll#poll"),
        },
        ("io/poll", "[method]pollable.ready") => |_, _| Ok(Val::Bool(true)),
        ("io/poll", "[method]pollable.block") => |_, _| Ok(Val::Bool(true)),
        ("io/streams", name) if name.ends_with(".subscribe") => |store, _| own::<Pollable>(store, 0),
        ("io/streams", name) if name.starts_with("[method]input-stream.") => |_, _| Ok(closed()),
        ("io/streams", "[method]output-stream.check-write") => |_, _| Ok(ok(Some(Val::U64(CHUNK)))),
        ("io/streams", "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush") => write,
        ("io/streams", "[method]output-stream.flush" | "[method]output-stream.blocking-flush") => |_, _| Ok(ok(None)),
        ("io/streams", name) if name.starts_with("[method]output-stream.") => |_, _| Ok(closed()),
        ("random/random" | "random/insecure", "get-random-bytes" | "get-insecure-random-bytes") => |store, params| {
            // Paid before it is drawn, and bounded: the number is the guest's.
            let bytes = usize::try_from(number(params)).ok().filter(|bytes| *bytes <= RANDOM_BYTES);
            let Some(bytes) = bytes else { bail!("asked for more than {RANDOM_BYTES} random bytes at once") };
            charge(store, bytes)?;
            let words: Vec<u64> = (0..bytes.div_ceil(8)).map(|_| store.data_mut().random()).collect();
            Ok(Val::List(words.iter().flat_map(|word| word.to_le_bytes()).take(bytes).map(Val::U8).collect()))
        },
        ("random/random" | "random/insecure", "get-random-u64" | "get-insecure-random-u64") => {
            |store, _| Ok(Val::U64(store.data_mut().random()))
        }
        ("random/insecure-seed", "insecure-seed") => |store, _| {
            let state = store.data_mut();
            Ok(Val::Tuple(vec![Val::U64(state.random()), Val::U64(state.random())]))
        },
        ("filesystem/preopens", "get-directories") => |_, _| Ok(Val::List(Vec::new())),
        ("filesystem/types", "filesystem-error-code") => |_, _| Ok(Val::Option(None)),
        ("sockets/instance-network", "instance-network") => |store, _| own::<Network>(store, 0),
        ("sockets/tcp-create-socket" | "sockets/udp-create-socket", _)
        | ("sockets/ip-name-lookup", "resolve-addresses") => |_, _| Ok(denied()),
        _ => return None,
    })
}

fn write(store: &mut StoreContextMut<'_, State>, params: &[Val]) -> wasmtime::Result<Val> {
    let [Val::Resource(stream), Val::List(bytes)] = params else { bail!("malformed write to a stream") };
    let stream = stream.try_into_resource::<OutputStream>(&mut *store)?;
    let level = if stream.rep() == 2 { Level::Warn } else { Level::Info };
    let bytes: Vec<u8> =
        bytes.iter().filter_map(|byte| if let Val::U8(byte) = byte { Some(*byte) } else { None }).collect();
    store.data_mut().sink.write(level, &bytes)?;
    Ok(ok(None))
}

fn own<T: 'static>(store: &mut StoreContextMut<'_, State>, representation: u32) -> wasmtime::Result<Val> {
    Ok(Val::Resource(Resource::<T>::new_own(representation).try_into_resource_any(store)?))
}

fn number(params: &[Val]) -> u64 {
    if let [Val::U64(n)] = params { *n } else { 0 }
}

fn ok(value: Option<Val>) -> Val {
    Val::Result(Ok(value.map(Box::new)))
}

fn closed() -> Val {
    Val::Result(Err(Some(Box::new(Val::Variant("closed".into(), None)))))
}

fn denied() -> Val {
    Val::Result(Err(Some(Box::new(Val::Enum("access-denied".into())))))
}

fn datetime(seconds: u64) -> Val {
    Val::Record(vec![("seconds".into(), Val::U64(seconds)), ("nanoseconds".into(), Val::U32(0))])
}
