//! What each stage type does in a step, one file a type.

pub(crate) mod ask;
pub(crate) mod collect;
pub(crate) mod distil;
pub(crate) mod filter;
pub(crate) mod grpo;
pub(crate) mod judge;
pub(crate) mod judged;
pub(crate) mod learning;
pub(crate) mod pairs;
pub(crate) mod policy;
pub(crate) mod reward;
pub(crate) mod rewrite;
pub(crate) mod sample;
pub(crate) mod sft;
pub(crate) mod source;
pub(crate) mod train_judge;
pub(crate) mod verify;
