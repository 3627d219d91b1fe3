//! What is attached, as opposed to what once was: anybody may detach a program or remove its pin.

use std::collections::BTreeSet;

use super::{error::chain, run::Agent};
use crate::kernel::KernelError;

impl Agent {
    /// Forgets attachments that somebody else ended, so that the next pass makes them anew. Tells whether there were any.
    pub(super) fn notice_detached(&mut self) -> bool {
        let mut problems = Vec::new();
        let mut missing = false;
        if let Some(ifindex) = self.uplink_attached {
            match self.uplink_is_attached(ifindex) {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(
                        "somebody detached the programs of the uplink {}; they are attached again",
                        self.config.uplink
                    );
                    self.uplink_attached = None;
                    missing = true;
                }
                // The link watch tells of it.
                Err(error) if error.is_interface_gone() => {}
                Err(error) => problems.push(chain(&error)),
            }
        }
        for ifindex in self.vlans_attached.clone() {
            match self.dataplane.uplink_tc_is_attached(ifindex) {
                Ok(true) => {}
                Ok(false) => {
                    self.vlans_attached.remove(&ifindex);
                    if let Some(link) = self.links.links().get(ifindex) {
                        tracing::warn!(
                            "somebody detached the program of the VLAN interface {}; it is attached again",
                            link.name
                        );
                        missing = true;
                    }
                }
                Err(error) => problems.push(chain(&error)),
            }
        }
        match self.dataplane.attached_ports() {
            Ok(present) => {
                let present: BTreeSet<u32> = present.into_iter().collect();
                let gone: Vec<u32> = self.attached.difference(&present).copied().collect();
                for ifindex in gone {
                    self.attached.remove(&ifindex);
                    if let Some(link) = self.links.links().get(ifindex) {
                        tracing::warn!(
                            "somebody detached the program of the port interface {}; it is attached again",
                            link.name
                        );
                        missing = true;
                    }
                }
            }
            Err(error) => problems.push(chain(&error)),
        }
        self.set_problems("what is attached", problems);
        missing
    }

    /// Whether all programs that this start attached to the uplink are still there.
    fn uplink_is_attached(&mut self, ifindex: u32) -> Result<bool, KernelError> {
        let xdp =
            self.xdp_mode().is_none() || self.dataplane.xdp_is_attached(ifindex, &self.config.uplink)?;
        Ok(xdp && self.dataplane.uplink_tc_is_attached(ifindex)?)
    }
}
