//! EIPs that pass to others.

use vip_userspace::plan::{Contents, Resting, Step, diff};

use crate::{
    desire, reach,
    world::{build, seed},
};

#[test]
fn an_eip_that_passes_to_another_tenant_is_nobodys_in_between() {
    let ports = [seed(0, 5, 5, 0), seed(2, 5, 5, 1)];
    let blue = build(&ports, &[], &[(10, false, 0)], &[None], false, 0);
    let green = build(&ports, &[], &[(10, false, 1)], &[None], false, 0);
    let mut contents = Contents::default();
    reach(&blue, &mut contents);
    let desired = desire(&green, &contents, &Resting::default());
    let steps = diff(&contents, &desired.contents);
    assert!(matches!(steps.first(), Some(Step::RemoveEip(_))), "{steps:?}");
    assert!(matches!(steps.last(), Some(Step::SetEip(..))), "{steps:?}");
}
