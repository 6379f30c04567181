//! VIPs that the administrator takes off the network.

use super::*;
use crate::domain::AnnounceOff;

async fn set(control: &Handle, vip: Option<&str>, on: bool) -> Result<Vec<String>, Rejected> {
    let vip = vip.map(|vip| vip.parse().unwrap());
    let edit = Edit::Announce { vip, on };
    let applied = control.submit(Command::Edit { edit, ways: Vec::new() }).await?;
    Ok(applied.changes.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn what_is_off_is_kept_told_and_outlives_its_vip() {
    let store = MemoryStore::default();
    let control = control_with(Fake::new(LIMITS), &store);
    let web = service("web", &[("a", 1)]);
    let vip = web.vip.address;
    control.submit(declare(vec![web])).await.unwrap();
    let off = set(&control, Some(&vip.to_string()), false).await.unwrap();
    assert_eq!(off, [format!("change announcing {vip}: off")]);
    assert_eq!(set(&control, Some(&vip.to_string()), false).await.unwrap(), [""; 0]);
    let kept = AnnounceOff { all: false, vips: [vip].into() };
    assert_eq!((&store.kept().announce_off, &control.snapshot().announce_off), (&kept, &kept));
    assert!(
        set(&control, Some("192.0.2.1"), false).await.unwrap_err().to_string().contains("no service has")
    );

    set(&control, None, false).await.unwrap();
    let refused = set(&control, Some(&vip.to_string()), true).await.unwrap_err();
    assert!(refused.to_string().contains("all VIPs are off"), "{refused}");
    let on = set(&control, None, true).await.unwrap();
    assert_eq!(on, ["change announcing all VIPs: on".to_owned(), format!("change announcing {vip}: on")]);

    set(&control, Some(&vip.to_string()), false).await.unwrap();
    control.submit(declare(Vec::new())).await.unwrap();
    assert_eq!(control.snapshot().announce_off, kept);
    set(&control, Some(&vip.to_string()), true).await.unwrap();
    assert_eq!(control.snapshot().announce_off, AnnounceOff::default());
}
