//! Parquet files whose bytes depend on their rows alone.

use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::durable;
use crate::error::{Error, Result};
use crate::folder::FileMark;

/// Writes the batches as a file, a row group a batch, in place of what is at `path`.
pub(crate) fn write(
    path: &Path,
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<FileMark> {
    let encode = |source| Error::Encode { path: path.to_owned(), source };
    durable::replace_with(path, |file| {
        // The writer's version and an Arrow schema would change with a dependency's update, and say nothing to readers.
        let properties = WriterProperties::builder()
            .set_created_by("pipeline".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(encode)?))
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(file, schema, options).map_err(encode)?;
        for batch in batches {
            writer.write(&batch?).and_then(|()| writer.flush()).map_err(encode)?;
        }
        writer.close().map_err(encode)?;
        Ok(())
    })
}
