//! What is read directly means what the YAML library reads.

use proptest::prelude::*;

use crate::state::{Problems, State, error::Report, read_any, read_plain, words};

const FULL_YAML: &str = include_str!("../../../tests/data/full.yaml");
const FULL_JSON: &str = include_str!("../../../tests/data/full.json");

/// The same in the style of most libraries.
const BLOCK: &str = "\
# hosts
hosts:
- id: hv1
  vtep: 172.31.0.1
  name: rack 7, row 3 (old)
- vtep: \"172.31.0.2\"
  id: 'hv2' # the other
vpcs:
  - id: blue

    vni: 4001
subnets: [{ id: web, vpc: blue,
    cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]
ports:
  -   id: a
      subnet: web
      address: 192.168.7.1
      mac: 02:00:00:00:07:01
      host: hv1
      interface: tap0
      vlan: [200, 7]
      source_dest_check: false
  - { id: b, subnet: web, address: 192.168.7.2, mac: \"02:00:00:00:07:02\", host: hv1, interface: tap1, vlan: 4095 }
vips:
- id: v
  subnet: web
  address: 192.168.7.3
  ports:
  - a
  -  b
  real_servers: []
  vrids:
    - 66
eips:
- {id: e, address: 203.0.113.1, vip: v, port: null, remark: null}
";

fn finished((state, report): (State, Report)) -> Result<State, Problems> {
    report.finish("f", Some(state))
}

/// Whether the text was read directly. If it was, the library has to agree about it.
fn agree(text: &str) -> Result<bool, TestCaseError> {
    // As the caller does it.
    if words::is_cut_off(text) {
        return Ok(false);
    }
    let Some(plain) = read_plain(text, None) else { return Ok(false) };
    let any =
        read_any(text, None).map_err(|problem| TestCaseError::fail(format!("{problem:?} in\n{text}")))?;
    prop_assert_eq!(finished(plain), finished(any), "{}", text);
    Ok(true)
}

fn is_plain(text: &str) -> bool {
    agree(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_fixtures_and_what_programs_write_are_plain() {
    assert!(is_plain(FULL_JSON));
    assert!(is_plain(FULL_YAML));
    assert!(is_plain(BLOCK));
    let value: serde_json::Value = serde_json::from_str(FULL_JSON).expect("JSON");
    assert!(is_plain(&serde_json::to_string_pretty(&value).expect("JSON")));
    assert!(is_plain(&value.to_string()));
}

/// One word of the block document is replaced by another one.
#[test]
fn words_are_read_alike_whatever_they_look_like() {
    let words = [
        "1",
        "01",
        "0x10",
        "0o17",
        "1e3",
        "1_000",
        "-1",
        "+1",
        ".5",
        ".inf",
        "true",
        "yes",
        "off",
        "null",
        "~",
        "Null",
        "NULL",
        "2001-01-01",
        "12:30:45",
        "a:b",
        "a: b",
        "a#b",
        "a #b",
        "a, b",
        "[a]",
        "{a}",
        "a]",
        "a}",
        "\"a\"",
        "\"a\\tb\"",
        "'a''b'",
        "'a'",
        "\"\"",
        "''",
        "!a",
        "&a",
        "*a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "?",
        "? a",
        "-",
        "- a",
        "a -",
        "=",
        "<<",
        "\"a\"b",
        "a\"b",
        "é",
        "\u{85}",
        "\u{2028}",
        "a\u{feff}",
        "a\tb",
        "a ",
        " a",
        "a:",
        ":a",
        "::",
        "a\\b",
        "",
        "_",
        "/",
        "---",
        "...",
        "a\u{7f}",
        "\"\u{fffe}\"",
        "\"\u{10ffff}\"",
    ];
    let texts = [FULL_YAML, FULL_JSON, BLOCK];
    let replaced = [
        "hv1",
        "blue",
        "4001",
        "66",
        "tap0",
        "tap1",
        "false",
        "null",
        "rack 7, row 3 (old)",
        "e,",
        "192.168.7.1",
    ];
    let mut plain = 0;
    for text in texts {
        for (from, with) in replaced.iter().flat_map(|from| words.iter().map(move |with| (from, with))) {
            plain += usize::from(is_plain(&text.replace(from, with)));
        }
    }
    assert!(plain > 500, "only {plain} were plain");
}

/// Pieces that mean something to YAML.
const PIECES: [&str; 30] = [
    "\n", " ", "  ", "\n\n", "\n  ", "- ", "\n- ", "\n  - ", ": ", ":", ", ", ",", "[", "]", "{", "}", "\"",
    "'", "#", " #", "\t", "&a ", "*a", "!!str ", "<<: ", "null", "\\", "|", "---\n", "é",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn a_piece_anywhere_is_read_alike(
        which in 0..3_usize,
        at in any::<prop::sample::Index>(),
        len in 0..3_usize,
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..3),
    ) {
        let text = [FULL_YAML, FULL_JSON, BLOCK].get(which).copied().unwrap_or_default();
        let begin = at.index(text.len());
        if let (Some(before), Some(after)) = (text.get(..begin), text.get(begin + len..)) {
            agree(&format!("{before}{}{after}", pieces.concat()))?;
        }
    }

    #[test]
    fn lines_in_another_order_or_depth_are_read_alike(
        which in 0..3_usize, line in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), spaces in 0..7_usize,
    ) {
        let text = [FULL_YAML, FULL_JSON, BLOCK].get(which).copied().unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let moved = lines.remove(line.index(lines.len()));
        lines.insert(to.index(lines.len() + 1), format!("{}{}", " ".repeat(spaces), moved.trim_start()));
        agree(&(lines.join("\n") + "\n"))?;
    }
}
