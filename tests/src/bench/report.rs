//! What is printed: tables for people, JSON for programs, with the same content.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;
use std::collections::BTreeMap;

use super::stats::Spread;

/// Everything that a run found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The machine, so that nobody compares figures of two.
    pub(super) machine: BTreeMap<&'static str, String>,
    /// By part.
    pub(super) sections: Vec<Section>,
}

/// One table.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    /// The part's letter.
    pub(super) part: char,
    /// What is measured.
    pub(super) title: String,
    /// Names of the columns, in order.
    pub(super) columns: Vec<Column>,
    /// The rows.
    pub(super) rows: Vec<Row>,
    /// What was checked, and found, beside the figures.
    pub(super) verified: Vec<String>,
}

/// A column of figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: &'static str,
    /// Digits behind the point in the table.
    #[serde(skip)]
    pub(super) digits: usize,
}

/// One measured thing.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// The way of the packet.
    pub(super) path: String,
    /// Entries in the tables, or another circumstance.
    pub(super) size: String,
    /// What was measured on that way.
    pub(super) subject: String,
    /// Figures by column; a column that has no meaning here is missing.
    pub(super) values: BTreeMap<&'static str, Spread>,
}

/// How a number of entries is written.
pub(super) fn count(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl Section {
    /// The table as text.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        let names = ["path", "entries", "program"].into_iter().chain(self.columns.iter().map(|c| c.name));
        table.set_header(names);
        for Row { path, size, subject, values } in &self.rows {
            let figures = self.columns.iter().map(|column| {
                values.get(column.name).map(|spread| spread.text(column.digits)).unwrap_or_default()
            });
            table.add_row([path, size, subject].into_iter().cloned().chain(figures));
        }
        for column in table.column_iter_mut().filter(|column| column.index != 0 && column.index != 2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("\n{}. {}\n{table}\n", self.part, self.title);
        for line in &self.verified {
            text.push_str("  checked: ");
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let written = [1, 1000, 100_000, 1_000_000].map(count);
        assert_eq!(written, ["1", "1 000", "100 000", "1 000 000"]);
    }
}
