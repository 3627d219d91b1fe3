//! Rules for single words of state and configuration: ids, interface names, addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::Ipv4Network;

/// What is wrong with a word, and what to do.
pub(crate) type Complaint = (String, String);

/// Longest id, in bytes.
const MAX_ID: usize = 64;

/// Longest interface name, in bytes: IFNAMSIZ less its final zero (linux/if.h).
const MAX_INTERFACE: usize = 15;

/// Prefixes no guest, host or public address can come from: RFC 6890 "this network" and loopback, and with the
/// last one all of multicast (RFC 5771), reserved space and the limited broadcast.
const UNUSABLE: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::UNSPECIFIED, 8), (Ipv4Addr::new(127, 0, 0, 0), 8), (Ipv4Addr::new(224, 0, 0, 0), 3)];

/// Longest prefix of a subnet: below it no guest is left beside network, broadcast and gateway address.
const MAX_PREFIX: u8 = 30;

/// Whether the text looks like the beginning of a longer one: no bracketed JSON value (its parser sees a missing
/// end) and no end of the last line.
pub(crate) fn is_cut_off(text: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let bracketed = text.trim_start().starts_with(['{', '[']);
    !text.is_empty() && !bracketed && !text.ends_with('\n')
}

/// Judges an id: it becomes part of paths, of table output and of other files.
pub(crate) fn judge_id(id: &str) -> Result<(), Complaint> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let begins_well = id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if begins_well && id.len() <= MAX_ID && id.bytes().all(good) {
        return Ok(());
    }
    Err((
        format!("the id `{}` is not usable", id.escape_debug()),
        format!("use 1 to {MAX_ID} ASCII letters, digits and `._:-`, a letter or digit first"),
    ))
}

/// Judges an interface name by the kernel's own rules (`dev_valid_name`, net/core/dev.c).
pub(crate) fn judge_interface(name: &str) -> Result<(), Complaint> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if !name.is_empty() && name.len() <= MAX_INTERFACE && name != "." && name != ".." && !name.contains(bad) {
        return Ok(());
    }
    Err((
        format!("`{}` is not an interface name", name.escape_debug()),
        format!("use 1 to {MAX_INTERFACE} bytes without space, `/` and `:`, as `ip link` shows it"),
    ))
}

/// Reads an address that a station can have.
pub(crate) fn read_address(text: &str) -> Result<Ipv4Addr, Complaint> {
    let address: Ipv4Addr = text.parse().map_err(|_| {
        if text.parse::<Ipv6Addr>().is_ok() {
            (format!("`{text}` is an IPv6 address: this build does not forward IPv6 yet"), use_ipv4())
        } else {
            (format!("`{}` is not an IPv4 address", text.escape_debug()), "write it as 192.0.2.1".to_owned())
        }
    })?;
    if UNUSABLE.iter().any(|&prefix| network(prefix).is_some_and(|net| net.contains(address))) {
        return Err((
            format!("{address} is a loopback, multicast, broadcast or reserved address"),
            "use an address that a station can have".to_owned(),
        ));
    }
    Ok(address)
}

/// Reads the prefix of a network that stations live in.
pub(crate) fn read_cidr(text: &str) -> Result<Ipv4Network, Complaint> {
    let prefix_of_v6 = text.split('/').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    if prefix_of_v6 {
        return Err((
            format!("`{text}` is an IPv6 prefix: this build does not forward IPv6 yet"),
            use_ipv4(),
        ));
    }
    let cidr: Ipv4Network = text.parse().map_err(|_| {
        let advice = "write it as 192.168.4.0/22".to_owned();
        (format!("`{}` is not an IPv4 prefix", text.escape_debug()), advice)
    })?;
    if cidr.prefix() > MAX_PREFIX {
        return Err((
            format!("{cidr} has no room for a gateway and a guest"),
            format!("use a prefix of /{MAX_PREFIX} or shorter"),
        ));
    }
    if cidr.network() != cidr.ip() {
        return Err((
            format!("{cidr} has bits set after its prefix"),
            format!("write {}/{} if that is what you mean", cidr.network(), cidr.prefix()),
        ));
    }
    if UNUSABLE.iter().any(|&prefix| network(prefix).is_some_and(|net| net.overlaps(cidr))) {
        return Err((
            format!("{cidr} holds loopback, multicast, broadcast or reserved addresses"),
            "use a prefix whose addresses stations can have".to_owned(),
        ));
    }
    Ok(cidr)
}

/// Judges whether a station can have an address inside a network; `of` names the network.
pub(crate) fn judge_place(
    address: Ipv4Addr,
    cidr: Ipv4Network,
    of: impl FnOnce() -> String,
) -> Result<(), Complaint> {
    let what = if !cidr.contains(address) {
        "lies outside of"
    } else if address == cidr.network() {
        "is the network address of"
    } else if address == cidr.broadcast() {
        "is the broadcast address of"
    } else {
        return Ok(());
    };
    Err((format!("{address} {what} {} ({cidr})", of()), "use a free address inside".to_owned()))
}

fn network((address, prefix): (Ipv4Addr, u8)) -> Option<Ipv4Network> {
    Ipv4Network::new(address, prefix).ok()
}

fn use_ipv4() -> String {
    "use an IPv4 one, or leave the object out".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_break_a_path_or_a_table_are_refused() {
        for bad in ["", " ", "a b", "a/b", "-a", ".", "..", "a\n", "é", &"x".repeat(65)] {
            assert!(judge_id(bad).is_err(), "{bad:?}");
        }
        for good in
            ["a", "hv1.example.net", "port:7", "0b7c9c9a-6d0e-4b43-8f6c-6d6b1a3b7f11", &"x".repeat(64)]
        {
            assert!(judge_id(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for bad in ["", ".", "..", "a b", "a/b", "eth0:1", "sixteen-bytes-xx", "tap\t"] {
            assert!(judge_interface(bad).is_err(), "{bad:?}");
        }
        for good in ["eth0", "fifteen-bytes-x", "vnet0.7", "a@b"] {
            assert!(judge_interface(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn addresses_no_station_can_have_are_refused() {
        for bad in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.18", "240.0.0.1", "255.255.255.255"] {
            assert!(read_address(bad).is_err(), "{bad}");
        }
        assert_eq!(read_address("169.254.1.1"), Ok(Ipv4Addr::new(169, 254, 1, 1)));
        assert_eq!(read_address("223.255.255.254"), Ok(Ipv4Addr::new(223, 255, 255, 254)));
    }

    #[test]
    fn prefixes_that_cannot_hold_stations_are_refused() {
        for bad in ["0.0.0.0/0", "126.0.0.0/7", "192.168.4.1/22", "10.0.0.0/31", "10.0.0.1", "10.0.0.0/33"] {
            assert!(read_cidr(bad).is_err(), "{bad}");
        }
        assert!(read_cidr("10.0.0.0/30").is_ok());
    }

    #[test]
    fn only_text_without_brackets_needs_a_last_line_end() {
        assert!(is_cut_off("hosts: []\nvpcs"));
        assert!(!is_cut_off("hosts: []\n"));
        assert!(!is_cut_off(" {\"hosts\": []}"));
        assert!(!is_cut_off(""));
    }
}
