//! What the tables contain, as the agent remembers it.
//!
//! While they contain exactly what a state says, most of the entries need no memory: they can be made of the state again, which
//! takes less than reading a new one. That spares a third of what the agent would take with a million EIPs.

use std::{net::Ipv4Addr, sync::Arc};

use vip_common::tables::{PortEntry, Target};

use crate::{
    plan::{Assigned, Contents, Site, Step, contents_of, interface_of},
    state::State,
};

/// What contents were made of.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) state: Arc<State>,
    pub(super) site: Site,
    pub(super) assigned: Arc<Assigned>,
}

impl Origin {
    fn contents(&self) -> Contents {
        let Self { state, site, assigned } = self;
        contents_of(state, site, assigned)
    }
}

/// Entries of the tables that may be many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) eips: usize,
    pub(super) macs: usize,
    pub(super) ports: usize,
}

/// The contents of the tables, of which a part may have been spared.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Without EIPs, addresses, MACs, and ports that have no interface here, if they were spared.
    contents: Contents,
    /// What those that were spared are made of, and how many they were.
    spared: Option<(Origin, Counts)>,
}

impl Known {
    /// Everything is remembered.
    pub(super) fn new(contents: Contents) -> Self {
        Self { contents, spared: None }
    }

    /// The contents are what [`contents_of`] makes of `origin`.
    pub(super) fn spare(&mut self, origin: Origin) {
        self.restore();
        debug_assert_eq!(self.contents, origin.contents(), "contents that cannot be made again");
        let counts = self.counts();
        let Contents { eips, addresses, macs, ports, .. } = &mut self.contents;
        eips.clear();
        addresses.clear();
        macs.clear();
        ports.retain(|_, port| interface_of(port).is_some());
        self.spared = Some((origin, counts));
    }

    fn restore(&mut self) {
        if let Some((origin, _)) = self.spared.take() {
            self.contents = origin.contents();
        }
    }

    /// All of it.
    pub(super) fn whole(&mut self) -> &Contents {
        self.restore();
        &self.contents
    }

    /// All of it but EIPs, addresses, MACs, and ports that have no interface here.
    pub(super) fn near(&self) -> &Contents {
        &self.contents
    }

    /// A port that has an interface on this host.
    pub(super) fn port_here(&self, index: u32) -> Option<&PortEntry> {
        self.contents.ports.get(&index).filter(|port| interface_of(port).is_some())
    }

    /// The EIPs in the tables, and where they lead.
    pub(super) fn eips(&self) -> impl Iterator<Item = (Ipv4Addr, Target)> + '_ {
        let remembered = self.contents.eips.iter().map(|(&eip, &target)| (Ipv4Addr::from(eip), target));
        let spared =
            self.spared.iter().flat_map(|(Origin { state, assigned, .. }, _)| assigned.targets(state));
        remembered.chain(spared)
    }

    /// How many entries there are of those that may have been spared.
    pub(super) fn counts(&self) -> Counts {
        let Contents { eips, macs, ports, .. } = &self.contents;
        let all = Counts { eips: eips.len(), macs: macs.len(), ports: ports.len() };
        self.spared.as_ref().map_or(all, |(_, counts)| *counts)
    }

    /// What the contents are after steps.
    pub(super) fn apply<'s>(&mut self, steps: impl Iterator<Item = &'s Step>) {
        let mut steps = steps.filter(|step| !step.is_about_owners()).peekable();
        if steps.peek().is_some() {
            self.restore();
        }
        steps.for_each(|step| self.contents.apply(step));
    }
}
