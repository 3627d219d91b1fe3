//! The machine of `cargo xtask vm` that tests may run in, and its two network cards, which are wired to each other.

use std::{env, fs, process::Command, time::Duration};

use anyhow::{Result, ensure};

use crate::{Mac, Netns, poll_until, process};

/// The variable that tells tests of the cards.
pub const VARIABLE: &str = "VIP_LAB_CARDS";

/// The variable that tells tests that the machine's processor is emulated.
pub const EMULATED: &str = "VIP_LAB_EMULATED";

/// Why tests that compare speeds do not run in a machine that is emulated.
pub const NEEDS_REAL_PROCESSOR: &str = "compares speeds, which needs a processor that is not emulated";

/// The card that a hypervisor's uplink is made of.
pub const UPLINK_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x01]);

/// The card of the client outside. It takes complete checksums and frames of the MTU's size only, as from a real wire.
pub const OUTSIDE_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x76, 0x69, 0x02]);

/// The kernel clears a namespace away in the background; its cards come back when that is done.
const RETURN_TIME: Duration = Duration::from_secs(30);

const COMMAND_TIME: Duration = Duration::from_secs(30);

/// Whether this machine has the cards.
pub fn present() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Whether this machine's processor is emulated, where the speed of one thing beside another tells of the emulation.
pub fn is_emulated() -> bool {
    env::var_os(EMULATED).is_some()
}

/// Moves a card from the machine's own namespace to another, as `interface`.
pub(crate) fn give(mac: Mac, netns: &Netns, interface: &str) -> Result<()> {
    let card = poll_until(RETURN_TIME, &format!("the card {mac}"), || name_of(mac))?;
    let mut command = Command::new("ip");
    command.args(["link", "set", "dev", &card, "netns", netns.name(), "name", interface]);
    let output = process::run(command, COMMAND_TIME)?;
    ensure!(output.status.success(), "cannot move the card {card} to {}: {output}", netns.label());
    Ok(())
}

/// The present name of a card; None while the caller's namespace has it not.
fn name_of(mac: Mac) -> Option<String> {
    fs::read_dir("/sys/class/net").ok()?.find_map(|interface| {
        let path = interface.ok()?.path();
        let address: Mac = fs::read_to_string(path.join("address")).ok()?.trim().parse().ok()?;
        (address == mac).then(|| Some(path.file_name()?.to_str()?.to_owned()))?
    })
}

/// How many queues of an interface have given packets to XDP, as its driver counts them.
pub fn busy_queues(netns: &Netns, interface: &str) -> Result<usize> {
    let counters = netns.check(&["ethtool", "-S", interface])?;
    let queues = counters.lines().filter_map(|line| {
        let (name, count) = line.trim().split_once(": ")?;
        // "rx_queue_0_xdp_packets" on Linux 6.1, "rx0_xdp_packets" on 6.12.
        let number = name
            .strip_prefix("rx_queue_")
            .or_else(|| name.strip_prefix("rx"))?
            .strip_suffix("_xdp_packets")?;
        number.parse::<u32>().ok()?;
        count.parse::<u64>().ok()
    });
    let queues: Vec<u64> = queues.collect();
    ensure!(!queues.is_empty(), "the driver of {interface} counts no packets by queue: {counters}");
    Ok(queues.into_iter().filter(|&packets| packets > 0).count())
}
