//! A thousand backends that come and go every second, and a few that stay.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, Lab, Node, Service, VIP_V4, VIP_V6, require_root, try_wait_for, try_wait_until};
use socket2::{Domain, Protocol, Socket, Type};

use crate::scene::{PORT, SOON, address, lead_to_backends, number_of, reachable};
use crate::view::View;

/// Of each family.
const STABLE: u16 = 10;
const ALL: u16 = STABLE + 500;
const CHECKED: u16 = 7;
const LASTS: Duration = Duration::from_secs(10);

#[test]
fn flapping_of_a_thousand_backends_makes_ten_publishes_a_second_and_breaks_no_flow() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(0).remote_backends(1).build()?;
    lead_to_backends(&lab)?;
    let _checked = Toggling::start(lab.backend(0))?;
    let daemon = Daemon::start(&lab, 0, &config())?;
    reachable(&daemon)?;
    // Not all: on a machine that is busy with other tests one or the other check comes too late.
    try_wait_until("most of the stable backends are healthy", 6 * SOON, || {
        let status = daemon.status_json()?;
        let services = status["services"].as_array().cloned().unwrap_or_default();
        Ok(services.len() == 2
            && services.iter().all(|service| {
                let stable = service["backends"].as_array().into_iter().flatten().filter(|one| {
                    one["name"].as_str().is_some_and(|name| name.starts_with('s'))
                        && one["health"] == "healthy"
                });
                stable.count() > usize::from(STABLE / 2)
            }))
    })?;
    let mut view = View::new(&lab);
    // The first table waits for a verdict of everybody.
    let open = try_wait_for("both services have a table", SOON, || view.open_flows(&daemon).map(Some))?;
    ensure!(open.iter().any(|number| *number < STABLE), "no flow is with a backend that stays");
    let publishes = || daemon.metric("ballast_publishes_total");
    let (before, began) = (publishes()?, Instant::now());
    let mut looks = 0;
    while began.elapsed() < LASTS {
        let now = view.open_flows(&daemon)?;
        let moved = now.iter().zip(&open).filter(|(now, was)| now != was).count();
        ensure!(moved == 0, "{moved} flows were moved after {:?}", began.elapsed());
        view.new_flows(&daemon)?;
        looks += 1;
        thread::sleep(Duration::from_millis(100));
    }
    let (made, lasted) = (publishes()? - before, began.elapsed());
    ensure!(made <= lasted.as_secs_f64() * 10.0 + 1.0, "{made} publishes in {lasted:?}");
    ensure!(made >= 5.0 && looks >= 5, "only {made} publishes and {looks} looks in {lasted:?}");
    Ok(())
}

fn config() -> String {
    let check =
        format!("type = \"http\"\nport = {CHECKED}\ninterval = \"1s\"\ntimeout = \"1s\"\nrise = 1\nfall = 1");
    let service = |vip| {
        let name = if SocketAddr::new(vip, PORT).is_ipv4() { "web4" } else { "web6" };
        let service = Service::new(name, SocketAddr::new(vip, PORT), "tcp", "ipip").health(&check);
        // Who comes back gets its part in steps: time brings changes of its own.
        let service = service.line("slow_start = \"3s\"");
        let backend = |service: Service, number| {
            // Those that stay have most of the flows.
            let (kind, weight) = if number < STABLE { ("s", 50) } else { ("t", 1) };
            service.backend(&format!("{kind}{number}"), SocketAddr::new(address(number, vip), PORT), weight)
        };
        (0..ALL).fold(service, backend).toml()
    };
    [VIP_V4, VIP_V6].map(service).concat()
}

/// Answers checks for every backend: for those that toggle with 200 in one second and with 503 in the next.
struct Toggling {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Toggling {
    fn start(node: &Node) -> Result<Self> {
        let listener = node.enter(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_only_v6(false)?;
            socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), CHECKED).into())?;
            socket.listen(4_096)?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok(Arc::new(TcpListener::from(socket)))
        })?;
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let start = |_| {
            let (stop, listener) = (stop.clone(), listener.clone());
            thread::spawn(move || {
                // It wakes up a few times a second to see whether it is to go on.
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept() {
                        // A check that goes away is made again.
                        let _ = answer(stream, began);
                    }
                }
            })
        };
        let threads = (0..4).map(start).collect();
        Ok(Self { stop, threads })
    }
}

impl Drop for Toggling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, began: Instant) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let number = number_of(stream.local_addr()?.ip().to_canonical())?;
    let _ = stream.read(&mut [0; 1024])?;
    let second = began.elapsed().as_secs();
    let up = number < STABLE || (second + u64::from(number)).is_multiple_of(2);
    let status = if up { "200 OK" } else { "503 Toggled" };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(())
}
