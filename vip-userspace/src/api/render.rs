//! Answers as text.
//!
//! JSON and YAML hold the same values. CSV has every one of them too, one line per object after a line of names; what is
//! `null` is empty there, lists are separated by spaces. Tables show the columns that fit a screen, `-` for nothing, and
//! are the same on a terminal and in a pipe: no colours.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use thiserror::Error;

/// How to show an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
    /// Comma-separated values (RFC 4180).
    Csv,
}

/// An answer cannot be shown.
#[derive(Debug, Error)]
pub enum RenderError {
    /// As JSON.
    #[error("cannot write the answer as JSON")]
    Json(#[from] serde_json::Error),
    /// As YAML.
    #[error("cannot write the answer as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
    /// As CSV.
    #[error("cannot write the answer as CSV")]
    Csv(#[from] csv::Error),
}

/// A column of CSV, and perhaps of the table.
pub struct Column<T: ?Sized> {
    /// Name in CSV: that of the JSON field, with dots between the levels.
    pub(super) name: &'static str,
    heading: Option<&'static str>,
    pub(super) text: fn(&T) -> String,
}

impl<T> Column<T> {
    /// A column of CSV and, under `heading`, of the table.
    pub(super) const fn shown(name: &'static str, heading: &'static str, text: fn(&T) -> String) -> Self {
        Self { name, heading: Some(heading), text }
    }

    /// A column of CSV alone.
    pub(super) const fn csv(name: &'static str, text: fn(&T) -> String) -> Self {
        Self { name, heading: None, text }
    }
}

/// What can be shown in columns.
pub trait Tabular: Serialize + Sized + 'static {
    /// The columns, in order.
    const COLUMNS: &'static [Column<Self>];
}

/// A list as text, which ends with a line end.
pub fn list<T: Tabular>(format: Format, items: &[T]) -> Result<String, RenderError> {
    match format {
        Format::Table => Ok(table_of(items)),
        Format::Json => json(&items),
        Format::Yaml => yaml(&items),
        Format::Csv => csv_of(items),
    }
}

/// One object as text: not a list in JSON and YAML, a list of one elsewhere.
pub fn one<T: Tabular>(format: Format, item: &T) -> Result<String, RenderError> {
    match format {
        Format::Table | Format::Csv => list(format, std::slice::from_ref(item)),
        Format::Json => json(item),
        Format::Yaml => yaml(item),
    }
}

/// A value as indented JSON, which ends with a line end.
pub fn json<T: Serialize>(value: &T) -> Result<String, RenderError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// A value as YAML, which ends with a line end.
pub fn yaml<T: Serialize>(value: &T) -> Result<String, RenderError> {
    let mut text = serde_saphyr::to_string(value)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn csv_of<T: Tabular>(items: &[T]) -> Result<String, RenderError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(T::COLUMNS.iter().map(|column| column.name))?;
    for item in items {
        writer.write_record(T::COLUMNS.iter().map(|column| (column.text)(item)))?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    // All that went in was text.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn table_of<T: Tabular>(items: &[T]) -> String {
    let shown = || T::COLUMNS.iter().filter_map(|column| Some((column.heading?, column.text)));
    let rows = items.iter().map(|item| shown().map(|(_, text)| text(item)).collect());
    table(&shown().map(|(heading, _)| heading).collect::<Vec<_>>(), rows)
}

/// Rows below headings, aligned, each line ending with a line end and without spaces before it.
pub(super) fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}
