//! What ends connections: a drain that has run out of time, `disable`, and a backend that stays unhealthy. It ends
//! those of that backend and no others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Result;
use lb_tests::lab::{Lab, Report, Service, TcpServer, VIP_V4, VIP_V6, require_root, try_wait_until};

use crate::scene::{PORT, SECOND, SOON, Scene};

#[test]
fn a_drain_lets_connections_be_until_its_timeout_and_enable_takes_it_back() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(3, 0..3, &["drain_timeout = \"3s\""], 1_500)?;
    let before = scene.clients.open(1_500)?;
    scene.clients.pace(1_500)?;
    scene.daemon.cli_checked(["backend", "drain", "web", "backend0"])?;
    assert_eq!(scene.messages(1_500)?.losses(), "");
    scene.daemon.cli_checked(["backend", "enable", "web", "backend0"])?;
    assert_eq!(scene.messages(4_500)?.losses(), "", "the drain would be over");

    let began = Instant::now();
    let timed_out = scene.daemon.cli(["backend", "drain", "web", "backend0", "--wait", "--timeout", "1s"])?;
    assert_eq!(timed_out.status.code(), Some(5), "{}", timed_out.stderr);
    assert_eq!(scene.clients.report()?.losses(), "");
    scene.daemon.cli_checked(["backend", "drain", "web", "backend0", "--wait", "--timeout", "20s"])?;
    let took = began.elapsed();
    assert!(took > 2 * SECOND && took < 6 * SECOND, "a drain of 3 s took {took:?}");
    only_lost(&mut scene, &before, "backend0")
}

#[test]
fn disable_ends_a_backends_connections_at_once_and_no_others() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::at(VIP_V6, 3, 0..3, &[], 1_500)?;
    let before = scene.clients.open(1_500)?;
    scene.clients.pace(1_500)?;
    scene.daemon.cli_checked(["backend", "disable", "web", "backend1"])?;
    only_lost(&mut scene, &before, "backend1")?;
    let open = scene.clients.report()?.open;
    let again = scene.clients.open(500)?;
    assert_eq!(again.failed(), 0);
    assert_eq!(again.open.get("backend1"), open.get("backend1"));
    scene.daemon.cli_checked(["backend", "enable", "web", "backend1"])?;
    assert!(scene.clients.open(500)?.open.contains_key("backend1"));
    Ok(())
}

#[test]
fn one_backend_unhealthy_keeps_its_connections_for_the_grace_and_gets_no_new_ones() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let to = SocketAddr::new(VIP_V4, PORT);
    let mut checked: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &[7])).collect::<Result<_>>()?;
    let check = "type = \"tcp\"\nport = 7\ninterval = \"100ms\"\nrise = 2\nfall = 3";
    let service = Service::new("web", to, "tcp", "l2-dsr").line("unhealthy_grace = \"4s\"").health(check);
    let config = service.nodes(lab.backends(), to).toml();
    let mut scene = Scene::of(lab, to, &config, 1_500)?;
    healthy(&scene, 3)?;
    let before = scene.clients.open(1_500)?;
    scene.clients.pace(1_500)?;
    checked[2].stop();
    healthy(&scene, 2)?;
    let again = scene.clients.open(500)?;
    assert_eq!(again.losses(), "");
    assert_eq!(again.open["backend2"], before.open["backend2"], "new ones go elsewhere");
    assert_eq!(scene.messages(3_000)?.losses(), "", "within the grace");
    only_lost(&mut scene, &again, "backend2")
}

#[test]
fn a_backup_that_gives_way_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let to = SocketAddr::new(VIP_V4, PORT);
    let mut checked: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &[7])).collect::<Result<_>>()?;
    let check = "type = \"tcp\"\nport = 7\ninterval = \"100ms\"\nrise = 2\nfall = 3";
    let backup = SocketAddr::new(lab.backend(1).address(VIP_V4), PORT);
    let backup = format!("name = \"backend1\"\naddress = \"{backup}\"\nbackup = true");
    let service = Service::new("web", to, "tcp", "l2-dsr").line("unhealthy_grace = \"1s\"").health(check);
    let config = service.nodes([lab.backend(0)], to).backend_lines(&backup).toml();
    let mut scene = Scene::of(lab, to, &config, 600)?;
    healthy(&scene, 2)?;
    checked[0].stop();
    healthy(&scene, 1)?;
    let with_backup = scene.clients.open(300)?;
    assert_eq!((with_backup.losses(), with_backup.open["backend1"]), (String::new(), 300));
    checked[0] = TcpServer::start(scene.lab.backend(0), &[7])?;
    healthy(&scene, 2)?;
    scene.clients.pace(600)?;
    let both = scene.clients.open(300)?;
    assert_eq!((both.losses(), both.open["backend1"]), (String::new(), 300), "new ones go to the other");
    assert_eq!(scene.messages(1_500)?.losses(), "", "longer than the grace of one that is unhealthy");
    Ok(())
}

fn healthy(scene: &Scene, count: usize) -> Result<()> {
    try_wait_until(&format!("{count} are healthy"), SOON, || {
        scene.daemon.status_json().map(|status| {
            let backends = status.pointer("/services/0/backends").and_then(|all| all.as_array());
            backends.into_iter().flatten().filter(|one| one["health"] == "healthy").count() == count
        })
    })
}

/// Waits until every connection of `backend` is lost.
fn only_lost(scene: &mut Scene, before: &Report, backend: &str) -> Result<()> {
    let doomed = before.open[backend];
    let what = format!("the {doomed} connections of {backend} end");
    scene.clients.wait(&what, 2 * SOON, |report| report.lost.len() as u64 >= doomed)?;
    let after = scene.clients.exchange()?;
    let mut lost = BTreeMap::new();
    for loss in &after.lost {
        *lost.entry(loss.backend.as_deref().unwrap_or("nobody")).or_default() += 1;
    }
    assert_eq!(lost, [(backend, doomed)].into(), "{}", after.losses());
    let others = |report: &Report| -> BTreeMap<String, u64> {
        let mut open = report.open.clone();
        open.remove(backend);
        open
    };
    assert_eq!(others(&after), others(before));
    Ok(())
}
