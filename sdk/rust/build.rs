//! Hands the WIT package to the macros of this crate as text: they expand in the plugin's crate, which has no path to it.

use std::path::PathBuf;
use std::{env, fs};

const WIT: &str = "../wit/0.1.0/plugin.wit";

fn main() {
    println!("cargo::rerun-if-changed={WIT}");
    let wit = fs::read_to_string(WIT).unwrap_or_else(|error| panic!("failed to read {WIT}: {error}"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // A world must use each interface that is named for it.
    let generate = |runner: &str| {
        format!(
            r####"$crate::wit_bindgen::generate!({{
            inline: r###"{wit}"###,
            world: $world,
            runtime_path: "pipeline_plugin::wit_bindgen::rt",
            with: {{
                "pipeline:plugin/types@0.1.0": pipeline_plugin::bindings::types,
                "pipeline:plugin/log@0.1.0": pipeline_plugin::bindings::log,
                "pipeline:plugin/assets@0.1.0": pipeline_plugin::bindings::assets,
                {runner}
            }},
        }});"####
        )
    };
    let text = format!(
        "/// The bindings of a world, in the crate that names it.
#[doc(hidden)]
#[macro_export]
macro_rules! __generate {{
    (runner $world:literal) => {{
        {}
    }};
    ($world:literal) => {{
        {}
    }};
}}
",
        generate(r#""pipeline:plugin/runner@0.1.0": pipeline_plugin::bindings::runner,"#),
        generate(""),
    );
    fs::write(out.join("generate.rs"), text).expect("OUT_DIR can be written to");
}
