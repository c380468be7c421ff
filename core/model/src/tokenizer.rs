//! Text to token ids and back, over the `tokenizers` crate.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, PreTokenizerWrapper};

use crate::error::{Error, Result};

/// A tokenizer and the tokens that begin and end its sequences.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The file as it was read or trained: what is saved is what was loaded, to the byte.
    json: String,
    /// Whether the model drops characters that it does not know, which must be an error and not a silent loss.
    drops_unknown: bool,
    eos: Vec<u32>,
    bos_token: String,
    eos_token: String,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. It knows no end-of-sequence token until [`Self::with_ends`] names some.
    pub fn from_file(path: &Path) -> Result<Self> {
        let json = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::from_json(json).map_err(|error| Error::file(path, error.to_string()))
    }

    /// A tokenizer without a token, of a model that only computes.
    pub fn absent() -> Self {
        let inner = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
        let (json, eos, text) = (String::new(), Vec::new(), String::new());
        Self { inner, json, drops_unknown: false, eos, bos_token: text.clone(), eos_token: text }
    }

    /// Parses the text of a `tokenizer.json`.
    pub fn from_json(json: String) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(tokenizer_error)?;
        // A file may ask for truncation or padding, which belong to its last training and not to the text.
        inner.with_truncation(None).map_err(tokenizer_error)?;
        inner.with_padding(None);
        let drops_unknown = match inner.get_model() {
            ModelWrapper::BPE(model) => {
                model.get_unk_token().is_none()
                    && !model.byte_fallback
                    && inner.get_pre_tokenizer().is_none()
                    && inner.get_normalizer().is_none()
                    && matches!(inner.get_decoder(), Some(DecoderWrapper::Fuse(_)))
            }
            _ => false,
        };
        Ok(Self { inner, json, drops_unknown, eos: Vec::new(), bos_token: String::new(), eos_token: String::new() })
    }

    /// Says which tokens end a sequence and which one begins it. The first of `eos` is what templates write.
    #[must_use]
    pub fn with_ends(mut self, eos: &[u32], bos: Option<u32>) -> Self {
        self.eos = eos.to_vec();
        self.eos_token = eos.first().and_then(|&id| self.inner.id_to_token(id)).unwrap_or_default();
        self.bos_token = bos.and_then(|id| self.inner.id_to_token(id)).unwrap_or_default();
        self
    }

    /// Says how templates write the tokens at the ends where `tokenizer_config.json` names them.
    #[must_use]
    pub(crate) fn with_end_names(mut self, bos: Option<String>, eos: Option<String>) -> Self {
        self.bos_token = bos.unwrap_or(self.bos_token);
        self.eos_token = eos.unwrap_or(self.eos_token);
        self
    }

    /// The token ids of `text`. Nothing is added at the ends: chat templates write those tokens themselves.
    ///
    /// # Errors
    /// When the vocabulary has no token for a character of the text, which it names.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(tokenizer_error)?;
        if self.drops_unknown {
            let back = self.decode(encoding.get_ids());
            let mut kept = back.chars();
            if let Some((at, lost)) = text.char_indices().find(|&(_, c)| kept.next() != Some(c)) {
                return Err(Error::Tokenizer(format!(
                    "the vocabulary has no token for {lost:?}, at byte {at} of {:?}; \
                     use a tokenizer that was trained on such text",
                    abbreviated(text)
                )));
            }
        }
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens included. Bytes that are no UTF-8 become U+FFFD, ids beyond the vocabulary nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, false).unwrap_or_default()
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Whether each id is the same token in another vocabulary.
    ///
    /// # Errors
    /// It is not: how, in words that go on from the name of this one.
    pub fn same_vocabulary(&self, other: &Self) -> std::result::Result<(), String> {
        let (own, theirs) = (self.vocab_size(), other.vocab_size());
        if own != theirs {
            return Err(format!("has {own} tokens, and its student {theirs}"));
        }
        let token = |of: &Self, id: u32| of.inner.id_to_token(id);
        match (0..own as u32).find(|&id| token(self, id) != token(other, id)) {
            Some(id) => {
                let name = |of: &Self| token(of, id).map_or("nothing".to_owned(), |token| format!("{token:?}"));
                Err(format!("token {id} is {}, and {} to its student", name(self), name(other)))
            }
            None => Ok(()),
        }
    }

    /// The id of a token by its exact text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The tokens that end a sequence.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// What templates write at the end of a message; empty if the model has no such token.
    pub fn eos_token(&self) -> &str {
        &self.eos_token
    }

    /// What templates write at the start of a conversation; empty if the model has no such token.
    pub fn bos_token(&self) -> &str {
        &self.bos_token
    }

    /// The text of `tokenizer.json`.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Writes `tokenizer.json`.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.json).map_err(Error::io("write", path))
    }

    /// Trains byte-level BPE (Sennrich et al. 2016, over bytes as GPT-2 does) until the vocabulary has `vocab_size` tokens, the
    /// `special` ones first. Every text can be encoded by it, and the same texts give the same tokenizer.
    ///
    /// # Errors
    /// When `vocab_size` has no room for the 256 bytes and the special tokens.
    pub fn train_bpe(
        texts: impl Iterator<Item = String> + Send,
        vocab_size: usize,
        special: &[String],
    ) -> Result<Self> {
        let least = 256 + special.len();
        if vocab_size < least {
            return Err(Error::Tokenizer(format!(
                "a vocabulary of {vocab_size} tokens has no room for 256 bytes and {} special tokens; ask for at least {least}",
                special.len()
            )));
        }
        let added: Vec<AddedToken> = special.iter().map(|token| AddedToken::from(token, false)).collect();
        let mut inner = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
        inner.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true))));
        inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::new(false, true, true))));
        // Special tokens are known before training, so that no merge crosses their borders.
        inner.add_tokens(added.clone()).map_err(tokenizer_error)?;
        let mut trainer = TrainerWrapper::from(
            BpeTrainer::builder()
                .vocab_size(vocab_size)
                .min_frequency(2)
                .show_progress(false)
                .special_tokens(added)
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .build(),
        );
        let texts: Vec<String> = texts.collect();
        inner.train(&mut trainer, texts.into_iter()).map_err(tokenizer_error)?;
        Self::from_json(inner.to_string(true).map_err(tokenizer_error)? + "\n")
    }

    /// A tokenizer with one token for each character of `texts`, after the `special` tokens and in order of code points.
    ///
    /// # Errors
    /// When there is no character at all.
    pub fn train_chars(texts: impl Iterator<Item = String>, special: &[String]) -> Result<Self> {
        let mut characters = BTreeSet::new();
        for text in texts {
            let mut rest = text.as_str();
            while let Some(first) = rest.chars().next() {
                let longest = special.iter().filter(|token| rest.starts_with(token.as_str())).map(String::len).max();
                if longest.is_none() {
                    characters.insert(first);
                }
                rest = &rest[longest.unwrap_or(0).max(first.len_utf8())..];
            }
        }
        if characters.is_empty() {
            return Err(Error::Tokenizer("the texts to train on hold no character".into()));
        }
        let tokens = special.iter().cloned().chain(characters.iter().map(char::to_string));
        let vocab: serde_json::Map<String, Value> = tokens.enumerate().map(|(id, t)| (t, json!(id))).collect();
        let added: Vec<Value> = special
            .iter()
            .map(|token| {
                json!({
                    "id": vocab[token], "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": false,
                })
            })
            .collect();
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Fuse" },
            // BPE without merges: each character stays a token of its own.
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": [],
            },
        });
        Self::from_json(format!("{file:#}\n"))
    }
}

fn tokenizer_error(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(error.to_string())
}

fn abbreviated(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> impl Iterator<Item = String> + Send {
        (0..200).map(|i| format!("<think>step {i} of the sum, naïve ∑</think>{}", i * 7))
    }

    fn special() -> Vec<String> {
        ["<pad>", "<eos>", "<think>", "</think>"].map(String::from).to_vec()
    }

    #[test]
    fn byte_level_bpe_encodes_any_text_and_trains_to_the_same_bytes() {
        let tokenizer = Tokenizer::train_bpe(texts(), 300, &special()).unwrap();
        assert_eq!(tokenizer.json(), Tokenizer::train_bpe(texts(), 300, &special()).unwrap().json());
        assert_eq!(tokenizer.token_id("<eos>"), Some(1));
        assert_eq!(tokenizer.vocab_size(), 300);
        for text in ["<think>step 7 of the sum</think>", "  пример\n\t漢字 🙂 ", ""] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids), text);
        }
        let ids = tokenizer.encode("<think>step").unwrap();
        assert_eq!(ids[0], 2);
        assert!(ids.len() < 1 + "step".len(), "frequent words are merged: {ids:?}");
    }

    #[test]
    fn a_vocabulary_without_room_for_bytes_is_refused() {
        let error = Tokenizer::train_bpe(texts(), 100, &special()).err().unwrap().to_string();
        assert!(error.contains("at least 260"), "{error}");
    }

    #[test]
    fn a_character_tokenizer_gives_one_token_a_character_and_names_what_it_lacks() {
        let tokenizer = Tokenizer::train_chars(texts(), &special()).unwrap();
        let ids = tokenizer.encode("<think>ï 12</think>").unwrap();
        assert_eq!(ids.len(), 6);
        assert_eq!(tokenizer.decode(&ids), "<think>ï 12</think>");
        let error = tokenizer.encode("1 + z2").unwrap_err().to_string();
        assert!(error.contains("'+'") && error.contains("byte 2"), "{error}");
        let error = tokenizer.encode("12 Z").unwrap_err().to_string();
        assert!(error.contains("'Z'"), "{error}");
        assert!(Tokenizer::train_chars(std::iter::empty(), &special()).is_err());
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, "{\"version\": 3").unwrap();
        let error = Tokenizer::from_file(&path).err().unwrap().to_string();
        assert!(error.contains("tokenizer.json is not usable"), "{error}");
        let error = Tokenizer::from_file(&folder.path().join("none.json")).err().unwrap().to_string();
        assert!(error.contains("failed to read"), "{error}");
    }
}
