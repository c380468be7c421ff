//! An index of the prompts' n-grams, in which those of the evaluation sets are looked up.

use std::ops::Range;

use filtering::{Word, windows, words};

/// Where a prompt meets an entry.
#[derive(Debug, PartialEq)]
pub struct Match {
    pub asset: String,
    pub line: u64,
    pub words: usize,
    /// The bytes of the prompt.
    pub place: Range<usize>,
}

/// A window of a prompt.
struct Gram {
    hash: u64,
    prompt: usize,
    place: Range<usize>,
}

pub struct Index {
    n: usize,
    /// By hash. Prompts shorter than `n` words are there as a whole.
    grams: Vec<Gram>,
    /// A bit for each hash that is there, by its first bits: most look-ups end here.
    bits: Vec<u64>,
    shift: u32,
    /// The first match of each prompt.
    pub matches: Vec<Option<Match>>,
}

impl Index {
    pub fn new(prompts: &[String], n: usize) -> Self {
        let mut grams = Vec::new();
        for (prompt, text) in prompts.iter().enumerate() {
            let words = words(text);
            let length = n.min(words.len());
            for (at, hash) in windows(&words, n).enumerate() {
                let place = words[at].place.start..words[at + length - 1].place.end;
                grams.push(Gram { hash: marked(hash, length), prompt, place });
            }
        }
        grams.sort_by_key(|gram| (gram.hash, gram.prompt, gram.place.start));
        // Sixteen bits for each, so that one look-up in sixteen goes on for nothing.
        let size = (grams.len() * 16).next_power_of_two().max(64);
        let shift = 64 - size.trailing_zeros();
        let mut bits = vec![0; size / 64];
        for gram in &grams {
            let bit = (gram.hash >> shift) as usize;
            bits[bit / 64] |= 1 << (bit % 64);
        }
        Self { n, grams, bits, shift, matches: prompts.iter().map(|_| None).collect() }
    }

    /// Marks the prompts that share a window with an entry, or are it.
    pub fn look_up(&mut self, asset: &str, line: u64, entry: &str) {
        let words: Vec<Word> = words(entry);
        let length = self.n.min(words.len());
        for hash in windows(&words, self.n) {
            let hash = marked(hash, length);
            let bit = (hash >> self.shift) as usize;
            if self.bits[bit / 64] >> (bit % 64) & 1 == 0 {
                continue;
            }
            let start = self.grams.partition_point(|gram| gram.hash < hash);
            for gram in self.grams[start..].iter().take_while(|gram| gram.hash == hash) {
                self.matches[gram.prompt].get_or_insert_with(|| Match {
                    asset: asset.to_owned(),
                    line,
                    words: length,
                    place: gram.place.clone(),
                });
            }
        }
    }
}

/// Windows of other lengths are other windows.
fn marked(hash: u64, length: usize) -> u64 {
    filtering::mix(hash ^ length as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n: usize, prompt: &str, entry: &str, expected: Option<&str>) {
        let prompts = [String::new(), "something else that is long enough to be cut".to_owned(), prompt.to_owned()];
        let mut index = Index::new(&prompts, n);
        index.look_up("test", 3, entry);
        assert!(index.matches[..2].iter().all(Option::is_none));
        let found = index.matches[2].as_ref().map(|found| (found.line, &prompt[found.place.clone()]));
        assert_eq!(found, expected.map(|text| (3, text)), "{prompt} | {entry}");
    }

    #[test]
    fn a_prompt_matches_by_n_words_in_a_row_or_as_a_whole() {
        let prompt = "Tell me: how many apples does Ann have left?";
        check(4, prompt, "How many apples does Bob have?", Some("how many apples does"));
        check(5, prompt, "How many apples does Bob have?", None);
        check(3, prompt, "ANN -- HAVE -- LEFT", Some("Ann have left"));
        check(3, prompt, "left have Ann", None);
        check(3, prompt, "have left", None);
        check(10, "What is 2+2?", "what is 2 + 2", Some("What is 2+2"));
        check(10, "What is 2+2?", "what is 2 + 2 + 2", None);
        check(10, "What is 2+2?", "", None);
    }
}
