//! Whether somebody else holds a VIP that this host holds as an address: two load balancers of a pair that don't hear each
//! other both do. The network is asked, as before an address is taken: by ARP (RFC 5227), and neighbour discovery (RFC 4862).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use crate::{
    control::{Handle, Snapshot},
    doctor::{Asking, Heard, Question, What, ask},
};

/// VIPs that this host holds as addresses, for everybody who wants to know.
#[derive(Debug, Default)]
pub struct HeldVips {
    held: Mutex<BTreeMap<IpAddr, Held>>,
}

/// What is known of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub interface: String,
    /// MAC address of whoever else holds it.
    pub rival: Option<[u8; 6]>,
    /// Looks in a row that said otherwise.
    times: u32,
}

impl HeldVips {
    pub fn all(&self) -> BTreeMap<IpAddr, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(test)]
    pub(crate) fn of(vip: &str, rival: Option<[u8; 6]>) -> Self {
        let held = Held { rival, ..Held::default() };
        Self { held: Mutex::new([(vip.parse().expect("an address"), held)].into()) }
    }

    /// Takes what one look has found: the VIPs that are held, and who else answered for them.
    fn note(&self, looks: &[Look]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|vip, _| looks.iter().any(|look| look.vip == *vip));
        for look in looks {
            let known = held.entry(look.vip).or_default();
            known.interface.clone_from(&look.interface);
            known.note(look.vip, look.rival);
        }
    }
}

impl Held {
    /// While one host takes over from another both answer for a moment; an answer may get lost.
    fn note(&mut self, vip: IpAddr, rival: Option<[u8; 6]>) {
        if rival.is_some() == self.rival.is_some() {
            (self.rival, self.times) = (rival, 0);
            return;
        }
        self.times += 1;
        if self.times < BELIEVED {
            return;
        }
        (self.rival, self.times) = (rival, 0);
        match rival {
            Some(mac) => log::error!(
                "SPLIT BRAIN: {vip} is on {} of this host, and {} says that it is there, too",
                self.interface,
                text(mac)
            ),
            None => log::info!("{vip} is on this host alone again"),
        }
    }
}

/// One VIP on an interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    vip: IpAddr,
    interface: String,
    rival: Option<[u8; 6]>,
}

/// Looks every few seconds, until the control task ends.
pub fn spawn(control: &Handle, held: Arc<HeldVips>) -> JoinHandle<()> {
    tokio::spawn(run(control.watch(), held))
}

async fn run(snapshots: watch::Receiver<Arc<Snapshot>>, held: Arc<HeldVips>) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = false;
    while snapshots.has_changed().is_ok() {
        tick.tick().await;
        let vips: BTreeSet<_> =
            snapshots.borrow().services.iter().map(|view| view.service.vip.address).collect();
        match tokio::task::spawn_blocking(move || look(&vips)).await {
            Ok(Ok(looks)) => {
                trouble = false;
                held.note(&looks);
            }
            Ok(Err(error)) if !trouble => {
                trouble = true;
                log::warn!(
                    "who else holds VIPs of this host can't be asked, which takes CAP_NET_RAW: {error}"
                );
            }
            Ok(Err(_)) => {}
            Err(error) => log::error!("asking who else holds VIPs ended: {error}"),
        }
    }
}

/// Asks about the VIPs that are addresses of an interface with a MAC address. Takes half a second where there are any.
fn look(vips: &BTreeSet<IpAddr>) -> std::io::Result<Vec<Look>> {
    let (mut found, mut macs) = (Vec::new(), BTreeMap::new());
    for address in getifaddrs()? {
        let name = address.interface_name;
        let Some(address) = address.address else { continue };
        if let Some(mac) = address.as_link_addr().and_then(|link| link.addr()) {
            macs.insert(name, mac);
            continue;
        }
        let v4 = || address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let ip = v4().or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())));
        found.extend(ip.filter(|ip| vips.contains(ip)).map(|vip| (vip, name)));
    }
    // What has none is `lo`, of which no network knows.
    found.retain(|(_, name)| macs.get(name).is_some_and(|mac| *mac != [0; 6]));
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let question = |(vip, name): &(IpAddr, String)| {
        let index = if_nametoindex(name.as_str()).ok()?;
        let from = *macs.get(name)?;
        Some((Question::Holder(*vip, index), Asking::Holder { interface: index, from, address: *vip }))
    };
    let heard = ask(found.iter().filter_map(question).collect())?;
    let own: HashSet<_> = macs.values().copied().collect();
    Ok(found.iter().map(|(vip, name)| answered(*vip, name, &heard, &own)).collect())
}

fn answered(vip: IpAddr, name: &str, heard: &Heard, own: &HashSet<[u8; 6]>) -> Look {
    let index = if_nametoindex(name).unwrap_or_default();
    let mut rivals = heard.to(Question::Holder(vip, index)).iter().filter_map(|answer| match answer.what {
        // Two interfaces on one network: this host itself.
        What::Holder(mac) if !own.contains(&mac) => Some(mac),
        _ => None,
    });
    Look { vip, interface: name.to_owned(), rival: rivals.next() }
}

/// `02:00:00:00:00:01`
pub fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

const INTERVAL: Duration = Duration::from_secs(2);
/// Looks in a row.
const BELIEVED: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rival_is_believed_when_he_answers_again_and_gone_when_he_is_silent_twice() {
        let (vip, held) = (IpAddr::from([203, 0, 113, 10]), HeldVips::default());
        let look = |rival| {
            held.note(&[Look { vip, interface: "eth0".into(), rival }]);
            held.all()[&vip].rival
        };
        let mac = Some([2; 6]);
        assert_eq!([look(None), look(mac), look(None), look(mac), look(mac)], [None, None, None, None, mac]);
        assert_eq!([look(None), look(mac), look(None), look(None)], [mac, mac, mac, None]);
        held.note(&[]);
        assert!(held.all().is_empty());
    }
}
