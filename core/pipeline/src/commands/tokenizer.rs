//! `pipeline tokenizer`: trains a tokenizer from a column of a dataset.

use std::path::PathBuf;

use anyhow::Context;
use model::Tokenizer;

use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// A JSON Lines or Parquet file.
    #[arg(long)]
    data: PathBuf,
    /// The columns whose texts are learned from. May be repeated.
    #[arg(long, required = true)]
    column: Vec<String>,
    /// How text is split.
    #[arg(long, value_enum, default_value_t = Kind::Bpe)]
    kind: Kind,
    /// The number of tokens to reach (byte-pair encoding).
    #[arg(long, default_value_t = 4096)]
    vocab_size: usize,
    /// A token that is never split, such as `<eos>`. May be repeated; ids follow the order.
    #[arg(long)]
    special: Vec<String>,
    /// The `tokenizer.json` to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Byte-level byte-pair encoding.
    Bpe,
    /// One token a character of the data.
    Chars,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let rows = flow::dataset::Rows::read(&args.data)?;
    let mut texts = Vec::new();
    for row in 0..rows.len() {
        for column in &args.column {
            texts.push(match rows.require(row, column)? {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            });
        }
    }
    let tokenizer = match args.kind {
        Kind::Bpe => Tokenizer::train_bpe(texts.into_iter(), args.vocab_size, &args.special),
        Kind::Chars => Tokenizer::train_chars(texts.into_iter(), &args.special),
    }
    .context("failed to train the tokenizer")?;
    tokenizer.save(&args.out)?;
    ui::say(&format!("{}: {} tokens", ui::escape(&args.out.display().to_string()), tokenizer.vocab_size()));
    Ok(exit_code::DONE)
}
