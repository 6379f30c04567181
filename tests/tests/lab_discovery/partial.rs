//! A DNS server that hands out a part of what it has at a time.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Lab, Node, require_root, wait_until};

use crate::bind::NAME;
use crate::scene::{HELD, SECOND, SOON, Scene, service};

const TTL: u32 = 1;

/// Answers each question with the next two of its addresses, until it is dropped.
struct Server {
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(node: &Node, addresses: Vec<Ipv4Addr>) -> Result<Self> {
        let address = node.ipv4();
        let socket = node.enter(|| UdpSocket::bind((address, 53)).context("serve names"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (asked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while stopped.load(Ordering::Relaxed) == 0 {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let turn = counted.fetch_add(1, Ordering::Relaxed);
                let two = addresses.iter().cycle().skip(turn * 2).take(2);
                let _ = socket.send_to(&answer(buffer.get(..length).unwrap_or_default(), two), client);
            }
        });
        Ok(Self { asked, stop, thread: Some(thread) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The question with these A records below it.
fn answer<'a>(question: &[u8], addresses: impl Iterator<Item = &'a Ipv4Addr>) -> Vec<u8> {
    let mut message = question.to_vec();
    if let [_, _, flags, more, _, _, _, answers, ..] = message.as_mut_slice() {
        (*flags, *more, *answers) = (0x85, 0x80, 2);
    }
    for address in addresses {
        // The name of the question, A, IN.
        message.extend([0xc0, 12, 0, 1, 0, 1]);
        message.extend(TTL.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    message
}

#[test]
fn a_server_that_names_two_of_four_at_a_time_is_asked_by_its_time_to_live_and_breaks_no_connection()
-> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(5).build()?;
    let addresses: Vec<_> = (0..4).map(|number| lab.backend(number).ipv4()).collect();
    let server = Server::start(lab.backend(4), addresses)?;
    let resolver = lab.backend(4).ipv4();
    let text = format!(
        "[discovery]\nresolvers = [\"{resolver}\"]\n\n{}\n[[service.dns]]\nname = \"{NAME}\"\n",
        service().toml()
    );
    let mut scene = Scene::new(lab, &text)?;
    scene.wait_backends(&[0, 1, 2, 3])?;
    scene.clients.open(HELD)?;
    scene.clients.pace(500)?;
    let (before, asked, begun) = (scene.fingerprint()?, server.asked(), Instant::now());
    let revision = scene.daemon.status_json()?["revision"].clone();
    wait_until("it is asked eight times more", SOON, || server.asked() >= asked + 8)?;
    let took = begun.elapsed();
    ensure!(took > 6 * SECOND, "an answer holds for {TTL} s, and it was asked 8 times in {took:?}");
    assert_eq!(scene.fingerprint()?, before);
    assert_eq!(scene.daemon.status_json()?["revision"], revision, "nothing changed");
    scene.clients.pace(0)?;
    scene.nothing_broke("at the end")?;
    scene.daemon.accounts().map(drop)
}
