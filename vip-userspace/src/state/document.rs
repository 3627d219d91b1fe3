//! The desired state as it is written: names not resolved, values not judged.
//!
//! Addresses and the like are read as text, so that one pass can report everything that is wrong with them.

use std::{borrow::Cow, convert::Infallible};

use serde::Deserialize;

use super::{
    model::Kind,
    objects::Label,
    plain::{Fields, NotPlain, Sections},
    yaml::{At, Refused},
};
use crate::vlan::Tags;

/// A word as it is written. It borrows from the text if it stands there as it is.
pub(super) type Word<'t> = At<Cow<'t, str>>;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document<'t> {
    pub(super) hosts: Option<Vec<At<Host<'t>>>>,
    pub(super) vpcs: Option<Vec<At<Vpc<'t>>>>,
    pub(super) subnets: Option<Vec<At<Subnet<'t>>>>,
    pub(super) ports: Option<Vec<At<Port<'t>>>>,
    #[serde(default)]
    pub(super) groups: Option<Vec<At<Group<'t>>>>,
    #[serde(default)]
    pub(super) vips: Option<Vec<At<Vip<'t>>>>,
    #[serde(default)]
    pub(super) eips: Option<Vec<At<Eip<'t>>>>,
    #[serde(default)]
    pub(super) peerings: Option<Vec<At<Peering<'t>>>>,
}

/// What stands in a list of the document.
pub(super) trait Listed<'t>: Fields<'t> {
    /// Which kind it is.
    const KIND: Kind;

    /// Takes the list out of a document.
    fn take(document: &mut Document<'t>) -> Option<Vec<At<Self>>>;
}

/// What all kinds with an id have in common.
pub(super) trait Object<'t>: Listed<'t> {
    /// The id as written.
    fn id(&self) -> &Word<'t>;

    /// The words meant for people only.
    fn label(&self) -> Label<'_>;
}

macro_rules! listed {
    ($($kind:ident: $list:ident),*) => {$(
        impl<'t> Listed<'t> for $kind<'t> {
            const KIND: Kind = Kind::$kind;

            fn take(document: &mut Document<'t>) -> Option<Vec<At<Self>>> {
                document.$list.take()
            }
        }
    )*};
}

macro_rules! objects {
    ($($kind:ident),*) => {$(
        impl<'t> Object<'t> for $kind<'t> {
            fn id(&self) -> &Word<'t> {
                &self.id
            }

            fn label(&self) -> Label<'_> {
                Label { name: self.name.as_deref(), remark: self.remark.as_deref() }
            }
        }
    )*};
}

listed!(
    Host: hosts, Vpc: vpcs, Subnet: subnets, Port: ports, Group: groups, Vip: vips, Eip: eips, Peering: peerings
);
objects!(Host, Vpc, Subnet, Port, Group, Vip, Eip);

/// Where the lists come from.
pub(super) trait Lists<'t> {
    /// Why they cannot be read.
    type Error;

    /// Whether a list is there.
    fn has(&self, kind: Kind) -> bool;

    /// Takes the objects of one list, in their order.
    fn each<T: Listed<'t>>(&mut self, take: impl FnMut(At<T>)) -> Result<(), Self::Error>;
}

impl<'t> Lists<'t> for Document<'t> {
    type Error = Infallible;

    fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Host => self.hosts.is_some(),
            Kind::Vpc => self.vpcs.is_some(),
            Kind::Subnet => self.subnets.is_some(),
            Kind::Port => self.ports.is_some(),
            Kind::Group => self.groups.is_some(),
            Kind::Vip => self.vips.is_some(),
            Kind::Eip => self.eips.is_some(),
            Kind::Peering => self.peerings.is_some(),
        }
    }

    fn each<T: Listed<'t>>(&mut self, take: impl FnMut(At<T>)) -> Result<(), Infallible> {
        T::take(self).into_iter().flatten().for_each(take);
        Ok(())
    }
}

impl<'t> Lists<'t> for Sections<'t> {
    type Error = NotPlain;

    fn has(&self, kind: Kind) -> bool {
        self.has(kind)
    }

    fn each<T: Listed<'t>>(&mut self, take: impl FnMut(At<T>)) -> Result<(), NotPlain> {
        Sections::each(self, T::KIND, take)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host<'t> {
    pub(super) id: Word<'t>,
    pub(super) vtep: Word<'t>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vpc<'t> {
    pub(super) id: Word<'t>,
    pub(super) vni: At<u64>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subnet<'t> {
    pub(super) id: Word<'t>,
    pub(super) vpc: Word<'t>,
    pub(super) cidr: Word<'t>,
    pub(super) gateway: Word<'t>,
    pub(super) router: Option<Word<'t>>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port<'t> {
    pub(super) id: Word<'t>,
    pub(super) subnet: Word<'t>,
    pub(super) address: Word<'t>,
    pub(super) mac: Word<'t>,
    pub(super) host: Word<'t>,
    pub(super) interface: Word<'t>,
    pub(super) source_dest_check: Option<bool>,
    pub(super) vlan: Option<At<Tags>>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group<'t> {
    pub(super) id: Word<'t>,
    pub(super) members: Vec<Word<'t>>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vip<'t> {
    pub(super) id: Word<'t>,
    pub(super) subnet: Word<'t>,
    pub(super) address: Word<'t>,
    pub(super) group: Option<Word<'t>>,
    pub(super) ports: Option<Vec<Word<'t>>>,
    pub(super) real_servers: Option<Vec<Word<'t>>>,
    pub(super) vrids: Option<Vec<At<u64>>>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Eip<'t> {
    pub(super) id: Word<'t>,
    pub(super) address: Word<'t>,
    pub(super) vip: Option<Word<'t>>,
    pub(super) port: Option<Word<'t>>,
    pub(super) bandwidth_mbps: Option<Refused>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}

/// The only kind without an id: its two VPCs name it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peering<'t> {
    pub(super) vpcs: Vec<Word<'t>>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) remark: Option<Cow<'t, str>>,
}
