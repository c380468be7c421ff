//! A plugin's config: what the pipeline file says, and where.

use std::collections::BTreeMap;

use base::Span;
use serde::Serialize;

/// A plugin's config. Its own schema says what it may hold; whoever knows the schema asks here where an objection belongs.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct PluginConfig {
    /// The table as JSON; empty if the file has none.
    pub value: serde_json::Value,
    /// The place of the table, or of the table that would hold it.
    #[serde(skip)]
    pub span: Span,
    /// The place of each key below it, and of each element of a list, by JSON pointer.
    #[serde(skip)]
    pub(crate) places: BTreeMap<String, Span>,
}

impl PluginConfig {
    /// The place of what a JSON pointer names: the key, the element of a list, or what is nearest above it in the file.
    pub fn place(&self, pointer: &str) -> &Span {
        let mut pointer = pointer;
        loop {
            if let Some(span) = self.places.get(pointer) {
                return span;
            }
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => return &self.span,
            }
        }
    }
}
