//! Two services of five hundred backends each, of which a change replaces half.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::lab::{Call, Calls, Daemon, Fault, Lab, Service, VIP_V4, VIP_V6, try_wait_until};

use crate::LONG;
use crate::view::{Backends, View};

pub(crate) const PORT: u16 = 80;
/// Where there is a service only if a test makes one.
pub(crate) const MADE_PORT: u16 = 81;
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// In which a restart has to have made everything what it should be.
const CONVERGED: Duration = Duration::from_secs(2);
/// Backends of each service before and after the change, by their numbers: a thousand come, go or stay.
const SHAPES: [Range<u16>; 2] = [0..500, 250..750];

pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    pub(crate) calls: Calls,
    pub(crate) view: View,
    /// Where new flows of each client go before the change and after it.
    pub(crate) tables: [Backends; 2],
    /// Where each client's open flow belongs, for as long as it lasts.
    pub(crate) open: Backends,
    /// Slots of the lookup map that the change changes.
    pub(crate) changed_slots: Vec<u64>,
    pub(crate) slots: u64,
    /// How long each restart took.
    restarts: Vec<Duration>,
    _lab: Lab,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        // The router stands for all backends: where it would send a packet is not asked.
        let lab = Lab::builder().backends(0).remote_backends(1).build()?;
        let mut daemon = Daemon::new(&lab, 0, &config(0))?;
        let calls = daemon.launch_watched()?;
        daemon.wait_ready(SOON)?;
        reachable(&daemon)?;
        let mut view = View::new(&lab);
        let old = view.new_flows(&daemon)?;
        let open = view.open_flows(&daemon)?;
        ensure!(open == old, "new flows and open ones are sent apart before any change");
        let before = daemon.attached()?.slots()?;
        daemon.write_config(&config(1))?;
        daemon.reload()?;
        let new = view.new_flows(&daemon)?;
        let after = daemon.attached()?.slots()?;
        let pairs = before.iter().zip(&after).zip(0..);
        let changed_slots: Vec<u64> =
            pairs.filter(|((old, new), _)| old.current() != new.current()).map(|(_, at)| at).collect();
        ensure!(changed_slots.len() > 10_000, "{} slots changed", changed_slots.len());
        let slots = after.len() as u64;
        let (tables, restarts) = ([old, new], Vec::new());
        let mut scene = Self { daemon, calls, view, tables, open, changed_slots, slots, restarts, _lab: lab };
        scene.start_afresh()?;
        Ok(scene)
    }

    /// Has everything be as if nothing had been applied but the first shape: the next change is all news.
    pub(crate) fn start_afresh(&mut self) -> Result<()> {
        self.daemon.kill9()?;
        let config = self.daemon.files().config.display().to_string();
        self.daemon.cli_checked(["detach", "--config", &config])?;
        self.write(0)?;
        self.calls = self.daemon.launch_watched()?;
        self.daemon.wait_ready(SOON)?;
        reachable(&self.daemon)?;
        self.is(0).context("a fresh start")
    }

    pub(crate) fn write(&self, shape: usize) -> Result<()> {
        self.daemon.write_config(&config(shape))
    }

    /// Writes the file and has it applied.
    pub(crate) fn change_to(&self, shape: usize) -> Result<()> {
        self.write(shape)?;
        self.daemon.reload()
    }

    /// Fails unless every new flow goes where the table says, and every open one where it belongs.
    pub(crate) fn is(&mut self, shape: usize) -> Result<()> {
        let new = self.view.new_flows(&self.daemon)?;
        let wrong = new.iter().zip(&self.tables[shape]).filter(|(is, should)| is != should).count();
        ensure!(wrong == 0, "{wrong} new flows go elsewhere than shape {shape} says");
        self.open_flows_stayed()
    }

    /// Fails unless every new flow goes to its old backend or its new one, and every open one where it belongs.
    pub(crate) fn is_old_or_new(&mut self) -> Result<()> {
        let new = self.view.new_flows(&self.daemon)?;
        let [old, after] = &self.tables;
        let wrong = new.iter().zip(old.iter().zip(after)).filter(|(is, (old, new))| is != old && is != new);
        let wrong = wrong.count();
        ensure!(wrong == 0, "{wrong} new flows go neither to their old nor to their new backend");
        self.open_flows_stayed()
    }

    /// How many new flows go to their new backends, of those that have one.
    pub(crate) fn moved(&mut self) -> Result<(usize, usize)> {
        let now = self.view.new_flows(&self.daemon)?;
        let [old, new] = &self.tables;
        let moving = || old.iter().zip(new).zip(&now).filter(|((old, new), _)| old != new);
        Ok((moving().filter(|((_, new), now)| new == now).count(), moving().count()))
    }

    fn open_flows_stayed(&self) -> Result<()> {
        let open = self.view.open_flows(&self.daemon)?;
        let moved = open.iter().zip(&self.open).filter(|(is, was)| is != was).count();
        ensure!(moved == 0, "{moved} open flows were moved");
        Ok(())
    }

    /// Starts the daemon after it has died. Until everything is what `shape` says no packet may be lost.
    pub(crate) fn restart(&mut self, shape: usize) -> Result<()> {
        let began = Instant::now();
        let done = AtomicBool::new(false);
        let Self { daemon, view, calls, .. } = self;
        // What is asked meanwhile is asked of the pins, not of this daemon.
        let observer = daemon.rival();
        let took = thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    view.open_flows(&observer)?;
                    if looks % 5 == 0 {
                        view.new_flows(&observer)?;
                    }
                    looks += 1;
                    thread::sleep(Duration::from_millis(20));
                }
                Ok::<_, anyhow::Error>(looks)
            });
            let started = daemon.launch_watched().and_then(|watched| {
                *calls = watched;
                daemon.wait_ready(SOON)
            });
            let took = began.elapsed();
            done.store(true, Ordering::Relaxed);
            let looks = watching.join().ok().context("the observer panicked")?.context("while it starts")?;
            started?;
            ensure!(looks > 0, "nobody looked");
            Ok(took)
        })?;
        self.restarts.push(took);
        self.is(shape).context("after a restart")
    }

    /// Whether all packets to the port of the service that tests make are forwarded; if it is not there, all pass.
    pub(crate) fn is_made(&mut self) -> Result<bool> {
        let passages = self.view.to_port(&self.daemon, MADE_PORT)?;
        let forwarded = passages.iter().filter(|passage| passage.is_forwarded()).count();
        let passed = passages.iter().filter(|passage| passage.is_passed()).count();
        ensure!(
            forwarded == passages.len() || passed == passages.len(),
            "of {} packets {forwarded} are forwarded and {passed} pass",
            passages.len()
        );
        Ok(forwarded > 0)
    }

    /// Ends the daemon; what it left goes on.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.daemon.kill9()
    }

    /// Starts a daemon one of whose calls is struck.
    pub(crate) fn launch_armed(&mut self, call: Call, at: usize, fault: Fault) -> Result<()> {
        self.calls = self.daemon.launch_armed(call, at, fault)?;
        Ok(())
    }

    /// Waits for the death of a process that was struck.
    pub(crate) fn dead(&mut self) -> Result<()> {
        let status = self.daemon.wait_exit(SOON)?;
        ensure!(status.code().is_none(), "it was to be killed, and ended with {status}");
        self.no_panic()
    }

    /// Fails in the long tier if restarts take too long; others have the machine for themselves even less.
    pub(crate) fn restarts_were_quick(&self) -> Result<()> {
        let mut restarts = self.restarts.clone();
        restarts.sort();
        let median = restarts.get(restarts.len() / 2).context("there were restarts")?;
        let quick = *median <= CONVERGED || env::var_os(LONG).is_none();
        ensure!(quick, "half of the restarts took {median:?} and longer");
        Ok(())
    }

    pub(crate) fn no_panic(&self) -> Result<()> {
        let log = self.daemon.log();
        match log.lines().find(|line| line.contains("panicked")) {
            Some(line) => bail!("{line}"),
            None => Ok(()),
        }
    }
}

fn config(shape: usize) -> String {
    let [v4, v6] = [VIP_V4, VIP_V6].map(|vip| {
        let name = if vip.is_ipv4() { "web4" } else { "web6" };
        let service = Service::new(name, SocketAddr::new(vip, PORT), "tcp", "ipip");
        // Nobody leaves for good while this lasts.
        let service = service.line("drain_timeout = \"4h\"").line("flow_idle_timeout = \"1h\"");
        let backend = |service: Service, number| {
            service.backend(&format!("b{number}"), SocketAddr::new(address(number, vip), PORT), 1)
        };
        SHAPES[shape].clone().fold(service, backend).toml()
    });
    v4 + &v6
}

/// Behind the router.
pub(crate) fn address(number: u16, like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        let [high, low] = (FIRST_HOST + number).to_be_bytes();
        Ipv4Addr::new(10, 3, high, low).into()
    } else {
        Ipv6Addr::new(0xfd00, 0, 0, 3, 0, 0, 0, FIRST_HOST + number).into()
    }
}

/// Fails where the address is nobody's: a backend that was never configured.
pub(crate) fn number_of(address: IpAddr) -> Result<u16> {
    let [.., high, low] = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let number = u16::from_be_bytes([high, low]).wrapping_sub(FIRST_HOST);
    ensure!(number < MOST && self::address(number, address) == address, "nobody has {address}");
    Ok(number)
}

/// Backends of each family that any test configures.
pub(crate) const MOST: u16 = 1_000;
/// Beyond the lab's own nodes.
const FIRST_HOST: u16 = 0x4001;

/// Has one host behind the router have the addresses of all.
pub(crate) fn lead_to_backends(lab: &Lab) -> Result<()> {
    let host = lab.backend(0);
    let blocks =
        [("10.3.64.0/18", host.ipv4().to_string()), ("fd00:0:0:3::4000/114", host.ipv6().to_string())];
    for (block, through) in blocks {
        host.ip("have the backends' addresses", [format!("route add local {block} dev lo")])?;
        lab.router().ip("lead to the backends", [format!("route add {block} via {through}")])?;
    }
    Ok(())
}

pub(crate) fn reachable(daemon: &Daemon) -> Result<()> {
    try_wait_until("the way to the backends is known", SOON, || {
        let status = daemon.status_json()?;
        let services = status["services"].as_array().into_iter().flatten();
        let mut backends = services.flat_map(|service| service["backends"].as_array().into_iter().flatten());
        Ok(backends.all(|backend| backend["reachable"] == true))
    })
}
