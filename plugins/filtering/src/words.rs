//! Words by their hashes, whatever their case and the punctuation between them.

use std::ops::Range;

/// A word: a hash of its letters in lower case, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Equal for equal words.
    pub hash: u64,
    /// Its bytes.
    pub place: Range<usize>,
}

/// A bijection on 64 bits whose output bits all depend on all input bits: the finaliser of SplitMix64 (Steele, Lea and Flood,
/// OOPSLA 2014).
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

fn step(hash: u64, c: u32) -> u64 {
    (hash ^ u64::from(c)).wrapping_mul(0x100_0000_01b3)
}

/// The words of a text: runs of letters and digits. Characters of Chinese and Japanese, which has no spaces, are a word each.
pub fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::with_capacity(text.len() / 5);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let mut hash = START;
        while let Some(byte) = bytes.get(at) {
            if byte.is_ascii_alphanumeric() {
                hash = step(hash, u32::from(byte.to_ascii_lowercase()));
                at += 1;
                continue;
            }
            if byte.is_ascii() {
                break;
            }
            let Some(c) = text[at..].chars().next() else { break };
            if !c.is_alphanumeric() || (stands_alone(c) && at > start) {
                break;
            }
            hash = c.to_lowercase().fold(hash, |hash, c| step(hash, c.into()));
            at += c.len_utf8();
            if stands_alone(c) {
                break;
            }
        }
        if at > start {
            words.push(Word { hash: mix(hash), place: start..at });
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    words
}

fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// The base of the polynomial that a window of words is hashed by.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of each `n` words in a row, in their order; of all words where there are fewer, and none where there is none. The
/// next window's is made of the last one's (Karp and Rabin, 1987), so that `n` costs nothing.
pub fn windows(words: &[Word], n: usize) -> impl Iterator<Item = u64> + '_ {
    let n = n.clamp(1, words.len().max(1));
    let leading = (0..n).fold(1_u64, |power, _| power.wrapping_mul(BASE));
    let mut sum = 0_u64;
    words.iter().enumerate().filter_map(move |(at, word)| {
        sum = sum.wrapping_mul(BASE).wrapping_add(word.hash);
        if at >= n {
            sum = sum.wrapping_sub(words[at - n].hash.wrapping_mul(leading));
        }
        (at + 1 >= n).then(|| mix(sum))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        words(text).into_iter().map(|word| &text[word.place]).collect()
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(cut("It's 3.5, x^2; \u{e9}t\u{e9}!"), ["It", "s", "3", "5", "x", "2", "\u{e9}t\u{e9}"]);
        assert_eq!(cut("\u{7b54}\u{6848}is\u{662f}7"), ["\u{7b54}", "\u{6848}", "is", "\u{662f}", "7"]);
        assert_eq!(cut(" \u{2014} "), [""; 0]);
        let hashes = |text| words(text).into_iter().map(|word| word.hash).collect::<Vec<_>>();
        assert_eq!(hashes("\u{c9}T\u{c9}  the End"), hashes("\u{e9}t\u{e9}, THE end."));
        assert_ne!(hashes("ab"), hashes("ba"));
    }

    #[test]
    fn windows_are_told_apart_by_order() {
        let of = |text: &str, n| windows(&words(text), n).collect::<Vec<_>>();
        assert_eq!(of("a b c d", 3).len(), 2);
        assert_eq!(of("a b", 3).len(), 1);
        assert_eq!(of("", 3).len(), 0);
        assert_ne!(of("a b c", 3), of("c b a", 3));
        assert_eq!(of("x a b c", 3)[1], of("a b c y", 3)[0]);
        assert_ne!(of("a a b b", 4), of("b b a a", 4));
    }
}
