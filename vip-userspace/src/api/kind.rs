//! The kinds of objects that can be asked for.

use std::{fmt, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    model::{EipView, HostView, PortView, SubnetView, VipView, VpcView},
    render::Tabular,
};

/// A kind of object, named by its plural in commands and paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// See [`HostView`].
    Hosts,
    /// See [`VpcView`].
    Vpcs,
    /// See [`SubnetView`].
    Subnets,
    /// See [`PortView`].
    Ports,
    /// See [`VipView`].
    Vips,
    /// See [`EipView`].
    Eips,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Hosts, Self::Vpcs, Self::Subnets, Self::Ports, Self::Vips, Self::Eips];

    /// Name in commands and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Vpcs => "vpcs",
            Self::Subnets => "subnets",
            Self::Ports => "ports",
            Self::Vips => "vips",
            Self::Eips => "eips",
        }
    }

    /// Name of one object.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Hosts => "host",
            Self::Vpcs => "vpc",
            Self::Subnets => "subnet",
            Self::Ports => "port",
            Self::Vips => "vip",
            Self::Eips => "eip",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of hosts, vpcs, subnets, ports, vips, eips")]
pub struct KindError;

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(KindError)
    }
}

/// An object that has an id and can be asked for.
pub trait Object: Tabular + Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;

    /// Its id.
    fn id(&self) -> &str;
}

macro_rules! objects {
    ($($view:ty => $kind:ident)*) => {
        $(impl Object for $view {
            const KIND: Kind = Kind::$kind;

            fn id(&self) -> &str {
                &self.id
            }
        })*
    };
}

objects! {
    HostView => Hosts
    VpcView => Vpcs
    SubnetView => Subnets
    PortView => Ports
    VipView => Vips
    EipView => Eips
}
