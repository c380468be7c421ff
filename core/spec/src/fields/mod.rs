//! The language as data: which tables there are, which keys each takes, of which type, and what they mean.
//!
//! The check of a file, the defaults of what it leaves out, and the JSON Schema are all read off these tables, so that
//! they can't tell different stories.

mod document;
mod judges;
mod learning;
mod manifest;
mod policy;
mod stages;

pub(crate) use document::{PHASE, PIPELINE, RECIPE};
pub(crate) use manifest::{COMPLETION, FINDING, GENERATED, GROUP, MANIFEST, MESSAGE, ROW};
pub(crate) use stages::{STAGES, StageType, stage_type};

/// A table of the file: its keys, and how they depend on each other.
#[derive(Debug)]
pub(crate) struct Fields {
    /// The name of its definition in the JSON Schema.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) doc: &'static str,
    /// Its keys.
    pub(crate) fields: &'static [Field],
    /// How its keys depend on each other.
    pub(crate) rules: &'static [Rule],
}

impl Fields {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) need: Need,
    pub(crate) doc: &'static str,
}

/// Whether a key may be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Need {
    Required,
    Optional,
    /// The value that stands for an absent one, as TOML.
    Default(&'static str),
}

/// How the keys of a table depend on each other.
#[derive(Debug)]
pub(crate) enum Rule {
    /// One of them, and no other of them.
    ExactlyOne(&'static [&'static str]),
    /// At least one of them.
    AtLeastOne(&'static [&'static str]),
    /// The first may stand only where the second does.
    Needs(&'static str, &'static str),
}

/// The type of a value.
#[derive(Debug)]
pub(crate) enum Kind {
    /// The version of the language: 1.
    Version,
    Boolean,
    /// A string that is not empty.
    Text,
    /// A string that is not empty, taken to the letter: it may be white space.
    Exact,
    /// A token of a model: its text, or its id.
    Token,
    /// Lower-case letters, digits, `-` and `_`, starting with a letter; whose name it is.
    Name(&'static str),
    /// The name of something defined elsewhere; what it is.
    Reference(&'static str),
    /// A path, with one of these endings if there are any.
    Path(&'static [&'static str]),
    /// The path of a file made in the run's folder, with one of these endings.
    Output(&'static [&'static str]),
    /// A path, or `phase:NAME`.
    Origin,
    /// Origins of rows, by dataset stage or by `STAGE.SOURCE`.
    RowOrigins,
    /// An integer from a least to a greatest value.
    Integer(i64, i64),
    /// A number.
    Number(Bounds),
    /// A number, or this word.
    NumberOr(Bounds, &'static str),
    /// Two numbers.
    Pair(Bounds),
    /// Bytes: an integer, or a string with a unit such as "64 MiB".
    Size(i64, i64),
    /// One of some words.
    Choice(&'static [Choice]),
    /// A value, or a list of `{ from, value }`.
    Schedule(&'static Kind),
    /// A list with at least so many elements.
    List(&'static Kind, usize),
    /// A value, or a list of at least one.
    OneOrMore(&'static Kind),
    /// A table of known keys.
    Table(&'static Fields),
    /// A table whose keys are names that the user chooses; what they name, and the type of the values.
    Map(&'static str, &'static Kind),
    /// A table whose `type` says which keys it takes.
    Stage,
    /// A table that a plugin understands.
    Config,
    /// Dotted paths and the values that go there.
    Overrides,
    /// A value whose shape depends on other keys, and is looked at where they are known.
    Any,
}

/// A word that may stand somewhere.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) word: &'static str,
    pub(crate) doc: &'static str,
}

/// What a number may be. Every number is finite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) least: Option<f64>,
    pub(crate) most: Option<f64>,
    /// Whether the least value itself is excluded.
    pub(crate) above: bool,
    /// Whether the greatest value itself is excluded.
    pub(crate) below: bool,
}

impl Bounds {
    pub(crate) const ANY: Self = Self { least: None, most: None, above: false, below: false };
    pub(crate) const POSITIVE: Self = Self { least: Some(0.0), most: None, above: true, below: false };
    pub(crate) const NOT_NEGATIVE: Self = Self { above: false, ..Self::POSITIVE };
    /// 0 to 1, both included.
    pub(crate) const SHARE: Self = Self { least: Some(0.0), most: Some(1.0), above: false, below: false };
    /// Above 0, at most 1.
    pub(crate) const SHARE_ABOVE_0: Self = Self { above: true, ..Self::SHARE };
    /// At least 0, below 1.
    pub(crate) const SHARE_BELOW_1: Self = Self { below: true, ..Self::SHARE };

    pub(crate) fn contain(&self, number: f64) -> bool {
        number.is_finite()
            && self.least.is_none_or(|least| number > least || (number == least && !self.above))
            && self.most.is_none_or(|most| number < most || (number == most && !self.below))
    }

    /// "must be above 0 and at most 1".
    pub(crate) fn words(&self) -> String {
        let least = self.least.map(|least| format!("{} {least}", if self.above { "above" } else { "at least" }));
        let most = self.most.map(|most| format!("{} {most}", if self.below { "below" } else { "at most" }));
        match (least, most) {
            (Some(least), Some(most)) => format!("{least} and {most}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "finite".to_owned(),
        }
    }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, need: Need::Required, doc }
}

const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, need: Need::Optional, doc }
}

const fn default(name: &'static str, kind: Kind, toml: &'static str, doc: &'static str) -> Field {
    Field { name, kind, need: Need::Default(toml), doc }
}

const fn choice(word: &'static str, doc: &'static str) -> Choice {
    Choice { word, doc }
}

/// An integer that counts something there is at least one of.
const COUNT: Kind = Kind::Integer(1, 1 << 53);
/// An integer that may be 0.
pub(crate) const NATURAL: Kind = Kind::Integer(0, 1 << 53);
/// The files that rows are read from.
const ROWS: Kind = Kind::Path(&["jsonl", "parquet"]);
