use crate::random::mix;

/// Which problems: those to learn from, or those to be tested on. No problem is in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Seven in eight.
    #[default]
    Train,
    /// One in eight.
    HeldOut,
}

impl Split {
    /// Whether a problem is of the split: one in eight is held out, by a hash of what makes it the same problem.
    ///
    /// The hash is FNV-1a (64 bits), then mixed: its own last bits hang on the last bits of the text alone, which may be the same
    /// in all problems of a family.
    pub fn has(self, problem: &str) -> bool {
        let fold = |hash: u64, b: u8| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        let hash = mix(problem.bytes().fold(0xcbf2_9ce4_8422_2325, fold));
        hash.is_multiple_of(8) == (self == Self::HeldOut)
    }
}
