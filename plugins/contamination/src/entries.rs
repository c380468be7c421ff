//! The entries of an evaluation set, line by line as it is read in pieces.

use serde_json::Value;

/// Bytes that are read at once.
pub const PIECE: u32 = 64 << 10;

/// The longest line.
const LINE: usize = 4 << 20;

/// A reader of JSON Lines, or of text with an entry on each line.
pub struct Entries<'a> {
    columns: Option<&'a [String]>,
    /// The line that has begun.
    rest: Vec<u8>,
    line: u64,
}

impl<'a> Entries<'a> {
    pub fn new(columns: Option<&'a [String]>) -> Self {
        Self { columns, rest: Vec::new(), line: 0 }
    }

    /// Takes the next piece and hands on the lines that end in it, with their numbers from 1.
    pub fn read(&mut self, piece: &[u8], is_last: bool, entry: &mut dyn FnMut(u64, &str)) -> Result<(), String> {
        let mut piece = piece;
        while let Some(end) = piece.iter().position(|b| *b == b'\n') {
            self.rest.extend_from_slice(&piece[..end]);
            self.end_line(entry)?;
            piece = &piece[end + 1..];
        }
        self.rest.extend_from_slice(piece);
        if self.rest.len() > LINE {
            return Err(format!("line {} is longer than {LINE} bytes", self.line + 1));
        }
        if is_last { self.end_line(entry) } else { Ok(()) }
    }

    fn end_line(&mut self, entry: &mut dyn FnMut(u64, &str)) -> Result<(), String> {
        self.line += 1;
        let line = self.line;
        let bytes = std::mem::take(&mut self.rest);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if text.starts_with('{') {
            let value = serde_json::from_str(text).map_err(|error| format!("line {line} is no JSON: {error}"))?;
            strings(&value, self.columns, &mut |text| entry(line, text));
        } else if !text.is_empty() {
            entry(line, text);
        }
        // The space is used again.
        self.rest = bytes;
        self.rest.clear();
        Ok(())
    }
}

/// Every string of the columns, however deep.
fn strings(value: &Value, columns: Option<&[String]>, found: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, None, found)),
        Value::Object(fields) => {
            let is_read = |name: &String| columns.is_none_or(|columns| columns.contains(name));
            fields.iter().filter(|(name, _)| is_read(name)).for_each(|(_, value)| strings(value, None, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(columns: Option<&[&str]>, file: &str, expected: &[(u64, &str)]) {
        let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        // Wherever the pieces are cut, the entries are the same.
        for size in [1, 2, 3, 7, file.len().max(1)] {
            let mut entries = Entries::new(columns.as_deref());
            let mut found = Vec::new();
            let pieces: Vec<&[u8]> = file.as_bytes().chunks(size).collect();
            for piece in pieces {
                entries.read(piece, false, &mut |line, text| found.push((line, text.to_owned()))).unwrap();
            }
            entries.read(b"", true, &mut |line, text| found.push((line, text.to_owned()))).unwrap();
            let found: Vec<(u64, &str)> = found.iter().map(|(line, text)| (*line, text.as_str())).collect();
            assert_eq!(found, expected, "{file} in pieces of {size}");
        }
    }

    #[test]
    fn lines_are_entries_and_json_has_columns() {
        check(None, "one\n\n \u{e9}t\u{e9}\r\nlast", &[(1, "one"), (3, "\u{e9}t\u{e9}"), (4, "last")]);
        let json = "{\"q\":\"a\",\"r\":[\"b\",1,{\"c\":\"d\"}]}\n{\"q\":\"e\"}\n";
        check(None, json, &[(1, "a"), (1, "b"), (1, "d"), (2, "e")]);
        check(Some(&["q"]), json, &[(1, "a"), (2, "e")]);
        check(None, "", &[]);
        let mut entries = Entries::new(None);
        assert!(entries.read(b"x\n{\"q\":\n", false, &mut |_, _| {}).unwrap_err().starts_with("line 2 is no JSON"));
    }
}
