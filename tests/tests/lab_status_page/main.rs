//! The status page in a real browser, before a real daemon with real traffic.

mod hostile;
mod network;
mod peers;
mod pictures;
mod scene;

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{Behaviour, require_root, skip, try_wait_until};
use serde_json::Value;

use scene::{DESKTOP, NO_BROWSER, PAGE, PHONE, SOON, Scene};

#[test]
fn the_status_page_shows_what_happens_while_it_happens() -> Result<()> {
    require_root!(Ok(()));
    let Some(mut scene) = Scene::new(hostile::AGENT)? else {
        skip(NO_BROWSER);
        return Ok(());
    };
    scene.browser.look(DESKTOP)?;
    scene.browser.open(PAGE)?;
    services_are_there_and_rates_move(&mut scene)?;
    network::peers_a_fleet_and_vips_that_lack_backends_show(&mut scene)?;
    what_a_hostile_server_says_stays_text(&mut scene)?;
    a_backend_that_dies_shows(&mut scene)?;
    it_fits_a_phone(&mut scene)?;
    it_is_dark_where_that_is_wanted(&mut scene)?;
    thousands_of_backends_are_not_drawn_before_they_are_seen(&mut scene)?;

    assert_eq!(scene.browser.complaints(), [""; 0]);
    let is_own = |url: &String| url.starts_with(PAGE) || url.starts_with("data:");
    let strangers: Vec<_> = scene.browser.requests().into_iter().filter(|url| !is_own(url)).collect();
    ensure!(strangers.is_empty(), "the page asked for {strangers:?}");

    it_is_a_table_without_scripts(&mut scene)?;
    it_says_when_nobody_answers_and_goes_on_when_somebody_does(&mut scene)?;
    the_policy_holds(&mut scene)
}

fn services_are_there_and_rates_move(scene: &mut Scene) -> Result<()> {
    let names =
        "[...document.querySelectorAll('.service .name')].map(node => node.textContent).sort().join()";
    scene.browser.wait("all services are shown", SOON, &format!("{names} === 'api,mail,orders,web'"))?;
    scene.browser.wait("it is live", SOON, "document.body.dataset.link === 'live'")?;
    let rate = |of: &str| format!("Number.parseFloat(document.querySelector('{of}')?.textContent) > 0");
    scene.browser.wait("packets are counted", SOON, &rate("#tile-packets .value"))?;
    // Two values of a rate, so that there is something to draw.
    let drawn =
        "(document.querySelector('#tile-packets .line').getAttribute('d').match(/L/g) ?? []).length >= 1";
    scene.browser.wait("their chart is drawn", SOON, drawn)?;
    let of_web = line("web", "querySelector('[data-label=\"packets/s\"]').textContent");
    let moved = "window.rates.add(RATE) && window.rates.size > 1".replace("RATE", &of_web);
    scene.browser.value("window.rates = new Set()")?;
    scene.browser.wait("the rate of a service moves", SOON, &moved)?;
    let facts = scene.browser.value("document.getElementById('facts').innerText")?.to_string();
    ensure!(facts.contains("attached, native") && facts.contains("is what runs"), "{facts}");
    let announced = "[...document.querySelectorAll('#facts > div')].filter(node => node.textContent.startsWith('VIP ') \
                     && node.textContent.endsWith('announced') && node.dataset.level === 'good').length === 2";
    scene.browser.wait("both VIPs are shown as announced", SOON, announced)?;
    Ok(())
}

fn what_a_hostile_server_says_stays_text(scene: &mut Scene) -> Result<()> {
    // The filter knows the backends too, and shows them.
    let typed = "const box = document.getElementById('filter'); box.value = 'orders-2'; \
                 box.dispatchEvent(new Event('input'))";
    scene.browser.value(&format!("{{ {typed} }}"))?;
    let detail = line("orders", "querySelector('.detail').textContent");
    let wanted = format!("{detail} === {}", Value::from(format!("agent says {}", hostile::AGENT)));
    scene.browser.wait("what the agent says is shown as it says it", SOON, &wanted)?;
    let found = scene.browser.value("document.querySelectorAll('img, iframe, script ~ script').length")?;
    assert_eq!(found, 0, "markup of a backend's");
    assert_eq!(scene.browser.value("window.pwned ?? null")?, Value::Null);
    let shown = scene.browser.value("document.querySelectorAll('.service').length")?;
    assert_eq!(shown, 1, "the filter leaves more than it should");
    scene.browser.value(
        "document.getElementById('filter').dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }))",
    )?;
    // The other one's reason phrase is nobody's business: the status is told.
    let told = format!("{} === 'HTTP 503'", line("mail", "querySelector('.detail').textContent"));
    scene.browser.value("document.getElementById('expand').click()")?;
    scene.browser.wait("a status is told", SOON, &told)
}

fn a_backend_that_dies_shows(scene: &mut Scene) -> Result<()> {
    scene.browser.value("window.sameAsBefore = true")?;
    let state = line(
        "web",
        "querySelectorAll('tbody tr').values().find(row => row.textContent.startsWith('backend1')).querySelector('.state').textContent",
    );
    scene.browser.wait("it is well", SOON, &format!("{state} === 'healthy'"))?;
    let order = "[...document.querySelectorAll('.brief .name')].map(node => node.textContent).join()";
    scene.browser.wait("problems are first", SOON, &format!("{order} === 'mail,orders,api,web'"))?;
    scene.servers[1].set(Behaviour::Refuse)?;
    scene.browser.wait("it is shown as unhealthy", SOON, &format!("{state} === 'unhealthy'"))?;
    let problem = "[...document.querySelectorAll('#problems li')].some(one => one.textContent.startsWith('web') && one.textContent.includes('backend1'))";
    scene.browser.wait("it is among the problems", SOON, problem)?;
    // It is a backend of both.
    scene.browser.wait("problems are first", SOON, &format!("{order} === 'mail,api,orders,web'"))?;
    scene.servers[1].set(Behaviour::Serve)?;
    scene.browser.wait("it is shown as healthy again", SOON, &format!("{state} === 'healthy'"))?;
    assert_eq!(scene.browser.value("window.sameAsBefore")?, true, "the page was loaded again");
    Ok(())
}

fn it_fits_a_phone(scene: &mut Scene) -> Result<()> {
    scene.browser.look(PHONE)?;
    scene.browser.wait("the page knows", SOON, &format!("innerWidth === {}", PHONE.width))?;
    // All of it: backends are open.
    let wide = "[...document.querySelectorAll('body *')].filter(node => node.getBoundingClientRect().right > innerWidth + 0.5 \
                && node.checkVisibility() && !node.closest('thead') && !(node instanceof SVGElement)).map(node => node.tagName + '.' + node.className).join()";
    scene.browser.wait("everything is as wide as the phone", SOON, &format!("{wide} === ''"))?;
    let width = scene.browser.value("document.documentElement.scrollWidth")?;
    assert_eq!(width, PHONE.width, "it scrolls sideways");
    scene.browser.look(DESKTOP)
}

fn it_is_dark_where_that_is_wanted(scene: &mut Scene) -> Result<()> {
    let ground = "getComputedStyle(document.body).backgroundColor";
    scene.browser.wait("it is light", SOON, &format!("{ground} === 'rgb(245, 246, 248)'"))?;
    scene.browser.look(scene::Screen { is_dark: true, ..DESKTOP })?;
    scene.browser.wait("it is dark", SOON, &format!("{ground} === 'rgb(14, 17, 22)'"))?;
    scene.browser.look(DESKTOP)
}

/// The page itself is given an answer that is larger than any that this lab could make in time.
fn thousands_of_backends_are_not_drawn_before_they_are_seen(scene: &mut Scene) -> Result<()> {
    let many = "async () => {
        link.paused = true;
        clearTimeout(link.timer);
        while (link.asking) await new Promise((done) => setTimeout(done, 10));
        document.getElementById('collapse').click();
        const answer = await (await fetch('status.json')).json();
        const [service] = answer.services;
        const backend = service.backends[0];
        answer.services = Array.from({ length: 1000 }, (_, s) => ({ ...service, name: `service-${s}`,
            backends: Array.from({ length: 10 }, (_, b) => ({ ...backend, name: `backend-${s}-${b}` })) }));
        accept(answer);
        const drawn = () => [...document.querySelectorAll('.where')].filter((node) => node.textContent !== '').length;
        // What is on the screen is known some frames later.
        for (let frames = 0; drawn() === 0 && frames < 200; frames += 1) await new Promise((done) => requestAnimationFrame(done));
        accept(answer);
        return [document.querySelectorAll('.service').length, drawn(), document.querySelectorAll('table').length];
    }";
    let counts = scene.browser.value(&format!("({many})()"))?;
    let counts: Vec<_> = counts.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    ensure!(matches!(counts[..], [1000, 1..=60, 0]), "services, drawn ones, tables: {counts:?}");
    scene.browser.value("link.paused = false, ask()")?;
    Ok(())
}

fn it_says_when_nobody_answers_and_goes_on_when_somebody_does(scene: &mut Scene) -> Result<()> {
    scene.browser.value("window.sameAsBefore = true")?;
    scene.daemon.kill9()?;
    let says = |what: &str| format!("document.getElementById('link').textContent.includes('{what}')");
    scene.browser.wait("it says that nobody answers", SOON, &says("does not answer"))?;
    assert_eq!(scene.browser.value("document.body.dataset.link")?, "lost");
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    scene.browser.wait("it is live again", SOON, &says("Live"))?;
    assert_eq!(scene.browser.value("window.sameAsBefore")?, true, "the page was loaded again");
    Ok(())
}

/// Even if markup got into the page, it could run nothing and tell nobody.
fn the_policy_holds(scene: &mut Scene) -> Result<()> {
    let inject = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned = 1\">')";
    scene.browser.value(inject)?;
    let elsewhere = "fetch('http://192.0.2.1/').then(() => 'let through', () => 'refused')";
    assert_eq!(scene.browser.value(elsewhere)?, "refused");
    let complaints = scene.browser.complaints().concat();
    for rule in ["img-src data:", "script-src", "connect-src 'self'"] {
        ensure!(complaints.contains(rule), "nothing was refused by {rule}: {complaints}");
    }
    assert_eq!(scene.browser.value("window.pwned ?? null")?, Value::Null);
    Ok(())
}

fn it_is_a_table_without_scripts(scene: &mut Scene) -> Result<()> {
    scene.browser.run_scripts(false)?;
    let expected = ["web", "203.0.113.10:80 tcp", "backend1", "orders-2", "onerror", "announced"];
    try_wait_until("everything is in the tables", SOON, || {
        let text = scene.browser.open(PAGE).and_then(|()| scene.browser.value("document.body.innerText"));
        text.map(|text| expected.iter().all(|one| text.to_string().contains(one)))
    })?;
    assert_eq!(scene.browser.value("document.images.length")?, 0);
    assert_eq!(scene.browser.value("document.getElementById('main').checkVisibility()")?, false);
    scene.browser.run_scripts(true)?;
    scene.browser.open(PAGE)?;
    scene.browser.wait("it is live again", SOON, "document.body.dataset.link === 'live'")
}

/// Something of the line of a service.
fn line(service: &str, what: &str) -> String {
    format!(
        "[...document.querySelectorAll('.service')].find(node => node.querySelector('.name').textContent === '{service}')?.{what}"
    )
}

#[test]
fn no_status_page_is_there_where_metrics_are_off() -> Result<()> {
    require_root!(Ok(()));
    let lab = lb_tests::lab::Lab::builder().build()?;
    let config = "[daemon]\ninterfaces = {interfaces}\nstate_dir = \"{state_dir}\"\npin_dir = \"{pin_dir}\"\n\
                  socket = \"{socket}\"\nmetrics = \"off\"\n";
    let _daemon = lb_tests::lab::Daemon::start(&lab, 0, config)?;
    let at = ([127, 0, 0, 1], 9640).into();
    let answer = lb_tests::lab::http_get(lab.balancer(0), None, at, "/", Duration::from_secs(1));
    ensure!(answer.is_err(), "{answer:?}");
    Ok(())
}
