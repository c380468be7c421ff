//! Write a plugin: implement one trait, and name the type in one macro.
//!
//! | world | trait | macro |
//! | --- | --- | --- |
//! | verifier | [`Verifier`] | [`verifier!`] |
//! | program-verifier | [`Verifier`], which calls [`run`] | [`program_verifier!`] |
//! | rewarder | [`Rewarder`] | [`rewarder!`] |
//! | filterer | [`Filterer`] | [`filterer!`] |
//! | generator | [`Generator`] | [`generator!`] |
//! | task | [`Verifier`] and [`Generator`] | [`task!`] |
//!
//! ```ignore
//! use pipeline_plugin::{Completion, Config, ConfigError, Context, Group, Verdict, Verifier, decided};
//!
//! #[derive(serde::Deserialize)]
//! struct Polite { word: String }
//!
//! impl Config for Polite {
//!     const SCHEMA: &str = r#"{ "type": "object", "required": ["word"], "properties": { "word": { "type": "string" } } }"#;
//! }
//!
//! impl Verifier for Polite {
//!     fn verify(&self, _: &Context, _: &Group, completion: &Completion) -> Verdict {
//!         decided(if completion.text.contains(&self.word) { 1.0 } else { 0.0 })
//!     }
//! }
//!
//! pipeline_plugin::verifier!(Polite);
//! ```
//!
//! The crate is a `cdylib`. A plugin is given its input, a log and nothing else: no files, no clock, no entropy. Each call
//! is made in a fresh instance, so nothing can be kept. A panic makes the completion undecided, with its message as reason.
//! The pipeline file may grant more by name: files for [`read_asset`], runtimes for [`run`].

#[doc(hidden)]
pub mod bindings;

#[doc(hidden)]
pub use wit_bindgen;

include!(concat!(env!("OUT_DIR"), "/generate.rs"));

pub use bindings::assets::read as read_asset;
pub use bindings::log::{Level, emit as log};
pub use bindings::runner::{Exit, Outcome, run};
pub use bindings::types::{
    Completion, ConfigError, Context, Decision, Finding, Finish, Group, Judgement, Message, Row, Verdict,
};

/// A plugin is its config: what the pipeline file says under `config`, read and checked.
pub trait Config: serde::de::DeserializeOwned + 'static {
    /// The JSON Schema of the config. The host holds every config against it before the plugin sees it.
    const SCHEMA: &str;

    /// Objections that a schema can't express; `path` is a JSON pointer.
    fn check(&self) -> Vec<ConfigError> {
        Vec::new()
    }
}

/// Judges completions, each alone.
pub trait Verifier: Config {
    /// The verdict for one completion of `group`.
    fn verify(&self, ctx: &Context, group: &Group, completion: &Completion) -> Verdict;
}

/// Turns verdicts into rewards.
pub trait Rewarder: Config {
    /// A reward for each completion of the group, `None` where there can't be one.
    ///
    /// # Errors
    /// The reason why the whole group is undecided.
    fn reward(&self, ctx: &Context, group: &Group, judgements: &[Judgement]) -> Result<Vec<Option<f64>>, String>;
}

/// Decides what is kept.
pub trait Filterer: Config {
    /// A decision for each completion of each group; a reward is NaN where it was undecided.
    ///
    /// # Errors
    /// The reason why the run must stop.
    fn filter(&self, ctx: &Context, groups: &[Group], rewards: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String>;
}

/// Makes rows.
pub trait Generator: Config {
    /// The row `index` of an endless list. It depends on the seed and the index alone.
    ///
    /// # Errors
    /// The reason why the run must stop.
    fn row(&self, ctx: &Context, index: u64) -> Result<Row, String>;
}

/// A verdict with a score and nothing else: 1 is fully right, 0 is wrong.
pub fn decided(score: f64) -> Verdict {
    Verdict::Decided(Finding { score, answer: None, metrics: Vec::new(), note: None })
}

/// Reads a config, and makes panics speak.
#[doc(hidden)]
pub fn configure<C: Config>(json: &str) -> Result<C, Vec<ConfigError>> {
    // Without a hook a panic is only a trap: the host appends the last warning to its reason.
    std::panic::set_hook(Box::new(|info| log(Level::Warn, &info.to_string())));
    let error = |error: serde_json::Error| vec![ConfigError { path: String::new(), message: error.to_string() }];
    let config: C = serde_json::from_str(json).map_err(error)?;
    let errors = config.check();
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

/// What the macros share: the configured plugin, the interface `config`, and those of the world.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ($plugin:ty, [$($world:tt)+], $($interface:ident)+) => {
        #[allow(clippy::all, missing_docs, reason = "generated")]
        mod __component {
            use super::*;

            $crate::__generate!($($world)+);

            ::std::thread_local! {
                static PLUGIN: ::std::cell::OnceCell<$plugin> = const { ::std::cell::OnceCell::new() };
            }

            struct Component;

            impl exports::pipeline::plugin::config::Guest for Component {
                fn schema() -> ::std::string::String {
                    <$plugin as $crate::Config>::SCHEMA.into()
                }

                fn configure(
                    json: ::std::string::String,
                ) -> ::std::result::Result<(), ::std::vec::Vec<$crate::ConfigError>> {
                    let plugin = $crate::configure::<$plugin>(&json)?;
                    PLUGIN.with(|cell| cell.set(plugin).map_err(|_| ::std::vec::Vec::new()))
                }
            }

            impl Component {
                fn with<T>(
                    f: impl FnOnce(&$plugin) -> ::std::result::Result<T, ::std::string::String>,
                ) -> ::std::result::Result<T, ::std::string::String> {
                    PLUGIN.with(|cell| f(cell.get().ok_or("the plugin was not configured")?))
                }
            }

            $(
                impl exports::pipeline::plugin::$interface::Guest for Component {
                    $crate::__function!($interface $plugin);
                }
            )+

            export!(Component);
        }
    };
}

/// The function of an interface, by the trait that it stands for.
#[doc(hidden)]
#[macro_export]
macro_rules! __function {
    (verify $plugin:ty) => {
        fn verify(
            ctx: $crate::Context,
            group: $crate::Group,
        ) -> ::std::result::Result<::std::vec::Vec<$crate::Verdict>, ::std::string::String> {
            let verdict = |plugin: &$plugin, completion| $crate::Verifier::verify(plugin, &ctx, &group, completion);
            Self::with(|plugin| Ok(group.completions.iter().map(|completion| verdict(plugin, completion)).collect()))
        }
    };
    (reward $plugin:ty) => {
        fn reward(
            ctx: $crate::Context,
            group: $crate::Group,
            judgements: ::std::vec::Vec<$crate::Judgement>,
        ) -> ::std::result::Result<::std::vec::Vec<::std::option::Option<f64>>, ::std::string::String> {
            Self::with(|plugin| $crate::Rewarder::reward(plugin, &ctx, &group, &judgements))
        }
    };
    (filter $plugin:ty) => {
        fn filter(
            ctx: $crate::Context,
            groups: ::std::vec::Vec<$crate::Group>,
            rewards: ::std::vec::Vec<::std::vec::Vec<f64>>,
        ) -> ::std::result::Result<::std::vec::Vec<::std::vec::Vec<$crate::Decision>>, ::std::string::String> {
            Self::with(|plugin| $crate::Filterer::filter(plugin, &ctx, &groups, &rewards))
        }
    };
    (generate $plugin:ty) => {
        fn generate(
            ctx: $crate::Context,
            first: u64,
            count: u32,
        ) -> ::std::result::Result<::std::vec::Vec<$crate::Row>, ::std::string::String> {
            let rows = first..first + u64::from(count);
            Self::with(|plugin| rows.map(|index| $crate::Generator::row(plugin, &ctx, index)).collect())
        }
    };
}

/// Makes the type, a [`Verifier`], the plugin of this crate.
#[macro_export]
macro_rules! verifier {
    ($plugin:ty) => {
        $crate::__plugin!($plugin, ["verifier"], verify);
    };
}

/// Makes the type, a [`Verifier`] that runs programs with [`run`], the plugin of this crate. It is loaded only where the
/// pipeline file grants it a runtime.
#[macro_export]
macro_rules! program_verifier {
    ($plugin:ty) => {
        $crate::__plugin!($plugin, [runner "program-verifier"], verify);
    };
}

/// Makes the type, a [`Rewarder`], the plugin of this crate.
#[macro_export]
macro_rules! rewarder {
    ($plugin:ty) => {
        $crate::__plugin!($plugin, ["rewarder"], reward);
    };
}

/// Makes the type, a [`Filterer`], the plugin of this crate.
#[macro_export]
macro_rules! filterer {
    ($plugin:ty) => {
        $crate::__plugin!($plugin, ["filterer"], filter);
    };
}

/// Makes the type, a [`Generator`], the plugin of this crate.
#[macro_export]
macro_rules! generator {
    ($plugin:ty) => {
        $crate::__plugin!($plugin, ["generator"], generate);
    };
}

/// Makes the type, a [`Verifier`] and a [`Generator`], the plugin of this crate: it makes rows and judges what answers them.
#[macro_export]
macro_rules! task {
    ($plugin:ty) => {
        $crate::__plugin!($plugin, ["task"], verify generate);
    };
}
