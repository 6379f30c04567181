//! The watched file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Lab, require_root, try_wait_until};
use tempfile::TempDir;

use crate::scene::{HELD, PORT, SOON, Scene, service};

/// A service with the backends of this file, of which it has these, and connections to them.
fn scene(lab: Lab, path: &Path, numbers: &[usize]) -> Result<Scene> {
    let service = service().line(&format!("backends_file = \"{}\"", path.display()));
    let mut scene = Scene::new(lab, &service.toml())?;
    scene.wait_backends(numbers)?;
    scene.clients.open(HELD)?;
    Ok(scene)
}

fn directory() -> Result<TempDir> {
    tempfile::Builder::new().prefix("ballast-found-").tempdir().context("make a directory")
}

/// These backends of the lab, called by their addresses.
fn text(lab: &Lab, numbers: &[usize]) -> String {
    let backend =
        |number: &usize| format!("[[backend]]\naddress = \"{}:{PORT}\"\n", lab.backend(*number).ipv4());
    numbers.iter().map(backend).collect()
}

/// Puts another file in its place, as whoever writes it should.
fn replace(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    fs::write(&draft, text)?;
    fs::rename(&draft, path).context("put a file in place")
}

#[test]
fn backends_follow_the_file_and_a_broken_missing_or_empty_one_takes_none_away() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let directory = directory()?;
    let path = directory.path().join("web.toml");
    replace(&path, &text(&lab, &[0, 1]))?;
    let mut scene = scene(lab, &path, &[0, 1])?;
    replace(&path, &text(&scene.lab, &[0, 1, 2]))?;
    scene.wait_backends(&[0, 1, 2])?;
    assert_eq!(scene.opened()?, ["backend0", "backend1", "backend2"]);
    let shown = scene.daemon.cli_checked(["backend", "list", "web"])?;
    ensure!(shown.contains("web.toml:5"), "{shown}");

    // What is gone from it drains: its connections go on, and it gets no new ones.
    replace(&path, &text(&scene.lab, &[1, 2]))?;
    scene.wait_backends(&[1, 2])?;
    assert_eq!(scene.opened()?, ["backend1", "backend2"]);
    scene.nothing_broke("while one drains")?;
    let leaving = scene.service()?["leaving"].clone();
    ensure!(leaving[0]["name"] == scene.name(0), "{leaving}");

    let before = scene.fingerprint()?;
    let place = format!("{}:4:", path.display());
    let whole = text(&scene.lab, &[1, 2]);
    let cut = whole.get(..whole.len() - 6).unwrap_or_default();
    for (what, said) in [(Some(cut), place.as_str()), (Some(""), "no [[backend]]"), (None, "No such file")] {
        match what {
            Some(text) => replace(&path, text)?,
            None => fs::remove_file(&path)?,
        }
        scene.wait_trouble(Some(said))?;
        scene.wait_metric("ballast_discovery_failing", |value| value == 1.0)?;
        let shown = scene.daemon.cli_checked(["status"])?;
        ensure!(shown.contains("DOES NOT ANSWER AS IT SHOULD") && shown.contains(said), "{shown}");
        ensure!(scene.daemon.log().contains(said), "{said} is not in the log");
        assert_eq!(scene.fingerprint()?, before, "{said}");
        scene.nothing_broke(said)?;
    }
    // Nor does a start that finds none.
    scene.restart()?;
    assert_eq!(scene.fingerprint()?, before, "after a start without the file");
    scene.nothing_broke("after a start without the file")?;
    let shown = scene.daemon.cli_checked(["service", "show", "web"])?;
    ensure!(shown.contains("2 found, before the daemon started"), "{shown}");
    assert_eq!(scene.opened()?, ["backend1", "backend2"]);

    // Back again, in its directory's place, it counts.
    replace(&path, &text(&scene.lab, &[0, 1, 2]))?;
    scene.wait_trouble(None)?;
    scene.wait_backends(&[0, 1, 2])?;
    scene.nothing_broke("at the end")?;
    scene.daemon.accounts().map(drop)
}

#[test]
fn a_file_behind_links_is_followed_when_the_links_lead_elsewhere() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let directory = directory()?;
    // As a mounted ConfigMap has it: FILE -> ..data/FILE, and ..data -> the directory of one version.
    let switch = |lab: &Lab, version: &str, numbers: &[usize]| -> Result<()> {
        let [of_version, link, data] =
            [version, "..data.new", "..data"].map(|name| directory.path().join(name));
        fs::create_dir(&of_version)?;
        fs::write(of_version.join("web.toml"), text(lab, numbers))?;
        symlink(version, &link)?;
        fs::rename(link, data).context("switch to another version")
    };
    switch(&lab, "..1", &[0, 1])?;
    let path = directory.path().join("web.toml");
    symlink("..data/web.toml", &path)?;
    let mut scene = scene(lab, &path, &[0, 1])?;
    switch(&scene.lab, "..2", &[1, 2])?;
    scene.wait_backends(&[1, 2])?;
    fs::remove_dir_all(directory.path().join("..1"))?;
    switch(&scene.lab, "..3", &[0, 1, 2])?;
    scene.wait_backends(&[0, 1, 2])?;
    // The whole directory gives way to another one.
    let aside = directory.path().with_extension("old");
    fs::rename(directory.path(), &aside)?;
    scene.wait_trouble(Some("No such file"))?;
    fs::create_dir(directory.path())?;
    replace(&path, &text(&scene.lab, &[2]))?;
    scene.wait_backends(&[2])?;
    replace(&path, &text(&scene.lab, &[1, 2]))?;
    scene.wait_backends(&[1, 2])?;
    fs::remove_dir_all(aside)?;
    scene.nothing_broke("at the end")?;
    scene.daemon.accounts().map(drop)
}

#[test]
fn what_is_set_over_a_backend_that_was_found_holds_and_it_is_not_removed() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let directory = directory()?;
    let path = directory.path().join("web.toml");
    replace(&path, &text(&lab, &[0, 1]))?;
    let mut scene = scene(lab, &path, &[0, 1])?;
    let (kept, other) = (scene.name(0), scene.name(1));
    scene.daemon.cli_checked(["backend", "drain", "web", &kept])?;
    scene.wait_backends(&[1])?;
    // Another file that has it, and another daemon: it goes on draining.
    replace(&path, &format!("# another\n{}", text(&scene.lab, &[0, 1])))?;
    try_wait_until("the file is read", SOON, || {
        scene.service().map(|service| service.pointer("/backends/0/origin/line") == Some(&2.into()))
    })?;
    scene.restart()?;
    let shown = scene.daemon.cli_checked(["backend", "list", "web"])?;
    ensure!(shown.contains("web.toml:2 + admin") && shown.contains("draining"), "{shown}");
    scene.nothing_broke("while one drains")?;
    for (arguments, said) in [
        (vec!["backend", "remove", "web", &other], "web.toml:4"),
        (vec!["backend", "add", "web", &other, "10.9.9.9:80"], "was found"),
    ] {
        let refused = scene.daemon.cli(arguments)?;
        assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
        ensure!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    scene.daemon.cli_checked(["backend", "reset", "web", &kept])?;
    scene.wait_backends(&[0, 1])?;
    let planned = scene.daemon.cli_checked(["reload", "--dry-run"])?;
    ensure!(planned.contains("nothing to change") || planned.contains("no change"), "{planned}");
    scene.nothing_broke("at the end")?;
    scene.daemon.accounts().map(drop)
}
