//! Datasets: what is read, and what is said about one that can't be.

use std::fs;
use std::path::{Path, PathBuf};

use record::Error;
use record::dataset::{self, Rows};
use serde_json::{Value, json};

fn read(name: &str, content: &[u8]) -> Result<Rows, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(name);
    fs::write(&path, content).expect("a file");
    Rows::read(&path).map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

#[track_caller]
fn check_error(name: &str, content: &[u8], expected: &str) {
    assert_eq!(read(name, content).expect_err("an error"), expected);
}

#[test]
fn json_lines_are_rows() {
    let rows = read("a.jsonl", b"\xef\xbb\xbf{\"q\":\"x\",\"n\":1}\r\n\n{\"a\":null,\"q\":[1,{\"b\":2.5}]}").unwrap();
    assert_eq!((rows.len(), rows.columns()), (2, &["q".to_owned(), "n".to_owned(), "a".to_owned()][..]));
    assert_eq!(rows.get(0, "q"), Some(json!("x")));
    assert_eq!(rows.get(1, "q"), Some(json!([1, { "b": 2.5 }])));
    assert_eq!(rows.get(1, "a"), Some(Value::Null));
    assert_eq!((rows.get(0, "a"), rows.get(1, "n"), rows.get(0, "zz"), rows.get(2, "q")), (None, None, None, None));
    assert!(rows.place(1).ends_with("a.jsonl:3"), "blank lines count");
    assert_eq!(rows.require(0, "n").unwrap(), json!(1));
    let message = rows.require(1, "n").unwrap_err().to_string();
    assert!(message.ends_with("a.jsonl:3: there is no column `n`; it has `q`, `a`"), "{message}");
    let message = rows.row_error(1, "column `q` is no text").to_string();
    assert!(message.ends_with("a.jsonl:3: column `q` is no text"), "{message}");
}

#[test]
fn what_is_wrong_has_a_place() {
    check_error("a.jsonl", b"{\"q\":1}\n{\"q\":\n", "a.jsonl:2: invalid JSON: EOF while parsing a value at column 5");
    check_error("a.jsonl", b"{\"q\":1}\n\n[1]\n", "a.jsonl:3: a row is a JSON object, this is an array");
    check_error("a.jsonl", b"{\"q\":1}\n{\"q\":\"\xff\"}\n", "a.jsonl:2: it is not valid UTF-8");
    check_error("a.jsonl", b"", "the dataset `a.jsonl` has no rows");
    check_error("a.jsonl", b"\n \n", "the dataset `a.jsonl` has no rows");
    let kinds = "a dataset is a `.jsonl` or a `.parquet` file";
    check_error("a.csv", b"q\n1\n", &format!("can't read the dataset `a.csv`: it is a `.csv` file; {kinds}"));
    check_error("a", b"q\n1\n", &format!("can't read the dataset `a`: it is a file without an extension; {kinds}"));
    let message = Rows::read(Path::new("no/such.jsonl")).unwrap_err().to_string();
    assert!(message.starts_with("could not read the dataset `no/such.jsonl`: No such file"), "{message}");
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Rows::read(dir.path()), Err(Error::Dataset(dataset::Error::Kind { .. }))));
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pyarrow.parquet")
}

/// The file was made by pyarrow; `make_pyarrow.py` beside it has the values.
#[test]
fn parquet_from_pyarrow_has_its_values() {
    let rows = Rows::read(&fixture()).unwrap();
    assert_eq!(rows.len(), 3);
    let column = |name: &str| (0..3).map(|row| rows.get(row, name).unwrap()).collect::<Value>();
    assert_eq!(column("question"), json!(["1+1?", "naïve ⟨x⟩", null]));
    assert_eq!(column("answer"), json!(["2", "#### 7", ""]));
    assert_eq!(column("level"), json!([1, -2, 3]));
    assert_eq!(column("big"), json!([9_223_372_036_854_775_808_u64, 0, 7]));
    assert_eq!(column("score"), json!([0.1, null, 1e300]));
    assert_eq!(column("half"), json!([0.5, 1.5, 2.5]));
    assert_eq!(column("ok"), json!([true, false, null]));
    assert_eq!(column("messages"), json!([[{ "role": "user", "content": "hi" }], [], null]));
    assert_eq!(column("tokens"), json!([[1, 2], [], [3]]));
    assert_eq!(column("kind"), json!(["a", "b", "a"]));
    assert_eq!(column("day"), json!(["2024-02-29", "2024-02-29", "2024-02-29"]));
    assert_eq!(column("price"), json!(["1.50", "1.50", "1.50"]));
    let message = rows.require(0, "prompt").unwrap_err().to_string();
    assert!(
        message.contains("pyarrow.parquet, row 0: there is no column `prompt`; it has `question`, `answer`"),
        "{message}"
    );
}

#[test]
fn a_damaged_parquet_file_is_an_error_wherever_it_is_cut() {
    let whole = fs::read(fixture()).unwrap();
    for length in (0..whole.len()).step_by(97) {
        assert!(read("a.parquet", &whole[..length]).is_err(), "{length}");
    }
    let message = read("a.parquet", b"{\"q\":1}\n{\"q\":2}\n").unwrap_err();
    assert!(message.starts_with("could not read the Parquet file `a.parquet`: "), "{message}");
}
