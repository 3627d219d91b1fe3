//! The names of what the tables know by index.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    plan::Assigned,
    state::{Id, Port, Ref, State},
};

/// Ids by port index and by slot, without a copy of any: they stand in the state.
#[derive(Debug, Default)]
pub(super) struct TableNames {
    state: Option<Arc<State>>,
    /// Places of ports in the state by port index, counted from 1; 0: none.
    ports: Vec<u32>,
    /// Likewise of VIPs by slot.
    vips: Vec<u32>,
    /// Ports that have left, by the index that they had and nobody has now.
    left: BTreeMap<u32, Id>,
}

impl TableNames {
    /// The names by a state; those of ports that have left are remembered.
    pub(super) fn follow(&self, state: &Arc<State>, assigned: &Assigned) -> Self {
        let mut names = Self { state: Some(Arc::clone(state)), left: self.left.clone(), ..Self::default() };
        assigned.ports.iter().for_each(|(port, index)| set(&mut names.ports, index, port.index()));
        assigned.vips.iter().for_each(|(vip, slot)| set(&mut names.vips, slot, vip.index()));
        names.left.retain(|index, _| place(&names.ports, *index).is_none());
        for index in (0..).take(self.ports.len()).filter(|index| place(&names.ports, *index).is_none()) {
            if let Some(port) = self.present_port(index) {
                names.left.insert(index, Id::from(self.state_id(port)));
            }
        }
        names
    }

    fn state_id(&self, port: Ref<Port>) -> &str {
        self.state.as_ref().map_or("", |state| state.ports.id(port))
    }

    /// The port of the state that has an index.
    pub(super) fn present_port(&self, index: u32) -> Option<Ref<Port>> {
        place(&self.ports, index).map(Ref::at)
    }

    /// The id of the port that has an index, or had it last.
    pub(super) fn port(&self, index: u32) -> Id {
        let present = self.present_port(index).map(|port| Id::from(self.state_id(port)));
        present.or_else(|| self.left.get(&index).cloned()).unwrap_or_else(|| Id::from("(gone)"))
    }

    /// The id of the VIP in a slot.
    pub(super) fn vip(&self, slot: u32) -> Id {
        let name = place(&self.vips, slot)
            .and_then(|vip| self.state.as_ref().map(|state| Id::from(state.vips.id(Ref::at(vip)))));
        name.unwrap_or_else(|| Id::from("(unknown)"))
    }
}

fn set(places: &mut Vec<u32>, index: u32, place: u32) {
    let index = index as usize;
    if places.len() <= index {
        places.resize(index + 1, 0);
    }
    if let Some(entry) = places.get_mut(index) {
        *entry = place + 1;
    }
}

fn place(places: &[u32], index: u32) -> Option<u32> {
    places.get(index as usize)?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Capacity,
        plan::{Contents, Indexes, Resting, Site, compile},
        state,
    };

    const HEAD: &str = "
hosts: [{ id: hv1, vtep: 172.31.0.1 }]
vpcs: [{ id: red, vni: 100 }]
subnets: [{ id: web, vpc: red, cidr: 10.0.0.0/24, gateway: 10.0.0.1 }]
";

    fn planned(objects: &str, contents: &mut Contents) -> (Arc<State>, Arc<Assigned>) {
        let state = state::parse(&format!("{HEAD}{objects}"), "test", None).expect("a state");
        let capacity = Capacity { ports: 9, vips: 9, eips: 9, subnets: 9, hosts: 9 };
        let indexes = Indexes::of(contents, &capacity, &Resting::default());
        let desired = compile(&state, &Site::default(), &indexes);
        *contents = desired.contents;
        (Arc::new(state), desired.assigned)
    }

    #[test]
    fn ports_that_left_keep_their_name_until_another_has_the_index() {
        let port = |id: &str, last: u8| {
            format!(
                "  - {{ id: {id}, subnet: web, address: 10.0.0.{last}, mac: \"02:00:00:00:00:{last:02}\", host: hv1, \
                 interface: {id} }}\n"
            )
        };
        let mut contents = Contents::default();
        let vips = "vips: [{ id: v, subnet: web, address: 10.0.0.99 }]\n";
        let (state, given) =
            planned(&format!("ports:\n{}{}{vips}", port("a", 10), port("b", 11)), &mut contents);
        let names = TableNames::default().follow(&state, &given);
        assert_eq!([&*names.port(1), &*names.port(2), &*names.port(3)], ["a", "b", "(gone)"]);
        assert_eq!([&*names.vip(0), &*names.vip(1)], ["v", "(unknown)"]);

        let (state, given) = planned(&format!("ports:\n{}", port("b", 11)), &mut contents);
        let names = names.follow(&state, &given);
        assert_eq!([&*names.port(1), &*names.port(2), &*names.vip(0)], ["a", "b", "(unknown)"]);
        assert_eq!(names.present_port(1), None);

        let (state, given) = planned(&format!("ports:\n{}{}", port("b", 11), port("c", 12)), &mut contents);
        let names = names.follow(&state, &given);
        assert_eq!([&*names.port(1), &*names.port(2)], ["c", "b"]);
    }
}
