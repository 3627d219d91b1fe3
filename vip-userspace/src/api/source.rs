//! Where the answers come from.

use super::{
    model::{EipView, HostView, MoveView, PortView, SubnetView, VipView, VpcView},
    status::StatusView,
};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Which objects there are is not known.
    #[error("no valid state has been read: {reason}; forwarding goes on by the pinned tables")]
    NoState {
        /// Why not.
        reason: String,
    },
    /// A counter or an owner could not be read; nothing is made up instead.
    #[error("the tables could not be read: {reason}")]
    Unread {
        /// Why not.
        reason: String,
    },
}

/// What the server asks, and the agent knows.
///
/// The server calls it from threads that may block, several at once. Each method with `id` returns all objects of its
/// kind for `None`, in the order of their ids, and at most the one of that id otherwise, empty if there is none.
pub trait Source: Send + Sync + 'static {
    /// Hosts.
    fn hosts(&self, id: Option<&str>) -> Result<Vec<HostView>, Unavailable>;
    /// VPCs.
    fn vpcs(&self, id: Option<&str>) -> Result<Vec<VpcView>, Unavailable>;
    /// Subnets.
    fn subnets(&self, id: Option<&str>) -> Result<Vec<SubnetView>, Unavailable>;
    /// Ports.
    fn ports(&self, id: Option<&str>) -> Result<Vec<PortView>, Unavailable>;
    /// VIPs.
    fn vips(&self, id: Option<&str>) -> Result<Vec<VipView>, Unavailable>;
    /// EIPs.
    fn eips(&self, id: Option<&str>) -> Result<Vec<EipView>, Unavailable>;
    /// How the host is doing; there is an answer also without a state.
    fn status(&self) -> Result<StatusView, Unavailable>;
    /// The last moves of a VIP, the newest first; `Ok(None)`: there is no such VIP.
    fn history(&self, vip: &str) -> Result<Option<Vec<MoveView>>, Unavailable>;
}
