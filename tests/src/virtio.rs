//! Network cards of the machine that tests run in, where `cargo xtask vm` gave it two that are wired to each other.

use std::fs;

use anyhow::{Context as _, Result};

use crate::Mac;

/// The card that a hypervisor's uplink is made of.
pub const UPLINK_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x01]);

/// The card of the client outside.
pub const OUTSIDE_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x02]);

/// The present name of the card with this MAC in the namespace of the caller; None: it has no such card.
///
/// Cards of a test's namespace come back when that goes, maybe under another name.
pub fn card(mac: Mac) -> Result<Option<String>> {
    let interfaces = fs::read_dir("/sys/class/net").context("cannot list the machine's interfaces")?;
    for interface in interfaces {
        let path = interface.context("cannot list the machine's interfaces")?.path();
        // An interface may go while the list is read.
        let Ok(address) = fs::read_to_string(path.join("address")) else { continue };
        if address.trim().parse().is_ok_and(|address: Mac| address == mac) {
            return Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}
