//! Words, and n-grams of them.

use std::collections::BTreeSet;

/// Whether it is a Chinese character, as Chinese and Japanese texts have them.
pub fn is_han(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}' | '々')
}

/// The words between white space. A run of Chinese characters is cut in pairs where `is_han_paired`: there is no white space
/// between its words, most have two characters, and a dictionary that knew better would weigh megabytes.
pub fn words(text: &str, is_han_paired: bool) -> Vec<&str> {
    let mut found = Vec::with_capacity(text.len() / 6);
    for word in text.split_whitespace() {
        // Below U+2000 no character is Chinese, and so no byte is above 0xe1.
        if !is_han_paired || word.bytes().all(|byte| byte < 0xe2) {
            found.push(word);
            continue;
        }
        let mut start = 0;
        let mut pair = 0; // Chinese characters from `start` on
        for (at, c) in word.char_indices() {
            let begins_anew = if is_han(c) { pair == 2 || (pair == 0 && at > start) } else { pair > 0 };
            if begins_anew {
                found.push(&word[start..at]);
                (start, pair) = (at, 0);
            }
            pair += usize::from(is_han(c));
        }
        found.push(&word[start..]);
    }
    found
}

/// How many n-grams the words have, and how many of them are distinct.
pub fn ngrams(words: &[&str], n: usize) -> (usize, usize) {
    if n == 0 || words.len() < n {
        return (0, 0);
    }
    // Numbers compare faster than words, and n of them are compared often.
    let mut distinct: Vec<&str> = words.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let ids: Vec<u32> = words.iter().map(|word| distinct.binary_search(word).map_or(u32::MAX, |i| i as u32)).collect();
    let seen: BTreeSet<&[u32]> = ids.windows(n).collect();
    (words.len() - n + 1, seen.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_is_cut_in_pairs() {
        assert_eq!(words(" a bc\n", true), ["a", "bc"]);
        assert_eq!(words("这是一个测试", true), ["这是", "一个", "测试"]);
        assert_eq!(words("这是一", true), ["这是", "一"]);
        assert_eq!(words("x这是y一z é", true), ["x", "这是", "y", "一", "z", "é"]);
        assert_eq!(words("这是一", false), ["这是一"]);
        assert_eq!(words("", true), [""; 0]);
    }

    #[test]
    fn ngrams_are_counted() {
        assert_eq!(ngrams(&["a", "b", "a", "b"], 2), (3, 2));
        assert_eq!(ngrams(&["a", "b"], 3), (0, 0));
        assert_eq!(ngrams(&["a", "b", "c"], 3), (1, 1));
        assert_eq!(ngrams(&[], 1), (0, 0));
    }
}
