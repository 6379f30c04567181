//! A balancer with four services, their clients, and a browser beside it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
pub(crate) use lb_tests::lab::Screen;
use lb_tests::lab::{
    Browser, CustomServer, Daemon, HttpLoad, HttpLoadSettings, HttpServer, Lab, Service, VIP_V4, VIP_V6,
};

use crate::hostile::{self, AGENT_PORT, HTTP_PORT};

pub(crate) const NO_BROWSER: &str =
    "there is no Chromium here (`cargo xtask setup` installs it where the distribution has it)";
pub(crate) const PAGE: &str = "http://127.0.0.1:9640/";
pub(crate) const SOON: Duration = Duration::from_secs(15);
pub(crate) const DESKTOP: Screen = Screen { width: 1280, height: 860, is_phone: false, is_dark: false };
pub(crate) const PHONE: Screen = Screen { width: 360, height: 760, is_phone: true, is_dark: false };

const AGENT_CHECK: &str = "type = \"agent\"\ninterval = \"1s\"\ntimeout = \"1s\"\nfall = 1\nport = 7000";
const HTTP_CHECK: &str = "type = \"http\"\ninterval = \"1s\"\ntimeout = \"1s\"\nfall = 1\nport = 7001";
/// As long as a machine that is busy with a browser may take.
const OWN_CHECK: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"1s\"\ntimeout = \"1s\"\nfall = 2";

/// In the order in which they have to end.
pub(crate) struct Scene {
    pub(crate) browser: Browser,
    _loads: Vec<HttpLoad>,
    pub(crate) daemon: Daemon,
    pub(crate) servers: Vec<HttpServer>,
    _agents: [CustomServer; 2],
    _lab: Lab,
}

impl Scene {
    /// `None` where there is no browser. The agent of an unhealthy backend says this.
    pub(crate) fn new(agent: &'static str) -> Result<Option<Self>> {
        let Some(program) = Browser::program() else { return Ok(None) };
        let lab = Lab::builder().backends(4).build()?;
        let servers: Vec<_> =
            lab.backends().map(|node| HttpServer::start(node, &[80, 8080])).collect::<Result<_>>()?;
        let well = |mut stream: TcpStream| stream.write_all(b"up 100%\n");
        let agents = [
            hostile::serve(lab.backend(3), agent)?,
            CustomServer::start(lab.backend(0), &[AGENT_PORT], well)?,
        ];
        let mut daemon = Daemon::new(&lab, 0, &config(&lab))?;
        // The page shows the host's name, and whose host made the documentation's pictures is nobody's concern.
        daemon.start_through(["unshare", "--uts", "sh", "-c", "hostname lb1; exec \"$@\"", "sh"]);
        daemon.launch()?;
        daemon.wait_ready(SOON)?;
        let load = |vip, pause| {
            let settings = HttpLoadSettings { threads: 1, pause, ..HttpLoadSettings::default() };
            HttpLoad::start(lab.client(0), vip, settings)
        };
        let loads = vec![
            load(SocketAddr::new(VIP_V4, 80), Duration::from_millis(8))?,
            load(SocketAddr::new(VIP_V6, 8080), Duration::from_millis(25))?,
        ];
        let browser = Browser::start(&program, lab.balancer(0), lab.directory())?;
        Ok(Some(Self { browser, _loads: loads, daemon, servers, _agents: agents, _lab: lab }))
    }
}

fn config(lab: &Lab) -> String {
    let three = || lab.backends().take(3);
    let (web, api) = (SocketAddr::new(VIP_V4, 80), SocketAddr::new(VIP_V6, 8080));
    let at = |number: usize, port| SocketAddr::new(lab.backend(number).address(VIP_V4), port);
    let web = Service::new("web", web, "tcp", "l2-dsr").line("algorithm = \"flow-hash\"").health(OWN_CHECK);
    let api = Service::new("api", api, "tcp", "l2-dsr").line("tracking = \"always\"").health(OWN_CHECK);
    let orders = Service::new("orders", SocketAddr::new(VIP_V4, 5432), "tcp", "l2-dsr").health(AGENT_CHECK);
    let mail = Service::new("mail", SocketAddr::new(VIP_V4, 8443), "tcp", "l2-dsr").health(HTTP_CHECK);
    let services = [
        web.nodes(three(), SocketAddr::new(VIP_V4, 80)),
        api.nodes(three(), SocketAddr::new(VIP_V6, 8080)),
        orders.backend("orders-1", at(0, 5432), 2).backend("orders-2", at(3, 5432), 1),
        mail.backend("mail-1", at(3, 8443), 1),
    ]
    .map(|service| service.toml());
    format!("[announce]\n\n{}", services.concat())
}

const _: () = assert!(AGENT_PORT == 7000 && HTTP_PORT == 7001, "what the checks say");
