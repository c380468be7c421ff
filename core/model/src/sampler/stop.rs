//! Stop strings, found in the text of a completion as it grows.

use crate::tokenizer::Tokenizer;

/// Whether the text of the tokens contains a stop string that their last one completed.
///
/// A token is at least a byte of text, so that what is searched is as long as the longest stop string, whatever came
/// before it. Where the first of those tokens is the rest of a character, decoders differ in how much becomes U+FFFD:
/// then the search begins one token earlier, up to the four bytes that a character has.
pub(super) fn completed(tokens: &[u32], stop: &[String], tokenizer: &Tokenizer) -> bool {
    let Some(longest) = stop.iter().map(String::len).max() else { return false };
    for more in 1..=4 {
        let text = tokenizer.decode(&tokens[tokens.len().saturating_sub(longest + more)..]);
        if stop.iter().any(|stop| text.contains(stop)) {
            return true;
        }
        if !text.contains(char::REPLACEMENT_CHARACTER) {
            return false;
        }
    }
    false
}

/// The text before the first stop string in it.
pub(super) fn cut(mut text: String, stop: &[String]) -> String {
    let first = stop.iter().filter_map(|stop| text.find(stop)).min();
    text.truncate(first.unwrap_or(text.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as tokens, but for a few merges.
    fn bytes() -> Tokenizer {
        let texts = (0..50).map(|i| format!("so </answer> and {i}"));
        Tokenizer::train_bpe(texts, 275, &["<eos>".to_string()]).unwrap()
    }

    /// The first number of tokens after which a stop string is found.
    fn found_after(tokenizer: &Tokenizer, tokens: &[u32], stop: &[&str]) -> Option<usize> {
        let stop: Vec<String> = stop.iter().map(|&stop| stop.into()).collect();
        (1..=tokens.len()).find(|&count| completed(&tokens[..count], &stop, tokenizer))
    }

    #[test]
    fn a_stop_string_is_found_with_its_last_token() {
        let tokenizer = bytes();
        let cases: [(&str, &[&str]); 8] = [
            ("well, </answer> more", &["</answer>"]),
            ("well, </answer> more", &["zzzzzzzzzzzzzzzzzzzz", "swer>"]),
            ("漢字 🙂🙃 end", &["🙃"]),
            ("漢字 🙂🙃 end", &["字 🙂"]),
            ("naïve ∑ of it", &["ï"]),
            ("a\n\nb", &["\n\n"]),
            ("aaab", &["aab"]),
            ("nothing", &["x", "thingy"]),
        ];
        for (text, stop) in cases {
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens.len() > 2);
            let whole = |count: &usize| stop.iter().any(|stop| tokenizer.decode(&tokens[..*count]).contains(stop));
            assert_eq!(found_after(&tokenizer, &tokens, stop), (1..=tokens.len()).find(whole), "{stop:?} in {text:?}");
        }
    }

    #[test]
    fn broken_characters_hide_no_stop_string() {
        // The decoder of Llama's tokenizers: a run of bytes that is no UTF-8 becomes U+FFFD as a whole.
        let vocab: serde_json::Map<String, serde_json::Value> =
            (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte.into())).collect();
        let file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }] },
            "model": { "type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true },
        });
        let fallback = Tokenizer::from_json(file.to_string()).unwrap();
        let tokens: Vec<u32> = "x🙂🙂🙂🙃!".bytes().map(u32::from).collect();
        assert_eq!(fallback.decode(&tokens), "x🙂🙂🙂🙃!");
        for stop in ["🙃", "🙂🙃", "🙂🙂🙃"] {
            assert_eq!(found_after(&fallback, &tokens, &[stop]), Some(17), "{stop}");
        }
        let tokenizer = bytes();
        let byte = |text: &str| tokenizer.encode(text).unwrap();
        let broken = [&byte("é")[..1], &byte("é")[1..], &byte("é")[1..], &byte("stop")].concat();
        assert_eq!(found_after(&tokenizer, &broken, &["stop"]), Some(broken.len()));
    }

    #[test]
    fn the_first_stop_string_cuts() {
        let stop = ["</b>", "</a>", "é"].map(String::from);
        assert_eq!(cut("x </a></b>é".into(), &stop), "x ");
        assert_eq!(cut("é".into(), &stop), "");
        assert_eq!(cut("none".into(), &stop), "none");
    }
}
