//! The two guests, by the part they play.

use crate::keepalived::State;

/// A guest of the Cloudpods example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The guest that keepalived prefers.
    Master,
    /// The guest that stands by.
    Backup,
}

impl Role {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Master, Self::Backup];

    /// Its name, which is also its port's id in the state and what its page says.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Master => "nginx-master",
            Self::Backup => "nginx-slave",
        }
    }

    /// The host's end of its cable.
    pub(super) fn interface(self) -> &'static str {
        match self {
            Self::Master => "tap0",
            Self::Backup => "tap1",
        }
    }

    /// The MAC of its `eth0`.
    pub(super) fn mac(self) -> &'static str {
        match self {
            Self::Master => "02:00:00:00:07:f7",
            Self::Backup => "02:00:00:00:07:f8",
        }
    }

    /// Its fixed address.
    pub(super) fn address(self) -> &'static str {
        match self {
            Self::Master => "192.168.7.247",
            Self::Backup => "192.168.7.248",
        }
    }

    /// What its keepalived takes itself for at its start.
    pub(super) fn state(self) -> State {
        match self {
            Self::Master => State::Master,
            Self::Backup => State::Backup,
        }
    }

    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Master => Self::Backup,
            Self::Backup => Self::Master,
        }
    }
}

/// Something that each of the two has.
#[derive(Debug, Default)]
pub(super) struct Pair<T> {
    master: T,
    backup: T,
}

impl<T> Pair<T> {
    /// Makes it for each.
    pub(super) fn try_new<E>(mut make: impl FnMut(Role) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { master: make(Role::Master)?, backup: make(Role::Backup)? })
    }

    /// That of one of them.
    pub(super) fn of(&self, role: Role) -> &T {
        match role {
            Role::Master => &self.master,
            Role::Backup => &self.backup,
        }
    }

    /// That of one of them, to change it.
    pub(super) fn of_mut(&mut self, role: Role) -> &mut T {
        match role {
            Role::Master => &mut self.master,
            Role::Backup => &mut self.backup,
        }
    }
}
