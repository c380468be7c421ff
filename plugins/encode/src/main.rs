//! `encode CORE.wasm COMPONENT.wasm`: makes a component of a core module that carries its WIT.

use std::fs;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [module, component] = args.as_slice() else { bail!("usage: encode CORE.wasm COMPONENT.wasm") };
    let bytes = fs::read(module).with_context(|| format!("failed to read {module}"))?;
    let encoded = wit_component::ComponentEncoder::default().module(&bytes)?.validate(true).encode()?;
    fs::write(component, encoded).with_context(|| format!("failed to write {component}"))
}
