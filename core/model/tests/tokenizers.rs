//! Encodings of published tokenizers against those of their own implementations.

#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use model::Tokenizer;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares the encodings of each row's `text` with those that it has under the tokenizer's name, and the way back.
fn compare(name: &str, file: &Path, rows: &[Value]) {
    let tokenizer = Tokenizer::from_file(file).unwrap();
    for row in rows {
        let (text, expected) = (row["text"].as_str().unwrap(), row[name].as_array().unwrap());
        let expected: Vec<u32> = expected.iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{name}: {text:?}");
        assert_eq!(tokenizer.decode(&expected), text, "{name}");
    }
}

#[test]
fn tokenizers_cut_to_some_texts_encode_them_as_the_whole_ones_do() {
    let folder = root().join("tests/parity/tokenizers");
    let rows: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("encodings.json")).unwrap()).unwrap();
    assert_eq!(rows.len(), 37);
    for name in ["deepseek_v3", "cl100k"] {
        compare(name, &folder.join(format!("{name}.json")), &rows);
    }
}

#[test]
fn whole_tokenizers_encode_as_published() {
    let data = root().join("../shared/data");
    let Ok(text) = std::fs::read_to_string(data.join("cases/tokenizer_encodings.jsonl")) else {
        println!("skipped: {} is not there", data.display());
        return;
    };
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() >= 37, "{} rows", rows.len());
    for name in ["deepseek_v3", "qwen"] {
        compare(name, &data.join(format!("tokenizers/{name}/tokenizer.json")), &rows);
    }
}
