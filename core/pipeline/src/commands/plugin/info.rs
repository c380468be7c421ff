//! `pipeline plugin info PLUGIN`.

use std::path::PathBuf;

use author::{Info, Plugin};
use base::Limits;
use host::World;
use serde_json::{Value, json};
use spec::{Files, PluginSource};

use super::{BudgetArgs, open};
use crate::ui::table::{self, Align, thousands};
use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// A plugin's folder, a .wasm, a .rhai, or the name of a builtin. A path that exists wins.
    plugin: PathBuf,
    /// The config whose cost is measured.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = super::json)]
    config: Value,
    /// How it is printed, on stdout.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    budget: BudgetArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Lines, and the config's JSON Schema.
    Human,
    /// One JSON object.
    Json,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let plugin = match open(&args.plugin, &args.budget, &mut Files::default())? {
        Ok(plugin) => plugin,
        Err(code) => return Ok(code),
    };
    let info = author::info(&plugin, &args.config)?;
    ui::give(&match args.format {
        Format::Human => human(&plugin, &info),
        Format::Json => ui::json(&machine(&plugin, &info)),
    })?;
    Ok(exit_code::DONE)
}

fn origin(plugin: &Plugin) -> String {
    match &plugin.source {
        PluginSource::Builtin(_) => "builtin".into(),
        PluginSource::Wasm(path) | PluginSource::Rhai(path) => path.display().to_string(),
    }
}

fn human(plugin: &Plugin, info: &Info) -> String {
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut say = |name: &str, text: String| rows.push([name.to_owned(), ui::escape(&text)]);
    say("plugin", plugin.name.clone());
    let interface = info.interface.as_ref().map(|(version, _)| format!(", pipeline:plugin {version}"));
    say("world", format!("{}{}", World::list(&info.worlds), interface.unwrap_or_default()));
    let kind = if info.interface.is_some() { "a component" } else { "a script" };
    say("code", format!("{}: {kind} of {} bytes", origin(plugin), thousands(info.size)));
    say("blake3", info.hash.clone());
    if let Some((_, imports)) = &info.interface {
        say("imports", if imports.is_empty() { "nothing".into() } else { imports.join(", ") });
    }
    say("limits", limits(&plugin.limits, info.interface.is_some()));
    let grants: Vec<&str> =
        plugin.grants.assets.keys().chain(plugin.grants.runtimes.keys()).map(String::as_str).collect();
    say("grants", if grants.is_empty() { "nothing".into() } else { grants.join(", ") });
    let loaded = if info.interface.is_some() { "compiled in" } else { "parsed in" };
    let again = if info.interface.is_some() { "from the cache in" } else { "once more in" };
    say("loading", format!("{loaded} {}, {again} {}", time(info.load), time(info.load_again)));
    match &info.configuring {
        Ok(cost) => {
            say("configure", format!("{} {}, {}", thousands(cost.spent), cost.unit, time(cost.seconds)));
        }
        Err(errors) => {
            let first = errors.first().map_or_else(String::new, |(path, message)| format!("{path} {message}"));
            say("configure", format!("refuses this config: {}; try --config", first.trim()));
        }
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    let table = table::render(&rows, &[Align::Left, Align::Left]);
    format!("{table}\nThe JSON Schema of its config:\n{}", ui::json(&info.schema))
}

fn limits(limits: &Limits, is_component: bool) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "none".into(), thousands);
    if is_component {
        let memory = limits.memory.map_or_else(|| "none".into(), mebibytes);
        return format!("fuel {}, memory {memory}", number(limits.fuel));
    }
    format!("operations {}", number(limits.operations))
}

fn machine(plugin: &Plugin, info: &Info) -> Value {
    let configure = match &info.configuring {
        Ok(cost) => json!({ cost.unit: cost.spent, "seconds": cost.seconds }),
        Err(errors) => {
            let errors = errors.iter().map(|(path, message)| json!({ "path": path, "message": message }));
            json!({ "errors": errors.collect::<Value>() })
        }
    };
    json!({
        "name": plugin.name,
        "origin": origin(plugin),
        "worlds": info.worlds.iter().map(World::to_string).collect::<Value>(),
        "version": info.interface.as_ref().map(|(version, _)| version),
        "imports": info.interface.as_ref().map(|(_, imports)| imports),
        "bytes": info.size,
        "blake3": info.hash,
        "limits": plugin.limits,
        "grants": plugin.grants,
        "load_seconds": info.load,
        "load_again_seconds": info.load_again,
        "configure": configure,
        "schema": info.schema,
    })
}

/// Bytes in MiB.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Seconds in a unit that suits them.
pub fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.1} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
