//! Drops chains of thought with long paragraphs or code blocks, as DeepSeek-R1's data for supervised fine-tuning were cleaned
//! (arXiv 2501.12948, section 2.3.3). Mixed languages, the third of its rules, are what `language-mixing` is for.

use common::places::{Place, read};
use filtering::Action;
use pipeline_plugin::{Completion, Config, Context, Decision, Filterer, Group};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Readability {
    #[serde(default = "thousand")]
    longest_paragraph: usize,
    #[serde(default)]
    code: bool,
    #[serde(default = "thought")]
    read: Vec<Place>,
    #[serde(default)]
    action: Action,
}

fn thousand() -> usize {
    1_000
}

fn thought() -> Vec<Place> {
    vec![Place::OpenTag("think".into())]
}

impl Config for Readability {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {
            "longest_paragraph": { "type": "integer", "minimum": 1, "description": "The most characters of a paragraph. Default: 1000." },
            "code": { "type": "boolean", "description": "Whether there may be fenced code blocks. Default: false." },"#,
        common::read_schema!(),
        ",",
        filtering::action_schema!(),
        "} }"
    );
}

impl Readability {
    fn reason(&self, completion: &Completion) -> Option<String> {
        let text = read(&self.read, &completion.text)?;
        let is_fence = |line: &&str| line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        if let Some(fence) = text.lines().find(is_fence).filter(|_| !self.code) {
            return Some(format!("it holds a code block, `{}`", filtering::excerpt(fence, 20)));
        }
        let mut length = 0;
        for (i, line) in text.lines().enumerate() {
            let characters = line.trim().chars().count();
            // A line break within a paragraph counts as a character.
            length = if characters == 0 { 0 } else { length + characters + usize::from(length > 0) };
            if length > self.longest_paragraph {
                let most = self.longest_paragraph;
                return Some(format!("the paragraph that line {} is in has more than {most} characters", i + 1));
            }
        }
        None
    }
}

impl Filterer for Readability {
    fn filter(&self, _: &Context, groups: &[Group], _: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        Ok(self.action.each(groups, |completion| self.reason(completion)))
    }
}

pipeline_plugin::filterer!(Readability);
