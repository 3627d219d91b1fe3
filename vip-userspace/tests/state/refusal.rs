//! Changing the good state, and expecting to be refused for it.

use std::{fs, path::Path};

use vip_userspace::state::{Problem, parse};

pub(crate) fn full() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/full.yaml"))
        .expect("the fixture")
}

/// The good state with one text in place of another, which has to be there once.
pub(crate) fn changed(from: &str, to: &str) -> String {
    let full = full();
    assert_eq!(full.matches(from).count(), 1, "`{from}` has to be there once");
    full.replace(from, to)
}

/// The good state with a line added at the end of a list.
pub(crate) fn added(list: &str, line: &str) -> String {
    let (before, after) = full().split_once(&format!("\n{list}:\n")).map_or_else(
        || panic!("there is no list {list}"),
        |(before, after)| (before.to_owned(), after.to_owned()),
    );
    let end = after
        .match_indices('\n')
        .find(|(at, _)| !after.get(at + 1..).is_some_and(|rest| rest.starts_with(' ')))
        .map_or(after.len(), |(at, _)| at);
    let (objects, rest) = after.split_at(end);
    format!("{before}\n{list}:\n{objects}\n  - {line}{rest}")
}

pub(crate) fn problems(text: &str, own_host: Option<&str>) -> Vec<Problem> {
    parse(text, "state.yaml", own_host).expect_err("a bad state").problems().to_vec()
}

/// The line in which a text stands for the last time.
fn line_of(text: &str, word: &str) -> Option<u32> {
    let index = text.lines().collect::<Vec<_>>().iter().rposition(|line| line.contains(word));
    index.and_then(|index| u32::try_from(index + 1).ok())
}

/// Refused for one reason: about `subject`, saying `what`, on the last line with `word` (none: on no line).
#[track_caller]
pub(crate) fn refused_for(text: &str, word: Option<&str>, subject: &str, what: &str, own_host: Option<&str>) {
    let problems = problems(text, own_host);
    let [problem] = problems.as_slice() else { panic!("not one problem but {problems:#?}") };
    assert_eq!(problem.subject, subject, "{problem:#?}");
    assert!(problem.what.contains(what), "{problem:#?}");
    assert_eq!(problem.line, word.and_then(|word| line_of(text, word)), "{problem:#?}");
    assert!(!problem.advice.is_empty(), "{problem:#?}");
}

#[track_caller]
pub(crate) fn refused(text: &str, word: &str, subject: &str, what: &str) {
    assert!(line_of(text, word).is_some(), "`{word}` is not there");
    refused_for(text, Some(word), subject, what, Some("hv1"));
}

/// A good state with `count` ports p0… and as many VIPs v0…, each bound as `bind` says.
pub(crate) fn crowd(count: usize, bind: impl Fn(usize) -> String) -> String {
    let mut lines = vec![
        "hosts: [{ id: h, vtep: 172.31.0.1 }]".to_owned(),
        "vpcs: [{ id: v, vni: 1 }]".to_owned(),
        "subnets: [{ id: s, vpc: v, cidr: 10.0.0.0/16, gateway: 10.0.0.1 }]".to_owned(),
        "ports:".to_owned(),
    ];
    lines.extend((0..count).map(|i| {
        let mac = format!("02:00:00:00:00:{i:02x}");
        format!("- {{ id: p{i}, subnet: s, address: 10.0.1.{i}, mac: {mac}, host: h, interface: t{i} }}")
    }));
    lines.push("vips:".to_owned());
    lines.extend((0..count).map(|i| {
        let bound = bind(i);
        format!("- {{ id: v{i}, subnet: s, address: 10.0.2.{i}, {bound} }}")
    }));
    lines.join("\n") + "\n"
}
