//! What `wit-bindgen` makes of the interfaces that every world imports; a world's own are made in the plugin's crate.

#![allow(missing_docs, reason = "generated")]

wit_bindgen::generate!({
    path: "../wit/0.1.0",
    inline: "
        package pipeline:sdk;
        world imports {
            import pipeline:plugin/types@0.1.0;
            import pipeline:plugin/log@0.1.0;
            import pipeline:plugin/assets@0.1.0;
        }
    ",
    world: "pipeline:sdk/imports",
    generate_all,
});

pub use pipeline::plugin::{assets, log, types};
