//! What each stage type does in a step, one file a type.

pub(crate) mod collect;
pub(crate) mod filter;
pub(crate) mod grpo;
pub(crate) mod learning;
pub(crate) mod reward;
pub(crate) mod sample;
pub(crate) mod sft;
pub(crate) mod source;
pub(crate) mod verify;
