//! What the first-party verifiers of text share: fast searches, the places where an answer may stand, words, n-grams.
//!
//! All of it is total on any text, without recursion and without a table of Unicode beyond std's, and linear in the text's
//! length for the short marks and names that configs hold.

pub mod bytes;
pub mod places;
pub mod words;
