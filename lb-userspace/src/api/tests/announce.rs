//! What the network is told of VIPs.

use std::time::Instant;

use super::*;
use crate::{
    announce::{Board, Reason, Report, VipReport},
    config::RouteSettings,
};

fn board() -> Board {
    let vip = VipReport {
        announced: false,
        reason: Some(Reason::NoCarrier),
        detail: "eth0 has no link".into(),
        kept: None,
        since: Instant::now(),
    };
    let vips = [("203.0.113.10".parse().unwrap(), vip)].into();
    Board::of(Report { routes: RouteSettings::default(), vips, trouble: None })
}

#[tokio::test]
async fn vips_are_taken_off_and_put_on_only_where_routes_are_made() {
    let daemon = Daemon::start(applied).await;
    let off = v1::Announcing { vip: None, on: false };
    assert_eq!(daemon.client().announce().await.unwrap(), None);
    let refused = daemon.client().set_announce(&off).await.unwrap_err().to_string();
    assert!(refused.contains("announces nothing"), "{refused}");

    let daemon = Daemon::announcing(applied, board()).await;
    let client = daemon.client();
    let announce = client.announce().await.unwrap().expect("it announces");
    let vip = &announce.vips[0];
    assert_eq!((announce.protocol, announce.off, vip.announced), (117, false, false));
    assert_eq!((vip.reason.as_deref(), vip.detail.as_str()), (Some("no_carrier"), "eth0 has no link"));
    let changed = client.set_announce(&off).await.unwrap();
    assert_eq!(changed.changes[0].object, "announcing all VIPs");
    assert!(client.status().await.unwrap().announce.expect("it announces").off);
    let nonsense = v1::Announcing { vip: Some("web".into()), on: true };
    assert!(client.set_announce(&nonsense).await.unwrap_err().to_string().contains("not an address"));
}
