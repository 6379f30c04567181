//! What is wrong in etcd, and a member that dies between a change and its effect.

use std::fs;

use anyhow::{Result, ensure};
use lb_tests::lab::{Call, Fault, VIP_V4, require_root, try_wait_until, wait_until};

use crate::scene::{SOON, Scene, config, service, web};

#[test]
fn what_makes_no_sense_in_etcd_is_refused_and_nothing_is_lost() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(2, 1)?;
    scene.wait_alike(&["active", "active", "active"])?;
    let key = "/ballast/services/web";
    let good = scene.etcd.get(key)?.unwrap_or_default();
    let fingerprint = |scene: &Scene, member: usize| -> Result<_> {
        Ok(service(&scene.daemons[member].status_json()?, "web")?["fingerprint"].clone())
    };
    let before = fingerprint(&scene, 0)?;

    scene.etcd.put(key, good.replace("weight = 1", "weight = -1").as_bytes())?;
    for member in 0..2 {
        let told =
            scene.wait_fleet(member, "a document is refused", |fleet| fleet["refused"][0]["key"] == key)?;
        let why = told["refused"][0]["why"].as_str().unwrap_or_default();
        ensure!(why.contains("`weight` can't be -1") && why.contains(&format!("{key}:")), "{why}");
        assert_eq!(told["refused"][0]["goes_on"], true);
        assert_eq!(fingerprint(&scene, member)?, before);
        assert_eq!(scene.daemons[member].metric("ballast_fleet_refused_documents")?, 1.0);
    }
    let shown = scene.daemons[0].cli_checked(["status"])?;
    ensure!(shown.contains("/ballast/services/web MAKES NO SENSE"), "{shown}");
    let said = scene.refused(0, &["backend", "drain", "web", "backend0"])?;
    ensure!(said.contains("makes no sense") && said.contains("--replace"), "{said}");
    // What has nothing to do with it goes its way, and a restart knows what went before.
    scene.daemons[1].cli_checked(["service", "add", "other", "203.0.113.77:80"])?;
    service(&scene.daemons[1].status_json()?, "other")?;
    scene.daemons[0].kill9()?;
    scene.daemons[0].launch()?;
    scene.daemons[0].wait_ready(SOON)?;
    assert_eq!(fingerprint(&scene, 0)?, before);
    let said = scene.daemons[0].import(&web(&scene.lab), &[]).expect_err("it is there").to_string();
    ensure!(said.contains("the fleet has web"), "{said}");
    scene.daemons[0].import(&web(&scene.lab), &["--replace"])?;
    let mended = |fleet: &serde_json::Value| fleet["refused"].as_array().is_some_and(Vec::is_empty);
    scene.wait_fleet(1, "it is mended", mended)?;
    scene.daemons[1].cli_checked(["backend", "drain", "web", "backend0"])?;
    scene.wait_alike(&["draining", "active", "active"])?;

    // An etcd that has lost everything is not one without services.
    scene.etcd.delete_all()?;
    scene.wait_fleet(0, "there is no fleet", |fleet| {
        fleet["trouble"].as_str().is_some_and(|why| why.contains("no /ballast/fleet"))
    })?;
    scene.wait_fleet(1, "there is no fleet", |fleet| fleet["trouble"].is_string())?;
    for member in 0..2 {
        service(&scene.daemons[member].status_json()?, "web")?;
        let said = scene.refused(member, &["service", "add", "more", "203.0.113.78:80"])?;
        ensure!(said.contains("nothing changed"), "{said}");
    }
    scene.daemons[0].import(&web(&scene.lab), &[])?;
    scene.wait_fleet(0, "there is one again", |fleet| fleet["trouble"].is_null())?;
    scene.wait_alike(&["active", "active", "active"])?;

    // Nor is another fleet's etcd, and what would be refused everywhere is refused at once.
    scene.etcd.put("/ballast/fleet", b"version = 1\nid = \"other\"\n")?;
    scene.wait_fleet(1, "it is another fleet", |fleet| {
        fleet["trouble"].as_str().is_some_and(|why| why.contains("another fleet's (other)"))
    })?;
    scene.daemons[0].import(&web(&scene.lab), &["--replace"])?;
    scene.wait_fleet(1, "it is the same again", |fleet| fleet["trouble"].is_null())?;
    let twin = web(&scene.lab).replace("name = \"web\"", "name = \"twin\"");
    let said = scene.daemons[0].import(&twin, &[]).expect_err("the VIP is taken").to_string();
    ensure!(said.contains("there already is a tcp service on"), "{said}");
    Ok(())
}

#[test]
fn a_member_that_dies_between_a_change_and_its_effect_makes_it_live_at_its_next_start() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(2, 1)?;
    scene.daemons[0].sigterm()?;
    let calls = scene.daemons[0].launch_watched()?;
    scene.daemons[0].wait_ready(SOON)?;
    scene.wait_connected(0, true)?;
    // What is set over backends is written down here before it is published: etcd has it by then.
    calls.arm(Call::Rename, 0, Fault::Kill);
    let output = scene.daemons[0].cli(["backend", "drain", "web", "backend0"])?;
    assert_eq!(output.status.code(), Some(3), "{}", output.stderr);
    ensure!(calls.struck().is_some(), "it was not struck");
    scene.daemons[0].wait_exit(SOON)?;
    ensure!(scene.etcd.get("/ballast/services/web")?.is_some_and(|text| text.contains("draining")));
    scene.daemons[0].launch()?;
    scene.daemons[0].wait_ready(SOON)?;
    scene.wait_alike(&["draining", "active", "active"])?;

    // One that dies a little later, and can't ask etcd when it starts, takes nothing back.
    scene.daemons[0].sigterm()?;
    let calls = scene.daemons[0].launch_watched()?;
    scene.daemons[0].wait_ready(SOON)?;
    scene.wait_connected(0, true)?;
    calls.arm(Call::Rename, 1, Fault::Kill);
    scene.daemons[0].cli(["backend", "drain", "web", "backend1"])?;
    ensure!(calls.struck().is_some(), "it was not struck");
    scene.daemons[0].wait_exit(SOON)?;
    scene.etcd.ways(scene.lab.balancer(0), "add")?;
    scene.daemons[0].launch()?;
    scene.daemons[0].wait_ready(SOON)?;
    let status = scene.daemons[0].status_json()?;
    assert_eq!(service(&status, "web")?["backends"][1]["admin"], "draining");
    scene.etcd.ways(scene.lab.balancer(0), "del")?;
    scene.wait_alike(&["draining", "draining", "active"])?;
    scene.daemons[0].cli_checked(["backend", "enable", "web", "backend1"])?;
    scene.wait_alike(&["draining", "active", "active"])?;

    // Services stay where they are when the file is read again, and the file says nothing of them.
    scene.daemons[0].reload()?;
    scene.wait_alike(&["draining", "active", "active"])?;
    let both = format!("{}\n{}", config(&scene.etcd, 0), web(&scene.lab));
    scene.daemons[0].write_config(&both)?;
    let said = scene.refused(0, &["reload"])?;
    ensure!(said.contains("ballast fleet import"), "{said}");
    // A second member of that name is heard of by nobody.
    let twin = config(&scene.etcd, 0);
    scene.daemons[1].write_config(&twin)?;
    scene.daemons[1].sigterm()?;
    scene.daemons[1].launch()?;
    scene.daemons[1].wait_ready(SOON)?;
    wait_until("it says that its name is taken", SOON, || {
        scene.daemons[1].log().contains("another member is called lb-0")
    })?;
    let members = scene.daemons[0].fleet_status()?["members"].clone();
    ensure!(members.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "lb-0")), "{members}");
    // Nor are both daemons of one id, where a host is the copy of another.
    let id = |member: usize| scene.daemons[member].files().state_dir.join("fleet-member.id");
    fs::copy(id(0), id(1))?;
    scene.daemons[1].sigterm()?;
    scene.daemons[1].launch()?;
    scene.daemons[1].wait_ready(SOON)?;
    let copied = |why: &str| why.contains("with the same fleet-member.id");
    scene.wait_fleet(0, "somebody has its id", |fleet| fleet["unheard"].as_str().is_some_and(copied))?;
    assert_eq!(scene.daemons[0].metric("ballast_fleet_unheard")?, 1.0);
    let shown = scene.daemons[0].cli_checked(["status"])?;
    ensure!(shown.contains("THE FLEET DOES NOT HEAR OF THIS HOST"), "{shown}");
    // What was exported is what may be imported.
    let path = scene.daemons[1].files().config.display().to_string();
    let exported = scene.daemons[1].cli_checked(["fleet", "export", "--config", &path])?;
    fs::write(scene.daemons[1].files().config.with_extension("exported"), &exported)?;
    let said = scene.daemons[1].import(&exported, &[])?;
    ensure!(said.contains("there already: web"), "{said}");
    Ok(())
}

/// An etcd that has no room for a lease has services to read all the same.
#[test]
fn a_member_that_etcd_has_no_room_for_follows_the_fleet_and_says_so() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::with(1, 1, "ttl = \"3s\"\n[announce]\n", web)?;
    let key = "/ballast/members/lb-0";
    let said = format!("\"announces\":true,\"vips\":[\"{VIP_V4}\"]");
    let announces = |scene: &Scene| {
        scene.etcd.get(key).is_ok_and(|record| record.is_some_and(|text| text.contains(&said)))
    };
    wait_until("it says that it announces", SOON, || announces(&scene))?;
    scene.etcd.no_space(true)?;
    // What it said can't be said otherwise, and nobody shall count on it.
    scene.daemons[0].cli_checked(["announce", "off"])?;
    try_wait_until("it says nothing", SOON, || scene.etcd.get(key).map(|record| record.is_none()))?;
    scene.daemons[0].sigterm()?;
    // Nothing is known but what etcd says.
    fs::remove_file(scene.daemons[0].files().state_dir.join("fleet.toml"))?;
    scene.daemons[0].launch()?;
    scene.daemons[0].wait_ready(SOON)?;
    let full = |why: &str| why.contains("space exceeded");
    scene.wait_fleet(0, "what etcd has is live, and nobody hears of it", |fleet| {
        let live = fleet["live_revision"].as_i64().is_some_and(|live| live > 0);
        live && fleet["unheard"].as_str().is_some_and(full)
    })?;
    service(&scene.daemons[0].status_json()?, "web")?;
    let said = scene.refused(0, &["backend", "drain", "web", "backend0"])?;
    ensure!(said.contains("space exceeded"), "{said}");
    scene.etcd.no_space(false)?;
    scene.wait_fleet(0, "it is heard of", |fleet| fleet["unheard"].is_null())?;
    scene.daemons[0].cli_checked(["backend", "drain", "web", "backend0"])?;
    scene.wait_alike(&["draining", "active", "active"]).map(drop)
}
