//! Policy routing rules: counted, not followed.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{NetError, Netlink};

const LIST: &str = "list the IPv4 policy routing rules";

/// The rules every namespace starts with, as (priority, table): `local`, `main`, `default`.
const USUAL: [(u32, u8); 3] = [(0, 255), (32766, 254), (32767, 253)];

impl Netlink {
    /// How many IPv4 policy rules there are beyond the three that every namespace has. The forwarder obeys the tables `local`
    /// and `main` only, so any more than 0 deserve a warning.
    pub async fn extra_rules(&self) -> Result<usize, NetError> {
        let mut query = RuleMessage::default();
        query.header.family = AddressFamily::Inet;
        self.requester
            .dump(LIST, RouteNetlinkMessage::GetRule(query), usize::default, |extra, message| {
                if let RouteNetlinkMessage::NewRule(rule) = message {
                    *extra += usize::from(!is_usual(&rule));
                }
            })
            .await
    }
}

fn is_usual(rule: &RuleMessage) -> bool {
    let priority = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    let selects = rule.header.src_len != 0 || rule.header.dst_len != 0;
    let usual = USUAL.contains(&(priority.unwrap_or_default(), rule.header.table));
    usual && !selects && rule.header.action == RuleAction::ToTable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: Option<u32>, table: u8) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.table = table;
        rule.header.action = RuleAction::ToTable;
        rule.attributes.extend(priority.map(RuleAttribute::Priority));
        rule
    }

    #[test]
    fn only_the_three_rules_of_a_fresh_namespace_are_usual() {
        assert!(is_usual(&rule(None, 255)), "the kernel leaves out priority 0");
        assert!(is_usual(&rule(Some(32766), 254)));
        assert!(is_usual(&rule(Some(32767), 253)));
        assert!(!is_usual(&rule(Some(100), 254)));
        assert!(!is_usual(&rule(Some(32766), 100)));
    }
}
