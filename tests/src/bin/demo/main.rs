//! What `cargo xtask demo` shows: real traffic through the real program in a lab, and a backend that dies under load.
//!
//! Every step checks what it says, so this ends with status 0 only if Ballast did its job.

mod tally;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::lab::{
    Daemon, HttpLoad, HttpLoadSettings, Lab, Nginx, Sample, Service, VIP_V4, interrupt_cleans_up, wait_for,
    wait_until,
};

use tally::{Clients, Tally};

/// Clients that may come from a port of which a flow is still known: a few in a thousand.
const REUSED_PORTS: usize = 20;

/// Backend 0 shall get half of the clients, the others a quarter each.
const WEIGHTS: [u32; 3] = [2, 1, 1];
const PORT: u16 = 80;
/// How many client addresses ask: with so many, chance moves a share by 0.8 points (one sigma).
const CLIENTS: u16 = 4000;
/// How far a share may be from its weight, as a part of all clients: 5 sigma.
const TOLERANCE: f64 = 0.04;

const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(400);
const RISE: u32 = 2;
const FALL: u32 = 3;
/// How long after a backend's death requests may still fail. Later ones never.
const DETECTION: Duration = Duration::from_millis(FALL as u64 * 500 + 400);
/// For what takes a moment, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] => run(false),
        ["--keep"] => run(true),
        ["--remove", name] => Lab::remove_kept(name),
        _ => Err(anyhow::anyhow!("usage: demo [--keep | --remove LAB]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demonstration failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(keep: bool) -> Result<()> {
    title("A lab: a client, a load balancer and three web servers, each in a network namespace");
    let lab = Lab::builder().clients(1).balancers(1).backends(3).build()?;
    interrupt_cleans_up(lab.name())?;
    print!("{}", lab.describe());
    let backends = lab.backends().map(|node| Nginx::start(&lab, node, PORT)).collect::<Result<Vec<_>>>()?;

    let service = SocketAddr::new(VIP_V4, PORT);
    title(&format!("`ballast run` on lb0, with the service http://{service}"));
    let config = config(&lab, service);
    println!("{}", config.trim_end());
    let daemon = Daemon::start(&lab, 0, &config)?;

    let mut demo = Demo { lab, daemon, backends, service };
    if let Err(error) = demo.show() {
        eprintln!("\nWhat the daemon said:\n{}", demo.daemon.log());
        return Err(error);
    }
    if keep { demo.keep() } else { demo.clean_up() }
}

struct Demo {
    lab: Lab,
    daemon: Daemon,
    backends: Vec<Nginx>,
    service: SocketAddr,
}

impl Demo {
    fn show(&mut self) -> Result<()> {
        self.wait_for_health("healthy", 0).context("the backends' first health checks")?;

        title(&format!("{CLIENTS} requests, each from an address of its own"));
        let before = self.ask_everybody()?;
        let tally = Tally::of(before.values());
        print!("{}", tally.table(&WEIGHTS));
        tally.check(&WEIGHTS, TOLERANCE)?;
        self.show_that_it_was_xdp()?;

        title("backend0, which serves half of the clients, is killed under load");
        self.show_failover(&before)?;

        title("backend0 comes back");
        let backend = self.backends.first_mut().context("there is no backend0")?;
        backend.restart()?;
        let restarted = Instant::now();
        self.wait_for_health("healthy", 0)?;
        println!("healthy again after {} ms ({RISE} good checks)", restarted.elapsed().as_millis());
        let after = self.ask_everybody()?;
        print!("{}", Tally::of(after.values()).table(&WEIGHTS));
        let moved = tally::moved(&before, &after);
        let old = before.values().filter(|backend| *backend == "backend0").count();
        println!("its {old} clients are back; clients that are elsewhere than before it died: {moved}");
        if moved > 0 {
            // A port that was used again so soon is a flow that is remembered.
            println!("(from a port whose last connection ended at that other backend a moment ago)");
        }
        ensure!(moved <= REUSED_PORTS, "{moved} of {CLIENTS} clients have another backend than before");

        title("`ballast status`");
        print!("{}", self.daemon.cli_checked(["status"])?);
        Ok(())
    }

    /// Asks once from every client address, and says who answered whom.
    fn ask_everybody(&self) -> Result<Clients> {
        let load = self.load()?;
        let enough = || load.so_far().len() >= usize::from(CLIENTS);
        wait_until("every client has been answered", 2 * PATIENCE, enough)?;
        let samples = load.stop();
        let mut clients = Clients::new();
        for sample in samples {
            match sample.outcome {
                Ok(backend) => clients.insert(sample.from.ip(), backend),
                Err(error) => bail!("a request from {} failed: {error}", sample.from.ip()),
            };
        }
        ensure!(clients.len() == usize::from(CLIENTS), "{} of {CLIENTS} clients have asked", clients.len());
        Ok(clients)
    }

    fn load(&self) -> Result<HttpLoad> {
        let (pause, timeout) = (Duration::from_millis(1), Duration::from_secs(3));
        let settings = HttpLoadSettings { sources: CLIENTS, threads: 4, pause, timeout };
        HttpLoad::start(self.lab.client(0), self.service, settings)
    }

    /// Shows what the driver counted next to what the program did: the packets really went through XDP.
    fn show_that_it_was_xdp(&self) -> Result<()> {
        let status = self.daemon.status_json()?;
        let interface = status.pointer("/interfaces/0").context("no interface in `ballast status`")?;
        let (name, mode) = (interface["name"].as_str(), interface["mode"].as_str());
        let (name, mode) = (name.unwrap_or_default(), mode.unwrap_or_default());
        let sent = self.daemon.node().counters(name)?.get("rx_xdp_tx").copied().unwrap_or(0);
        let forwarded = status.pointer("/verdicts/tx").and_then(serde_json::Value::as_u64).unwrap_or(0);
        println!(
            "{name} runs the program in {mode} mode: it forwarded {forwarded} packets, the driver sent {sent} from XDP"
        );
        ensure!(mode == "native", "the program is not attached in native mode");
        ensure!(sent >= u64::from(CLIENTS), "the requests did not go through XDP");
        Ok(())
    }

    fn show_failover(&mut self, before: &Clients) -> Result<()> {
        let load = self.load()?;
        thread::sleep(Duration::from_secs(1));
        let backend = self.backends.first_mut().context("there is no backend0")?;
        let killed = Instant::now();
        backend.kill()?;
        self.wait_for_health("unhealthy", 0)?;
        println!("out of service {} ms after its death", killed.elapsed().as_millis());
        // Watch for a while what comes after the moment from which nothing may fail.
        let watched = DETECTION + Duration::from_secs(3);
        thread::sleep(watched.saturating_sub(killed.elapsed()));
        let samples = load.stop();

        let (earlier, later): (Vec<_>, Vec<_>) = samples.iter().partition(|sample| sample.started < killed);
        let (detecting, detected): (Vec<_>, Vec<_>) =
            later.into_iter().partition(|sample| sample.started < killed + DETECTION);
        // A request that was under way at that moment belongs to the time of detection.
        let finished: Vec<_> =
            earlier.into_iter().filter(|sample| sample.started + sample.took < killed).collect();
        print_failures("before its death", &finished)?;
        print_failures(
            &format!("within {} ms after (fall × interval + timeout)", DETECTION.as_millis()),
            &detecting,
        )?;
        let answered = print_failures("later", &detected)?;
        print!("{}", Tally::of(answered.values()).table(&[0, 1, 1]));
        for sample in finished.iter().chain(&detected) {
            if let Err(error) = &sample.outcome {
                let (from, after) = (sample.from, sample.started.saturating_duration_since(killed));
                println!("  from {from}, {} ms after the death: {error}", after.as_millis());
            }
        }

        ensure!(tally::failures(&finished) == 0, "requests failed while all backends were there");
        ensure!(
            tally::failures(&detected) == 0,
            "requests failed after the backend's death was to be detected"
        );
        ensure!(!answered.values().any(|backend| backend == "backend0"), "a dead backend cannot answer");
        let orphans =
            answered.keys().filter(|client| before.get(client).is_some_and(|name| name == "backend0"));
        ensure!(orphans.count() > 0, "none of its clients asked again");
        Ok(())
    }

    /// Waits until backend `index` is what it should be and its part of the table is published.
    fn wait_for_health(&self, health: &str, index: usize) -> Result<()> {
        let serving = health == "healthy";
        let what = format!("every backend is healthy, but for backend{index}, which is {health}");
        wait_for(&what, PATIENCE, || {
            let status = self.daemon.status_json().ok()?;
            let backends = status.pointer("/services/0/backends")?.as_array()?;
            let as_expected = |number: usize, backend: &serde_json::Value| {
                let (health, serving) = if number == index { (health, serving) } else { ("healthy", true) };
                backend["health"] == health && (backend["share"].as_f64().unwrap_or(0.0) > 0.0) == serving
            };
            backends.iter().enumerate().all(|(number, backend)| as_expected(number, backend)).then_some(())
        })
    }

    fn clean_up(mut self) -> Result<()> {
        title("Cleaning up");
        let status = self.daemon.sigterm()?;
        ensure!(status.success(), "the daemon ended with {status}");
        let name = self.lab.name().to_owned();
        drop(self);
        println!("{name} is gone. All of it worked.");
        Ok(())
    }

    fn keep(self) -> Result<()> {
        let socket = self.daemon.files().socket.display().to_string();
        let program = std::env::var("BALLAST_BIN").unwrap_or_else(|_| "ballast".into());
        let client = self.lab.client(0).path().display().to_string();
        self.daemon.leave_running();
        self.backends.into_iter().for_each(Nginx::leave_running);
        let name = self.lab.keep()?;
        title(&format!("The lab {name} stays; talk to it as root"));
        println!("nsenter --net={client} curl http://{}", self.service);
        println!("nsenter --net={client} curl --interface 10.100.0.7 http://{}", self.service);
        println!("{program} --socket {socket} status");
        println!("Remove it with: cargo xtask demo --remove {name}");
        Ok(())
    }
}

fn config(lab: &Lab, service: SocketAddr) -> String {
    let health = format!(
        "type = \"http\"\npath = \"/healthz\"\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nrise = {RISE}\nfall = {FALL}",
        INTERVAL.as_millis(),
        TIMEOUT.as_millis()
    );
    let service = Service::new("web", service, "tcp", "l2-dsr").health(&health);
    let backends = lab.backends().zip(WEIGHTS);
    let add = |service: Service, (node, weight): (&lb_tests::lab::Node, u32)| {
        service.backend(&node.label(), SocketAddr::new(node.address(VIP_V4), PORT), weight)
    };
    backends.fold(service, add).toml()
}

/// Prints how many requests of a time failed, and returns who answered the others.
fn print_failures(time: &str, samples: &[&Sample]) -> Result<Clients> {
    ensure!(!samples.is_empty(), "there were no requests {time}");
    println!("requests {time}: {}, of which failed: {}", samples.len(), tally::failures(samples));
    Ok(tally::answers(samples))
}

fn title(text: &str) {
    println!("\n== {text}");
}
