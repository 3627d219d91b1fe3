//! Reading YAML (and JSON, its subset) with the line of every value.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_saphyr::{Error, MessageFormatter as _, Options, Spanned, UserMessageFormatter, budget, options};

use super::error::Problem;

/// A value and the line it stands on, counted from 1.
///
/// One number instead of the parser's whole span keeps a state of a million objects small.
#[derive(Debug, Clone, Default)]
pub(crate) struct At<T> {
    /// What stands there.
    pub(crate) value: T,
    /// Where it stands.
    pub(crate) line: u32,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let line = u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX);
        Ok(Self { value: spanned.value, line })
    }
}

/// A field that is recognised only to be refused by name: its content is skipped.
pub(crate) type Refused = At<serde::de::IgnoredAny>;

/// Reads one document.
///
/// An error names the line, and the field where the text around the place shows it. The first one ends the
/// reading: what follows a syntax error cannot be trusted to mean what it says.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    serde_saphyr::from_str_with_options(text, parser_options())
        .map_err(|error| describe(text, error.without_snippet()))
}

/// Limits that guard against aliases which multiply, nesting and endless keys stay; those on plain size go,
/// because a state of a million objects is a good state.
fn parser_options() -> Options {
    let unlimited = usize::MAX;
    let budget = budget! {
        max_events: unlimited,
        max_nodes: unlimited,
        max_total_scalar_bytes: unlimited,
        max_documents: 2,
    };
    options! {
        budget: budget,
        emit_comments: false,
        strict_booleans: true,
        with_snippet: false,
    }
}

fn describe(text: &str, error: &Error) -> Problem {
    let location = error.location();
    let line = location.and_then(|at| u32::try_from(at.line()).ok());
    let field = location.and_then(|at| {
        let line = usize::try_from(at.line()).ok()?;
        let column = usize::try_from(at.column()).ok()?;
        field_before(text, line, column)
    });
    let subject = field.map_or_else(|| "document".to_owned(), |field| format!("field `{field}`"));
    let (what, advice) = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let known = expected.join(", ");
            (format!("unknown field `{field}`"), format!("correct or remove it; the fields here are {known}"))
        }
        Error::SerdeMissingField { field, .. } => {
            (format!("the field `{field}` is missing here"), "add it".to_owned())
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("?");
            (format!("the key `{key}` stands here for the second time"), "keep one of them".to_owned())
        }
        Error::MultipleDocuments { .. } => {
            ("a second document begins here".to_owned(), "keep one document per file".to_owned())
        }
        Error::InvalidBooleanStrict { .. } => {
            ("this is no boolean".to_owned(), "write true or false".to_owned())
        }
        Error::NullIntoString { .. } => {
            ("the value is empty".to_owned(), "write a value or remove the field".to_owned())
        }
        other => {
            let what = UserMessageFormatter.format_message(other).into_owned();
            let column = location.map_or(0, |at| at.column());
            (format!("{what} (column {column})"), "correct the text here or just before".to_owned())
        }
    };
    Problem { line, subject, what, advice }
}

/// The key that stands before a value on the value's own line: the parser reports where, not which field.
fn field_before(text: &str, line: usize, column: usize) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let end = line.char_indices().nth(column.checked_sub(1)?).map_or(line.len(), |(at, _)| at);
    let before = line.get(..end)?.trim_end().strip_suffix(':')?.trim_end().trim_end_matches('"');
    let key = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?;
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        size: At<u32>,
    }

    #[test]
    fn a_value_knows_its_line() {
        let thing: Thing = read("# a comment\n\nsize: 7\n").expect("good text");
        assert_eq!((thing.size.value, thing.size.line), (7, 3));
    }

    #[test]
    fn json_with_tabs_reads_like_yaml() {
        let thing: Thing = read("{\n\t\"size\":\t7\n}").expect("good text");
        assert_eq!((thing.size.value, thing.size.line), (7, 2));
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_field() {
        let problem = read::<Thing>("# first\nsize: many\n").expect_err("`many` is no number");
        assert_eq!((problem.line, problem.subject.as_str()), (Some(2), "field `size`"));
    }

    #[test]
    fn the_key_before_a_place_is_found_in_every_style() {
        assert_eq!(field_before("a: { key: x }", 1, 11), Some("key"));
        assert_eq!(field_before("{ \"key\" : x }", 1, 11), Some("key"));
        assert_eq!(field_before("- x", 1, 3), None);
        assert_eq!(field_before("a: x", 9, 3), None);
        assert_eq!(field_before("a: x", 0, 0), None);
    }
}
