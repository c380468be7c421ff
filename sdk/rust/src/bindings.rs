//! What `wit-bindgen` makes of the interfaces that worlds import, of which a component has those that it calls; what a world
//! exports is made in the plugin's crate.

#![allow(missing_docs, reason = "generated")]

wit_bindgen::generate!({
    path: "../wit/0.1.0",
    inline: "
        package pipeline:sdk;
        world imports {
            import pipeline:plugin/types@0.1.0;
            import pipeline:plugin/log@0.1.0;
            import pipeline:plugin/assets@0.1.0;
            import pipeline:plugin/runner@0.1.0;
        }
    ",
    world: "pipeline:sdk/imports",
    generate_all,
});

pub use pipeline::plugin::{assets, log, runner, types};
