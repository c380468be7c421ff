//! `dataset` and `generate`: the prompts of a step.

use std::sync::Arc;

use base::Group;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::feed::Feed;

pub(crate) struct SourceStage {
    pub feed: Feed,
}

impl Work for SourceStage {
    fn run(&self, step: u64, _inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let generator = self.feed.generator().map(|plugin| (plugin, plugin.spent()));
        for (index, prompt) in self.feed.step(step)?.into_iter().enumerate() {
            let group = Group {
                step,
                index,
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
}
