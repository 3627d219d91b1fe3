//! Judging a state file without applying it.

use std::{fmt, path::Path};

use super::{State, StateError, load};

/// How many objects of each kind a good state has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field counts the kind it is named after")]
pub struct Summary {
    pub hosts: usize,
    pub vpcs: usize,
    pub subnets: usize,
    pub ports: usize,
    pub groups: usize,
    pub vips: usize,
    pub eips: usize,
    pub peerings: usize,
}

impl Summary {
    /// Counts the objects.
    pub fn of(state: &State) -> Self {
        Self {
            hosts: state.hosts.len(),
            vpcs: state.vpcs.len(),
            subnets: state.subnets.len(),
            ports: state.ports.len(),
            groups: state.groups.len(),
            vips: state.vips.len(),
            eips: state.eips.len(),
            peerings: state.peerings.len(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, vpcs, subnets, ports, groups, vips, eips, peerings } = self;
        write!(f, "hosts {hosts}, vpcs {vpcs}, subnets {subnets}, ports {ports}, ")?;
        write!(f, "groups {groups}, vips {vips}, eips {eips}, peerings {peerings}")
    }
}

/// Loads a state file and counts what is in it.
///
/// `own_host` is the host the state is judged for, which has to be listed; without one, that is not asked.
pub fn check(path: &Path, own_host: Option<&str>) -> Result<Summary, StateError> {
    load(path, own_host).map(|state| Summary::of(&state))
}
