use pipeline_plugin::{Completion, Config, Context, Finding, Group, Verdict, Verifier};

#[derive(serde::Deserialize)]
struct Plugin {
    #[serde(default = "answer")]
    tag: String,
}

fn answer() -> String {
    "answer".into()
}

impl Config for Plugin {
    const SCHEMA: &str = r#"{ "type": "object", "additionalProperties": false, "properties": {
        "tag": { "type": "string", "pattern": "^[a-z]+$", "description": "what the answer stands in; answer" } } }"#;
}

impl Verifier for Plugin {
    /// Right if the last <answer>..</answer> of the completion holds the reference.
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let Some(reference) = &group.reference else {
            return Verdict::Undecided("the prompt has no reference".into());
        };
        let (open, close) = (format!("<{}>", self.tag), format!("</{}>", self.tag));
        let found = completion.text.rsplit_once(&open).and_then(|(_, rest)| rest.split_once(&close));
        let answer = found.map(|(answer, _)| answer.trim().to_owned());
        let wanted = reference.trim();
        let (score, note) = match &answer {
            None => (0.0, Some(format!("there is no {open}"))),
            Some(answer) if answer == wanted => (1.0, None),
            Some(_) => (0.0, Some(format!("expected {wanted}"))),
        };
        Verdict::Decided(Finding { score, answer, metrics: Vec::new(), note })
    }
}

pipeline_plugin::verifier!(Plugin);
