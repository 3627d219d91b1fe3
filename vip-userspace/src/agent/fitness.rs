//! Whether a state that is valid in itself also fits this host as it is now.

use std::io::ErrorKind;

use super::AgentError;
use crate::{
    config::Config,
    net::{Links, RouteTable},
    state::{Router, State, StateError},
};

/// What a version of the state's file is worth on this host.
pub(super) enum Judged {
    /// It can be in force.
    Fits(State),
    /// It is valid, but not here and now.
    Unfit {
        /// The state.
        state: State,
        /// What does not fit.
        error: AgentError,
    },
    /// It is not valid, or not there.
    Refused(AgentError),
}

impl Judged {
    /// What can be in force; why not, otherwise.
    pub(super) fn or_error(self) -> Result<Self, AgentError> {
        match self {
            Self::Fits(_) => Ok(self),
            Self::Unfit { error, .. } | Self::Refused(error) => Err(error),
        }
    }
}

/// Judges what was read, against the host as it is now.
pub(super) fn judge(
    config: &Config,
    read: Option<Result<State, StateError>>,
    links: &Links,
    routes: &RouteTable,
) -> Judged {
    let state = match read {
        Some(Ok(state)) => state,
        Some(Err(error)) => return Judged::Refused(error.into()),
        None => {
            let source = ErrorKind::NotFound.into();
            return Judged::Refused(StateError::Read { path: config.source.clone(), source }.into());
        }
    };
    let mut problems = held_gateways(&state, routes);
    problems.extend(ports_on_uplink(&state, &config.uplink, links));
    if problems.is_empty() {
        return Judged::Fits(state);
    }
    let error = AgentError::Unfit { path: config.source.clone(), problems: problems.join("\n") };
    Judged::Unfit { state, error }
}

/// Gateways that the forwarder shall answer for, but the host itself holds: it would answer as well.
pub(super) fn held_gateways(state: &State, routes: &RouteTable) -> Vec<String> {
    state
        .subnets
        .values()
        .filter(|subnet| subnet.router == Router::Vip && routes.holds_address(subnet.gateway))
        .map(|subnet| {
            format!(
                "subnet {}: this host itself holds the gateway's address {}, so the forwarder cannot be the gateway; write \
                 `router: external`, or remove the address from the host",
                subnet.id, subnet.gateway
            )
        })
        .collect()
}

/// Ports whose interface is the uplink, or the bridge or bond that it belongs to.
fn ports_on_uplink(state: &State, uplink: &str, links: &Links) -> Vec<String> {
    let master = links.by_name(uplink).and_then(|link| links.get(link.master.as_ref()?.ifindex));
    state
        .ports
        .values()
        .filter(|port| port.interface == uplink || master.is_some_and(|master| port.interface == master.name))
        .map(|port| {
            format!(
                "port {}: its interface {} is the uplink, which cannot be a guest's; name the guest's interface",
                port.id, port.interface
            )
        })
        .collect()
}
