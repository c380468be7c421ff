//! The phases of a document, and what each takes over from those before it.

use std::path::PathBuf;

use indexmap::IndexMap;
use record::{Checkpoint, RunFolder};
use serde_json::{Value, json};
use spec::{Document, Origin, Pipeline, StageKind};

use crate::error::Error;
use crate::plan::initialised_model;
use crate::ready::Takeover;

/// One pipeline of a run. A pipeline file that is no recipe is a single phase.
#[derive(Clone, Copy)]
pub(crate) struct Phase<'a> {
    /// The name in metrics, and what the phase's random numbers depend on.
    pub name: &'a str,
    /// The name of its part of the run's folder; `None`: the folder itself.
    pub folder: Option<&'a str>,
    pub pipeline: &'a Pipeline,
    /// Where its trained model starts from, if not where the file says.
    pub init: Option<&'a Origin>,
    /// Where its other models start from, if not where the file says.
    pub models: &'a IndexMap<String, Origin>,
    /// Where dataset stages read, by stage or by `STAGE.SOURCE`, if not where the file says.
    pub data: &'a IndexMap<String, Origin>,
}

/// The phases of a document in order.
pub(crate) fn phases(document: &Document) -> Vec<Phase<'_>> {
    static NONE: std::sync::LazyLock<IndexMap<String, Origin>> = std::sync::LazyLock::new(IndexMap::new);
    match document {
        Document::Pipeline(pipeline) => {
            vec![Phase { name: &pipeline.name, folder: None, pipeline, init: None, models: &NONE, data: &NONE }]
        }
        Document::Recipe(recipe) => {
            let phases = recipe.phases.iter().map(|phase| Phase {
                name: &phase.name,
                folder: Some(&phase.name),
                pipeline: &phase.pipeline,
                init: phase.init.as_ref(),
                models: &phase.models,
                data: &phase.data,
            });
            phases.collect()
        }
    }
}

/// What the run depends on, with the hashes of each phase's plugins and files. Where its folder is and how many threads
/// compute changes no byte, so they are left out.
pub(crate) fn resolved(
    document: &Document,
    plugins: &[IndexMap<String, String>],
    inputs: &[IndexMap<String, String>],
) -> Result<Value, Error> {
    let mut value = serde_json::to_value(document).map_err(|error| Error::Defect(error.to_string()))?;
    let without_place = |pipeline: &mut Value| {
        if let Some(run) = pipeline.get_mut("run").and_then(Value::as_object_mut) {
            run.shift_remove("dir");
            run.shift_remove("threads");
        }
    };
    without_place(&mut value);
    if let Some(recipe) = value.as_object_mut() {
        recipe.shift_remove("dir");
        let phases = recipe.get_mut("phases").and_then(Value::as_array_mut);
        phases.into_iter().flatten().filter_map(|phase| phase.get_mut("pipeline")).for_each(without_place);
    }
    // Before 1.0 any release may change numbers.
    Ok(json!({ "version": env!("CARGO_PKG_VERSION"), "document": value, "plugins": plugins, "inputs": inputs }))
}

impl<'a> Phase<'a> {
    /// What the phase takes over from phases that have ended.
    pub fn takeover(&self, all: &[Phase<'_>], run: &RunFolder) -> Result<Takeover, Error> {
        let learned = |origin: &Origin| -> Result<PathBuf, Error> {
            match origin {
                Origin::Path(folder) => Ok(folder.clone()),
                Origin::Phase(name) => {
                    let latest = run.phase(Some(name))?.checkpoints().latest()?;
                    let finished = |checkpoint: &Checkpoint| checkpoint.state["finished"] == json!(true);
                    let checkpoint = latest.checkpoint.filter(finished).ok_or_else(|| {
                    Error::Resume(format!(
                        "the last checkpoint of the phase `{name}` is gone or damaged, so `{}` can't start from it: \
                         resume the run to make it again",
                        self.name
                    ))
                })?;
                    Ok(checkpoint.path)
                }
            }
        };
        let mut models = IndexMap::new();
        for (name, origin) in self.models {
            models.insert(name.clone(), learned(origin)?);
        }
        if let (Some(name), Some(init)) = (initialised_model(self.pipeline), self.init) {
            models.insert(name.to_owned(), learned(init)?);
        }
        let mut data = IndexMap::new();
        for (stage, origin) in self.data {
            let path = match origin {
                Origin::Path(path) => path.clone(),
                Origin::Phase(name) => all
                    .iter()
                    .find(|phase| phase.name == name)
                    .map(|phase| phase.collected(run))
                    .transpose()?
                    .flatten()
                    .ok_or_else(|| {
                        Error::Defect(format!("the phase `{name}` passed validation but collects nothing"))
                    })?,
            };
            data.insert(stage.clone(), path);
        }
        Ok(Takeover { models, data })
    }

    /// Where a model starts from, if not where the file says.
    pub fn model(&self, name: &str) -> Option<&'a Origin> {
        self.init.filter(|_| initialised_model(self.pipeline) == Some(name)).or_else(|| self.models.get(name))
    }

    /// Where a source of a dataset stage reads, if not where the file says.
    pub fn rows(&self, stage: &str, source: &str) -> Option<&'a Origin> {
        self.data.get(stage).or_else(|| self.data.get(&format!("{stage}.{source}")))
    }

    fn collected(&self, run: &RunFolder) -> Result<Option<PathBuf>, Error> {
        let name = self.pipeline.stages.values().find_map(|stage| match &stage.kind {
            StageKind::Collect(collect) => Some(collect.path.to_string_lossy()),
            _ => None,
        });
        Ok(name
            .map(|name| run.phase(self.folder).and_then(|phase| phase.collected(&name)))
            .transpose()?
            .map(|collected| collected.path()))
    }
}
