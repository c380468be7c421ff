//! `dataset` and `generate`: the prompts of a step; where it asks again, those after.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base::Group;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::feed::Feed;

pub(crate) struct SourceStage {
    name: String,
    feed: Feed,
    cursor: Mutex<Cursor>,
}

/// How far the rows have been dealt out.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Cursor {
    /// Rows dealt in all.
    drawn: u64,
    /// The step that they were last dealt for, and how many it has.
    step: u64,
    dealt: usize,
}

impl SourceStage {
    pub fn new(name: &str, feed: Feed) -> Self {
        Self { name: name.to_owned(), feed, cursor: Mutex::default() }
    }

    fn file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("rows-{}.json", self.name))
    }
}

impl Work for SourceStage {
    fn run(&self, step: u64, _inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let generator = self.feed.generator().map(|plugin| (plugin, plugin.spent()));
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        if cursor.step != step {
            (cursor.step, cursor.dealt) = (step, 0);
        }
        let prompts = self.feed.rows(step, cursor.drawn)?;
        let first = cursor.dealt;
        cursor.drawn += prompts.len() as u64;
        cursor.dealt += prompts.len();
        drop(cursor);
        for (index, prompt) in prompts.into_iter().enumerate() {
            let group = Group {
                step,
                index: first + index,
                prompt,
                completions: Vec::new(),
                judgements: Vec::new(),
                rewards: Vec::new(),
                decisions: Vec::new(),
            };
            outbox.send(&Arc::new(group))?;
        }
        let spent = generator.map(|(plugin, before)| (plugin.name().to_owned(), plugin.spent().since(before)));
        Ok(Report { spent, ..Report::default() })
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        let path = self.file(folder);
        let cursor = *self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_string(&cursor).map_err(|error| Error::Defect(error.to_string()))?;
        std::fs::write(&path, text)
            .map_err(|error| Error::Model(format!("failed to write {}: {error}", path.display())))
    }

    fn load(&self, folder: &Path) -> Result<(), Error> {
        let path = self.file(folder);
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        let cursor = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        let unusable = |why| Error::Resume(format!("{} can't be used: {why}", path.display()));
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor.map_err(unusable)?;
        Ok(())
    }
}
