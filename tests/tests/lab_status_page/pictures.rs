//! The pictures in `docs/images`, made anew under `BALLAST_UPDATE_SNAPSHOT=1`.

use std::path::Path;
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use lb_tests::lab::{Behaviour, require_root};

use crate::scene::{DESKTOP, PAGE, SOON, Scene, Screen};

const UPDATE: &str = "BALLAST_UPDATE_SNAPSHOT";
/// A minute and more of traffic, so that charts show something.
const BEFORE: Duration = Duration::from_secs(70);

/// Makes pictures where that is asked for. Otherwise what they show is tested beside this, and that they are there is.
#[test]
fn the_documentation_has_pictures_of_the_status_page() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    let wanted = [
        ("status-page.png", DESKTOP),
        ("status-page-dark.png", Screen { is_dark: true, ..DESKTOP }),
        ("status-page-phone.png", Screen { width: 390, height: 844, is_phone: true, is_dark: false }),
    ];
    if env::var_os(UPDATE).is_none() {
        for (name, _) in wanted {
            let file = directory.join(name);
            fs::metadata(&file).with_context(|| format!("{} ({UPDATE}=1 makes it)", file.display()))?;
        }
        return Ok(());
    }
    require_root!(Ok(()));
    let mut scene = Scene::new("down # it replicates from nobody")?.context("pictures take a Chromium")?;
    scene.browser.look(DESKTOP)?;
    scene.browser.open(PAGE)?;
    scene.browser.wait(
        "all services are shown",
        SOON,
        "document.querySelectorAll('.service').length === 4",
    )?;
    thread::sleep(BEFORE / 2);
    scene.servers[2].set(Behaviour::FailHealth(503))?;
    thread::sleep(BEFORE / 2);
    fs::create_dir_all(&directory)?;
    for (name, screen) in wanted {
        scene.browser.look(screen)?;
        scene.browser.value("document.getElementById('collapse').click()")?;
        if !screen.is_phone {
            scene.browser.value("toggle('web')")?;
        }
        scene.browser.value("scrollTo(0, 0)")?;
        scene.browser.value(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))",
        )?;
        fs::write(directory.join(name), BASE64.decode(scene.browser.screenshot()?)?)?;
    }
    Ok(())
}
