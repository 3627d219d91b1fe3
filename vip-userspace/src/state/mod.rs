//! The desired state: what hosts, networks, ports and addresses there shall be.
//!
//! [`load`] reads a YAML or JSON file (JSON is read as the YAML that it is), judges it whole and resolves its
//! names. A [`State`] can therefore be trusted, and a refused file changes nothing: [`StateError`] lists every
//! problem with its line. Only what breaks the reading itself (syntax, an unknown or missing field, a value of
//! the wrong type) ends at the first problem.
//!
//! A missing object is a wish to delete, so a damaged file must never look like a short one. `hosts`, `vpcs`,
//! `subnets` and `ports` have to be there, `hosts` with at least one entry, and text that is not one bracketed
//! JSON value has to end with a line end. A file cut exactly between two lines of its later lists cannot be told
//! from a whole one: writers replace the file by renaming a new one over it.
//!
//! Fields of the interface that this build does not obey yet, and IPv6 addresses, are refused by name.

use std::{fs, path::Path};

use self::{document::Document, error::Report, plain::Sections, resolve::Resolver};
pub use self::{
    error::{Problem, Problems, StateError},
    mac::{MacAddr, MacAddrError},
    model::{
        Binding, Eip, EipTarget, Group, Host, Id, Kind, Peering, Port, Rights, Router, State, Subnet, Vip,
        Vpc,
    },
    objects::{Label, Objects, Ref},
};

mod bind;
pub mod check;
mod document;
mod draft;
pub(crate) mod error;
mod mac;
mod model;
mod names;
mod objects;
mod overlap;
mod plain;
mod resolve;
mod rules;
mod settle;
pub(crate) mod words;
pub(crate) mod yaml;

/// VRIDs that one VIP may allow.
pub const MAX_VRIDS: usize = 4;

/// VIPs that one port may have the right to own, in the default profile.
pub const MAX_VIPS_PER_PORT: usize = 10;

/// Ports that may have the right to own one VIP, in the default profile.
pub const MAX_OWNERS_PER_VIP: usize = 10;

/// The highest VNI: 24 bits, all set (RFC 7348 §5).
pub const MAX_VNI: u32 = (1 << 24) - 1;

/// Reads and judges a state file.
///
/// `own_host` is the id of the host that is going to apply the state: it has to be listed. None: that is not asked.
pub fn load(path: &Path, own_host: Option<&str>) -> Result<State, StateError> {
    let text =
        fs::read_to_string(path).map_err(|source| StateError::Read { path: path.to_path_buf(), source })?;
    parse(&text, &path.display().to_string(), own_host)
}

/// Judges a state that was read already; `origin` is the name errors give it. Else as [`load`].
pub fn parse(text: &str, origin: &str, own_host: Option<&str>) -> Result<State, StateError> {
    let mut report = Report::default();
    if words::is_cut_off(text) {
        report.add(
            None,
            "document",
            "the last line has no end, as in a file that was cut off: refused, never read as a wish to delete",
            "end the file with a line end, and replace it by renaming a complete one over it",
        );
        return report.finish(origin, None).map_err(StateError::Invalid);
    }
    if u32::try_from(text.len()).is_err() {
        report.add(None, "document", "it is longer than 4 GiB", "split the state over several hosts");
        return report.finish(origin, None).map_err(StateError::Invalid);
    }
    let resolved = read_plain(text, own_host).map_or_else(|| read_any(text, own_host), Ok);
    let (state, report) =
        resolved.map_err(|problem| StateError::Invalid(Problems::new(origin, vec![problem])))?;
    report.finish(origin, Some(state)).map_err(StateError::Invalid)
}

/// Reads a text as programs write it; none if it is not like that.
fn read_plain(text: &str, own_host: Option<&str>) -> Option<(State, Report)> {
    let mut sections = Sections::find(text).ok()?;
    let (state, report) = Resolver::new(own_host).resolve(&mut sections).ok()?;
    // Without hosts the rest was not looked at: it may be worse than that.
    (!state.hosts.is_empty()).then_some((state, report))
}

/// Reads any text.
fn read_any(text: &str, own_host: Option<&str>) -> Result<(State, Report), Problem> {
    let mut document: Document<'static> = yaml::read(text)?;
    let Ok(resolved) = Resolver::new(own_host).resolve(&mut document);
    Ok(resolved)
}
