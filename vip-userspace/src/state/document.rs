//! The desired state as it is written: names not resolved, values not judged.
//!
//! Addresses and the like are read as text, so that one pass can report everything that is wrong with them.

use serde::Deserialize;

use super::{
    model::{Kind, Label},
    yaml::{At, Refused},
};

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) hosts: Option<Vec<At<Host>>>,
    pub(super) vpcs: Option<Vec<At<Vpc>>>,
    pub(super) subnets: Option<Vec<At<Subnet>>>,
    pub(super) ports: Option<Vec<At<Port>>>,
    #[serde(default)]
    pub(super) groups: Option<Vec<At<Group>>>,
    #[serde(default)]
    pub(super) vips: Option<Vec<At<Vip>>>,
    #[serde(default)]
    pub(super) eips: Option<Vec<At<Eip>>>,
    #[serde(default)]
    pub(super) peerings: Option<Vec<At<Peering>>>,
}

/// What all kinds with an id have in common.
pub(super) trait Object {
    /// Which kind it is.
    const KIND: Kind;

    /// The id as written.
    fn id(&self) -> &At<String>;

    /// Takes the words meant for people only; none if there are none.
    fn take_label(&mut self) -> Option<Label>;
}

macro_rules! objects {
    ($($kind:ident),*) => {$(
        impl Object for $kind {
            const KIND: Kind = Kind::$kind;

            fn id(&self) -> &At<String> {
                &self.id
            }

            fn take_label(&mut self) -> Option<Label> {
                Label::of(self.name.take(), self.remark.take())
            }
        }
    )*};
}

objects!(Host, Vpc, Subnet, Port, Group, Vip, Eip);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) id: At<String>,
    pub(super) vtep: At<String>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vpc {
    pub(super) id: At<String>,
    pub(super) vni: At<u64>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subnet {
    pub(super) id: At<String>,
    pub(super) vpc: At<String>,
    pub(super) cidr: At<String>,
    pub(super) gateway: At<String>,
    pub(super) router: Option<At<String>>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) id: At<String>,
    pub(super) subnet: At<String>,
    pub(super) address: At<String>,
    pub(super) mac: At<String>,
    pub(super) host: At<String>,
    pub(super) interface: At<String>,
    pub(super) source_dest_check: Option<bool>,
    pub(super) vlan: Option<Refused>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) id: At<String>,
    pub(super) members: Vec<At<String>>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vip {
    pub(super) id: At<String>,
    pub(super) subnet: At<String>,
    pub(super) address: At<String>,
    pub(super) group: Option<At<String>>,
    pub(super) ports: Option<Vec<At<String>>>,
    pub(super) real_servers: Option<Vec<At<String>>>,
    pub(super) vrids: Option<Vec<At<u64>>>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Eip {
    pub(super) id: At<String>,
    pub(super) address: At<String>,
    pub(super) vip: Option<At<String>>,
    pub(super) port: Option<At<String>>,
    pub(super) bandwidth_mbps: Option<Refused>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}

/// The only kind without an id: its two VPCs name it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peering {
    pub(super) vpcs: Vec<At<String>>,
    pub(super) name: Option<String>,
    pub(super) remark: Option<String>,
}
