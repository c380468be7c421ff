//! The component that attacks: `guest.wat` with its blanks filled in.

const PRELUDE: &str = include_str!("../../core/host/tests/components/prelude.wat");

/// What is filled in; nothing by default, which is an honest verifier.
pub struct Guest<'a> {
    /// Component items before the module: imports and what lowers them.
    pub imports: &'a str,
    /// Imports of the core module.
    pub core_imports: &'a str,
    /// Arguments of the core instance.
    pub core_arguments: &'a str,
    /// Further items of the core module.
    pub items: &'a str,
    /// What `schema` returns.
    pub schema_text: &'a str,
    /// What `schema` does before.
    pub schema: &'a str,
    /// What `configure` does before it accepts.
    pub configure: &'a str,
    /// What `verify` does on a text that begins with `!`.
    pub misdeed: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Self {
            imports: "",
            core_imports: "",
            core_arguments: "",
            items: "",
            schema_text: r#"{"type":"object"}"#,
            schema: "",
            configure: "",
            misdeed: "",
        }
    }
}

impl Guest<'_> {
    /// The component's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.with_prelude(PRELUDE)
    }

    /// The component's bytes, with an allocator that does `body` first.
    pub fn with_allocator(&self, body: &str) -> Vec<u8> {
        let (before, after) =
            PRELUDE.split_once("(local $at i32)").unwrap_or_else(|| panic!("the allocator has changed"));
        self.with_prelude(&format!("{before}(local $at i32) {body} {after}"))
    }

    fn with_prelude(&self, prelude: &str) -> Vec<u8> {
        let blanks = [
            ("{prelude}", prelude.to_owned()),
            ("{imports}", self.imports.to_owned()),
            ("{core-imports}", self.core_imports.to_owned()),
            ("{core-arguments}", self.core_arguments.to_owned()),
            ("{items}", self.items.to_owned()),
            ("{schema-text}", self.schema_text.replace('\\', "\\\\").replace('"', "\\\"")),
            ("{schema-length}", self.schema_text.len().to_string()),
            ("{schema}", self.schema.to_owned()),
            ("{configure}", self.configure.to_owned()),
            ("{misdeed}", self.misdeed.to_owned()),
        ];
        let fill = |text: String, (blank, part): &(&str, String)| text.replace(blank, part);
        let text = blanks.iter().fold(include_str!("guest.wat").to_owned(), fill);
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A guest that misbehaves on a text that begins with `!`.
pub fn on_text(misdeed: &str) -> Vec<u8> {
    Guest { misdeed, ..Guest::default() }.bytes()
}
