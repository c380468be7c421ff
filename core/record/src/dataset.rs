//! Reading datasets: JSON Lines and Parquet, as rows of JSON values.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Number, Value};

/// Why a dataset can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("could not read the dataset `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is of no kind that can be read.
    #[error("can't read the dataset `{}`: it is {what}; a dataset is a `.jsonl` or a `.parquet` file", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A line is not a JSON object.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A Parquet file is truncated, damaged or compressed in a way that was not built in.
    #[error("could not read the Parquet file `{}`: {what}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// There is no row.
    #[error("the dataset `{}` has no rows", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A row lacks a column.
    #[error("{place}: there is no column `{column}`; it has {}", list(columns))]
    MissingColumn {
        /// The file and the line or row.
        place: String,
        /// The column that was asked for.
        column: String,
        /// Those that the row has.
        columns: Vec<String>,
    },
    /// A row holds what its reader can't use.
    #[error("{place}: {what}")]
    Row {
        /// The file and the line or row.
        place: String,
        /// What is wrong with it.
        what: String,
    },
}

fn list(columns: &[String]) -> String {
    match columns {
        [] => "none".to_owned(),
        columns => columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", "),
    }
}

/// The rows of a dataset: at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    path: PathBuf,
    columns: Vec<String>,
    /// By column, then by row; `None` where the row has no such key.
    values: Vec<Vec<Option<Value>>>,
    /// The line of each row, from 1, in a file that has lines.
    lines: Option<Vec<usize>>,
    rows: usize,
}

impl Rows {
    /// Reads a whole dataset, its kind taken from the file's name.
    pub fn read(path: &Path) -> crate::Result<Self> {
        Ok(read(path)?)
    }

    /// How many rows there are.
    #[expect(clippy::len_without_is_empty, reason = "a dataset without rows is an error of `read`")]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// The names of the columns that any row has, in the order in which they first appear.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// A value; `None` if the row has no such column. A null that is written is a value.
    pub fn get(&self, row: usize, column: &str) -> Option<Value> {
        self.value(row, column).cloned()
    }

    fn value(&self, row: usize, column: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.values[at].get(row)?.as_ref()
    }

    /// The file and the line (JSON Lines) or the row (Parquet, from 0) of a row, for messages.
    pub fn place(&self, row: usize) -> String {
        match self.lines.as_ref().and_then(|lines| lines.get(row)) {
            Some(line) => format!("{}:{line}", self.path.display()),
            None => format!("{}, row {row}", self.path.display()),
        }
    }

    /// The value that a row must have; an error that names the row's place and its columns if it has no such column.
    pub fn require(&self, row: usize, column: &str) -> crate::Result<Value> {
        let value = self.value(row, column).ok_or_else(|| {
            let has = |name: &&String| self.value(row, name).is_some();
            let columns = self.columns.iter().filter(has).cloned().collect();
            Error::MissingColumn { place: self.place(row), column: column.to_owned(), columns }
        });
        Ok(value?.clone())
    }

    /// The error of a reader who can't use a row: `what` stands behind the row's place.
    pub fn row_error(&self, row: usize, what: &str) -> crate::Error {
        Error::Row { place: self.place(row), what: what.to_owned() }.into()
    }

    /// Puts a row at the end.
    fn push(&mut self, row: Map<String, Value>) {
        for (name, value) in row {
            let at = self.columns.iter().position(|column| *column == name).unwrap_or_else(|| {
                self.columns.push(name);
                self.values.push(Vec::new());
                self.values.len() - 1
            });
            self.values[at].resize(self.rows, None);
            self.values[at].push(Some(value));
        }
        self.rows += 1;
    }

    fn finish(mut self) -> Result<Self, Error> {
        if self.rows == 0 {
            return Err(Error::Empty { path: self.path });
        }
        self.values.iter_mut().for_each(|column| column.resize(self.rows, None));
        Ok(self)
    }
}

fn read(path: &Path) -> Result<Rows, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let kind = |what: String| Error::Kind { path: path.to_owned(), what };
    if fs::metadata(path).map_err(io)?.is_dir() {
        return Err(kind("a folder".to_owned()));
    }
    let rows = Rows { path: path.to_owned(), columns: Vec::new(), values: Vec::new(), lines: None, rows: 0 };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "ndjson") => read_lines(rows, &fs::read(path).map_err(io)?),
        Some("parquet") => read_parquet(rows, File::open(path).map_err(io)?),
        Some(other) => Err(kind(format!("a `.{other}` file"))),
        None => Err(kind("a file without an extension".to_owned())),
    }
}

fn read_lines(mut rows: Rows, content: &[u8]) -> Result<Rows, Error> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut lines = Vec::new();
    for (i, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let wrong = |what: String| Error::Line { path: rows.path.clone(), line: i + 1, what };
        let text = std::str::from_utf8(line).map_err(|_| wrong("it is not valid UTF-8".to_owned()))?;
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(row)) => rows.push(row),
            Ok(other) => return Err(wrong(format!("a row is a JSON object, this is {}", kind_of(&other)))),
            Err(error) => return Err(wrong(format!("invalid JSON: {}", without_line(&error)))),
        }
        lines.push(i + 1);
    }
    rows.lines = Some(lines);
    rows.finish()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The parser saw one line, so that its line number would mislead.
fn without_line(error: &serde_json::Error) -> String {
    error.to_string().replace(&format!("at line {} column", error.line()), "at column")
}

fn read_parquet(mut rows: Rows, file: File) -> Result<Rows, Error> {
    let path = rows.path.clone();
    let wrong = |what: String| Error::Parquet { path: path.clone(), what };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| wrong(error.to_string()))?;
    rows.columns = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    rows.values = vec![Vec::new(); rows.columns.len()];
    for batch in builder.build().map_err(|error| wrong(error.to_string()))? {
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        for (column, values) in batch.columns().iter().zip(&mut rows.values) {
            values.extend(to_json(column).map_err(|error| wrong(error.to_string()))?.into_iter().map(Some));
        }
        rows.rows += batch.num_rows();
    }
    rows.finish()
}

/// A column as JSON. Numbers stay numbers (what is not finite becomes null), lists arrays, structs objects; what JSON has
/// no word for, such as dates and decimals, becomes text.
fn to_json(column: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let each = |value: &dyn Fn(usize) -> Result<Value, ArrowError>| {
        (0..column.len()).map(|row| if column.is_null(row) { Ok(Value::Null) } else { value(row) }).collect()
    };
    let items = |values: ArrayRef| to_json(&values).map(Value::Array);
    match column.data_type() {
        DataType::Null => Ok(vec![Value::Null; column.len()]),
        DataType::Boolean => each(&|row| Ok(Value::Bool(column.as_boolean().value(row)))),
        DataType::Utf8 => each(&|row| Ok(Value::from(column.as_string::<i32>().value(row)))),
        DataType::Int64 => each(&|row| Ok(Value::from(column.as_primitive::<Int64Type>().value(row)))),
        DataType::UInt64 => each(&|row| Ok(Value::from(column.as_primitive::<UInt64Type>().value(row)))),
        DataType::Float64 => each(&|row| {
            let number = column.as_primitive::<Float64Type>().value(row);
            Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
        }),
        DataType::LargeUtf8 | DataType::Utf8View => to_json(&cast(column, &DataType::Utf8)?),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => to_json(&cast(column, &DataType::Int64)?),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => to_json(&cast(column, &DataType::UInt64)?),
        DataType::Float16 | DataType::Float32 => to_json(&cast(column, &DataType::Float64)?),
        DataType::Dictionary(_, values) => to_json(&cast(column, values)?),
        DataType::List(_) => each(&|row| items(column.as_list::<i32>().value(row))),
        DataType::LargeList(_) => each(&|row| items(column.as_list::<i64>().value(row))),
        DataType::FixedSizeList(..) => each(&|row| items(column.as_fixed_size_list().value(row))),
        DataType::Map(..) => each(&|row| items(Arc::new(column.as_map().value(row)))),
        DataType::Struct(_) => {
            let structs = column.as_struct();
            let names = structs.column_names();
            let values: Result<Vec<_>, _> = structs.columns().iter().map(to_json).collect();
            let values = values?;
            let pairs = |row: usize| names.iter().zip(&values).map(move |(n, v)| ((*n).to_owned(), v[row].clone()));
            each(&|row| Ok(Value::Object(pairs(row).collect())))
        }
        _ => {
            let formatter = ArrayFormatter::try_new(column, &FormatOptions::default())?;
            each(&|row| Ok(Value::String(formatter.value(row).try_to_string()?)))
        }
    }
}
