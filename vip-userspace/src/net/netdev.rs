//! The generic netlink family `netdev`, through which the kernel tells what XDP can do with an interface.

use std::collections::BTreeMap;

use netlink_packet_generic::{
    GenlMessage,
    ctrl::{
        GenlCtrl, GenlCtrlCmd,
        nlas::{GenlCtrlAttrs, McastGrpAttrs},
    },
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{NetError, XdpFeatures, netdev_message::NetdevMessage, requester::Requester};

const FIND: &str = "find the generic netlink family netdev";
const READ: &str = "read the interface's XDP features";
const LIST: &str = "list the interfaces' XDP features";

/// The family's name; fixed by the kernel.
const FAMILY: &str = "netdev";

/// The family's multicast group that tells about devices; fixed by the kernel.
const MANAGEMENT: &str = "mgmt";

/// What the kernel assigned to the family when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Family {
    id: u16,
    management_group: u32,
}

/// A socket of the generic netlink family `netdev` (kernel 6.3) in one network namespace.
///
/// On older kernels it opens as well and knows nothing: every answer is `None`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Netdev {
    family: Option<Family>,
    requester: Requester<GenlMessage<NetdevMessage>>,
}

impl Netdev {
    /// Opens a socket in the calling thread's network namespace and asks the kernel for the family.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn open() -> Result<Self, NetError> {
        let controller: Requester<GenlMessage<GenlCtrl>> = Requester::open(NETLINK_GENERIC, FIND)?;
        let query = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())],
        };
        let family = match controller.get(FIND, None, GenlMessage::from_payload(query)).await {
            Ok(answer) => Some(family(&answer.payload.nlas)?),
            Err(error) if error.errno() == Some(libc::ENOENT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { family, requester: Requester::open(NETLINK_GENERIC, READ)? })
    }

    /// What XDP can do with the interface; `None` where the kernel (before 6.3) does not tell.
    pub async fn xdp_features(&self, ifindex: u32) -> Result<Option<XdpFeatures>, NetError> {
        let Some(family) = self.family else {
            return Ok(None);
        };
        let query = message(family, NetdevMessage::get(ifindex));
        let answer = self.requester.get(READ, Some(ifindex), query).await?;
        let features = answer
            .payload
            .xdp_features()
            .ok_or(NetError::Incomplete { operation: READ, missing: "the features" })?;
        Ok(Some(XdpFeatures::from_bits_retain(features)))
    }

    /// What XDP can do with each interface of the namespace, by ifindex; empty where the kernel does not tell.
    pub async fn all_xdp_features(&self) -> Result<BTreeMap<u32, XdpFeatures>, NetError> {
        let Some(family) = self.family else {
            return Ok(BTreeMap::new());
        };
        let query = message(family, NetdevMessage::get_all());
        self.requester
            .dump(LIST, query, BTreeMap::new, |all, answer| {
                let device = answer.payload;
                if let (Some(ifindex), Some(features)) = (device.ifindex(), device.xdp_features()) {
                    all.insert(ifindex, XdpFeatures::from_bits_retain(features));
                }
            })
            .await
    }

    /// The multicast group that tells of changes; `None` where the kernel has none.
    pub(super) fn management_group(&self) -> Option<u32> {
        self.family.map(|family| family.management_group)
    }
}

fn message(family: Family, payload: NetdevMessage) -> GenlMessage<NetdevMessage> {
    let mut message = GenlMessage::from_payload(payload);
    message.set_resolved_family_id(family.id);
    message
}

fn family(attributes: &[GenlCtrlAttrs]) -> Result<Family, NetError> {
    let id = attributes.iter().find_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    });
    let groups = attributes.iter().find_map(|attribute| match attribute {
        GenlCtrlAttrs::McastGroups(groups) => Some(groups.as_slice()),
        _ => None,
    });
    let management_group = groups.into_iter().flatten().find_map(|group| {
        let named = group.iter().any(|part| matches!(part, McastGrpAttrs::Name(name) if name == MANAGEMENT));
        group.iter().find_map(|part| match part {
            McastGrpAttrs::Id(id) if named => Some(*id),
            _ => None,
        })
    });
    match (id, management_group) {
        (Some(id), Some(management_group)) => Ok(Family { id, management_group }),
        (None, _) => Err(NetError::Incomplete { operation: FIND, missing: "the family's number" }),
        (_, None) => Err(NetError::Incomplete { operation: FIND, missing: "the group mgmt" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, id: u32) -> Vec<McastGrpAttrs> {
        vec![McastGrpAttrs::Name(name.to_owned()), McastGrpAttrs::Id(id)]
    }

    #[test]
    fn the_management_group_is_found_among_others() {
        let attributes = [
            GenlCtrlAttrs::FamilyName(FAMILY.to_owned()),
            GenlCtrlAttrs::FamilyId(33),
            GenlCtrlAttrs::McastGroups(vec![group("page-pool", 9), group("mgmt", 8)]),
        ];
        assert_eq!(family(&attributes).expect("complete"), Family { id: 33, management_group: 8 });
    }

    #[test]
    fn a_family_without_the_management_group_is_an_error_and_not_a_silent_watch() {
        let attributes = [GenlCtrlAttrs::FamilyId(33)];
        assert!(matches!(family(&attributes), Err(NetError::Incomplete { missing: "the group mgmt", .. })));
    }
}
