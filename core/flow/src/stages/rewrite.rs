//! `rewrite`: completions that were kept, written anew by a language model, for readability (DeepSeek-R1, arXiv 2501.12948,
//! section 3.1). What comes out was judged by nobody yet.

use std::sync::Arc;

use base::{Decision, Group};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::stages::ask::{Question, Writer};

pub(crate) struct RewriteStage {
    pub name: String,
    pub writer: Writer,
}

impl Work for RewriteStage {
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        let kept = |group: &Group, i: usize| group.decisions.get(i).is_none_or(|decision| *decision == Decision::Keep);
        let mut questions = Vec::new();
        for group in &groups {
            for (i, completion) in group.completions.iter().enumerate().filter(|(i, _)| kept(group, *i)) {
                let index = (group.index * group.completions.len() + i) as u64;
                let about = vec![("response", completion.text.clone())];
                questions.push(Question { about, prompt: group.prompt.clone(), index, texts: 1 });
            }
        }
        let mut written = self.writer.write(step, &questions)?.into_iter();
        let (mut count, mut lost, mut first) = (0_usize, 0_usize, None);
        for group in &groups {
            let mut completions = Vec::new();
            for _ in (0..group.completions.len()).filter(|&i| kept(group, i)) {
                match written.next() {
                    Some(Ok(texts)) => completions.extend(texts),
                    Some(Err(reason)) => {
                        lost += 1;
                        first.get_or_insert(reason);
                    }
                    None => {}
                }
            }
            if completions.is_empty() {
                continue;
            }
            count += completions.len();
            let decisions = vec![Decision::Keep; completions.len()];
            let (judgements, rewards) = (Vec::new(), Vec::new());
            let Group { step, index, prompt, .. } = Group::clone(group);
            outbox.send(&Arc::new(Group { step, index, prompt, completions, judgements, rewards, decisions }))?;
        }
        let warning =
            first.map(|reason| format!("`{}` could not ask for {lost} completions, the first: {reason}", self.name));
        let metrics = vec![(format!("rewrite/{}/completions", self.name), count as f64)];
        Ok(Report { metrics, warning, ..Report::default() })
    }
}
