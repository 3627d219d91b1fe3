//! An uplink that belongs to a bridge of the host, as many hypervisors have it.

use anyhow::ensure;
use vip_lab::{Lab, UNDERLAY_HOST, UNDERLAY_OUTSIDE};

use crate::stage::{EIP, Stage, reaches, take_vip};

#[test]
fn an_uplink_that_is_a_bridges_member_serves_eips_and_the_host() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        let host = stage.host.netns();
        stage.host.add_bridge("brex", None)?;
        host.ip(&format!("address delete {UNDERLAY_HOST}/24 dev eth0"))?;
        stage.host.enslave("eth0", "brex")?;
        host.ip(&format!("address add {UNDERLAY_HOST}/24 dev brex"))?;
        stage.outside.flush_neighbours()?;
        reaches(stage.outside.netns(), UNDERLAY_HOST)?;

        let vipd = stage.start_vipd()?;
        let status = vipd.vipctl(&["status", "-o", "json"])?;
        ensure!(status.pointer("/uplink/routed_by").and_then(|it| it.as_str()) == Some("brex"), "{status}");
        take_vip(&vipd, &stage.first)?;
        stage.outside.flush_neighbours()?;
        let report = stage.outside.netns().ping(EIP, 3)?;
        ensure!(report.received == 3, "{report:?}");
        reaches(stage.outside.netns(), UNDERLAY_HOST)?;
        reaches(host, UNDERLAY_OUTSIDE)?;
        reaches(stage.third.netns(), UNDERLAY_OUTSIDE)?;
        reaches(&stage.plain, UNDERLAY_OUTSIDE)
    });
}
