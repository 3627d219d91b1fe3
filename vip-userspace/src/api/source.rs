//! Where the answers come from.

use super::{
    model::{EipView, HostView, MoveView, PortView, SubnetView, VipView, VpcView},
    status::StatusView,
};

/// What the server asks, and the agent knows.
///
/// The server calls it from threads that may block, several at once. Each method with `id` returns all objects of its
/// kind for `None`, in the order of their ids, and at most the one of that id otherwise, empty if there is none.
pub trait Source: Send + Sync + 'static {
    /// Hosts.
    fn hosts(&self, id: Option<&str>) -> Vec<HostView>;
    /// VPCs.
    fn vpcs(&self, id: Option<&str>) -> Vec<VpcView>;
    /// Subnets.
    fn subnets(&self, id: Option<&str>) -> Vec<SubnetView>;
    /// Ports.
    fn ports(&self, id: Option<&str>) -> Vec<PortView>;
    /// VIPs.
    fn vips(&self, id: Option<&str>) -> Vec<VipView>;
    /// EIPs.
    fn eips(&self, id: Option<&str>) -> Vec<EipView>;
    /// How the host is doing.
    fn status(&self) -> StatusView;
    /// The last moves of a VIP, the newest first; `None`: there is no such VIP.
    fn history(&self, vip: &str) -> Option<Vec<MoveView>>;
}
