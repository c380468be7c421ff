//! Which version of the WIT package a component was built for. Older versions are adapted here and nowhere else.

use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex};

use crate::World;

/// The versions that this host knows, the newest last. A version is published in `sdk/wit/VERSION` and then never changes.
const KNOWN: [&str; 1] = ["0.1.0"];

/// The exports of a component that are called.
pub(super) struct Exports {
    /// What the component is for, and the function of each world.
    pub(super) functions: Vec<(World, ComponentExportIndex)>,
    /// The version of its interfaces.
    pub(super) version: &'static str,
    pub(super) schema: ComponentExportIndex,
    pub(super) configure: ComponentExportIndex,
}

/// Finds the worlds and the version of a component; otherwise what is wrong with it.
pub(super) fn exports(engine: &Engine, component: &Component) -> Result<Exports, String> {
    let ty = component.component_type();
    let interfaces: Vec<(&str, &str)> = ty
        .exports(engine)
        .filter_map(|(name, _)| name.strip_prefix("pipeline:plugin/"))
        .filter_map(|name| name.split_once('@'))
        .collect();
    let worlds: Vec<(World, &str)> = World::ALL
        .into_iter()
        .filter_map(|world| {
            let (_, version) = interfaces.iter().find(|(name, _)| *name == world.function())?;
            Some((world, *version))
        })
        .collect();
    let version = match worlds.as_slice() {
        [(_, version), ..] => *version,
        [] if interfaces.iter().any(|(name, _)| *name == "config") || interfaces.is_empty() => {
            let wanted = "one of `verify`, `reward`, `filter`, `generate` of the package `pipeline:plugin`";
            return Err(format!("the component exports no plugin interface: it must export `config` and {wanted}"));
        }
        [] => return Err(format!("the component exports `{}`, which is no interface of plugins", interfaces[0].0)),
    };
    if let Some((_, other)) = worlds.iter().find(|(_, other)| *other != version) {
        return Err(format!("the component was built for two versions of pipeline:plugin, {version} and {other}"));
    }
    let Some(version) = KNOWN.into_iter().find(|known| *known == version) else {
        let known = KNOWN.join(", ");
        return Err(format!("the component was built for pipeline:plugin {version}, and this host knows {known}"));
    };
    let find = |interface: &str, function: &str| {
        let name = format!("pipeline:plugin/{interface}@{version}");
        let instance = component.get_export_index(None, &name);
        instance
            .and_then(|instance| component.get_export_index(Some(&instance), function))
            .ok_or_else(|| format!("the component exports no function `{function}` in `{name}`"))
    };
    let function = |(world, _): &(World, &str)| Ok((*world, find(world.function(), world.function())?));
    Ok(Exports {
        functions: worlds.iter().map(function).collect::<Result<_, String>>()?,
        version,
        schema: find("config", "schema")?,
        configure: find("config", "configure")?,
    })
}
