//! `vipd.yaml` as it is written: values not judged, nothing filled in.

use serde::Deserialize;

use crate::{
    state::yaml::{At, Refused},
    vlan::Tags,
};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) host: Option<At<String>>,
    pub(super) uplink: Option<At<String>>,
    pub(super) source: Option<At<Source>>,
    pub(super) socket: Option<At<String>>,
    pub(super) bpffs: Option<At<String>>,
    pub(super) metrics: Option<Refused>,
    pub(super) xdp_mode: Option<At<String>>,
    pub(super) uplink_path: Option<At<String>>,
    pub(super) profile: Option<At<String>>,
    pub(super) eip_networks: Option<Vec<At<EipNetwork>>>,
    pub(super) announce_eips: Option<bool>,
    pub(super) peers: Option<At<Peers>>,
    pub(super) capacity: Option<Capacity>,
}

/// Where the desired state comes from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) file: Option<At<String>>,
    pub(super) etcd: Option<Refused>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EipNetwork {
    pub(super) id: At<String>,
    pub(super) cidr: At<String>,
    pub(super) gateway: At<String>,
    pub(super) vlan: Option<At<Tags>>,
}

/// How the hosts tell each other of claims.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peers {
    pub(super) key_file: Option<At<String>>,
    pub(super) port: Option<At<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capacity {
    pub(super) ports: Option<At<u64>>,
    pub(super) vips: Option<At<u64>>,
    pub(super) eips: Option<At<u64>>,
    pub(super) subnets: Option<At<u64>>,
    pub(super) hosts: Option<At<u64>>,
}
