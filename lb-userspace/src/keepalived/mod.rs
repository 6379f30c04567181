//! The configuration of keepalived for one of two load balancers: one holds the VIPs as addresses, the other one waits. Pure
//! text; nothing is asked and nothing is written.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, path::PathBuf, time::Duration};

/// What is to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub vips: BTreeSet<IpAddr>,
    /// Where the VIPs go, and the two hosts talk to each other.
    pub interface: String,
    /// Others that have to have a link.
    pub tracked: Vec<String>,
    /// This host's address on `interface`; `None`: keepalived finds one.
    pub own: Option<IpAddr>,
    pub peer: IpAddr,
    /// 1 to 255: the same on both, and no other pair's on this network.
    pub router_id: u8,
    /// 1 to 254: the higher one holds the VIPs where both may.
    pub priority: u8,
    /// Between two signs of life.
    pub advert: Duration,
    /// How long a host of higher priority is well before it takes the VIPs back; `None`: it does not.
    pub preempt_delay: Option<Duration>,
    /// Whether the host is fit to hold them: a program and its arguments.
    pub ready: Vec<String>,
    /// Told of every change.
    pub notify: Option<PathBuf>,
}

/// What keepalived can't be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("no service has a VIP: there is nothing to hold")]
    NoVips,
    #[error("{0} is a VIP, and can't be the address of one of the two hosts")]
    HostIsVip(IpAddr),
    #[error("{own} and {peer} are of two families: the two hosts talk by one")]
    Families { own: IpAddr, peer: IpAddr },
    #[error("{0:?} can't stand in keepalived's configuration")]
    Word(String),
}

impl Pair {
    /// The text of keepalived.conf.
    ///
    /// # Errors
    ///
    /// See [`Unfit`].
    pub fn render(&self) -> Result<String, Unfit> {
        self.check()?;
        let mut text = String::from(HEAD);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\nvrrp_script ballast_ready {{\n  script \"{}\"\n  interval 1\n  timeout 3\n  fall 2\n  rise 3\n}}\n\
             \nvrrp_instance ballast {{\n  state BACKUP\n  interface {}\n  virtual_router_id {}\n  priority {}\n  advert_int {}\n",
            self.ready.join(" "),
            self.interface,
            self.router_id,
            self.priority,
            self.advert.as_secs_f64()
        );
        match self.preempt_delay {
            Some(delay) => drop(writeln!(text, "  preempt_delay {}", delay.as_secs())),
            None => {
                text += "  # Who holds the VIPs keeps them: each move is a moment without.\n  nopreempt\n"
            }
        }
        if let Some(own) = self.own {
            let _ = writeln!(text, "  unicast_src_ip {own}");
        }
        block(&mut text, "unicast_peer", [self.peer.to_string()]);
        text += "  check_unicast_src\n";
        text += GRATUITOUS;
        block(&mut text, "track_interface", self.tracked.iter().cloned());
        block(&mut text, "track_script", ["ballast_ready".to_owned()]);
        let (told, others) = self.split();
        let line =
            |vip: &IpAddr| format!("{vip}/{} dev {}", if vip.is_ipv4() { 32 } else { 128 }, self.interface);
        block(&mut text, "virtual_ipaddress", told.iter().map(line));
        if !others.is_empty() {
            text += "  # They go with the others, whatever their family.\n";
            block(&mut text, "virtual_ipaddress_excluded", others.iter().map(line));
        }
        if let Some(notify) = &self.notify {
            let _ = writeln!(text, "  notify \"{}\"", notify.display());
        }
        text += "}\n";
        Ok(text)
    }

    /// The VIPs that signs of life name, which have to be of the hosts' own family and few, and the rest.
    fn split(&self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let (mut told, mut others): (Vec<_>, Vec<_>) =
            self.vips.iter().partition(|vip| vip.is_ipv4() == self.peer.is_ipv4());
        if told.is_empty() {
            // One there has to be. keepalived takes one of the other family where no other is.
            told = others.drain(..1).collect();
        }
        others.splice(0..0, told.split_off(told.len().min(MOST_TOLD)));
        (told, others)
    }

    fn check(&self) -> Result<(), Unfit> {
        if self.vips.is_empty() {
            return Err(Unfit::NoVips);
        }
        for host in self.own.iter().chain([&self.peer]) {
            if self.vips.contains(host) {
                return Err(Unfit::HostIsVip(*host));
            }
        }
        if let Some(own) = self.own.filter(|own| own.is_ipv4() != self.peer.is_ipv4()) {
            return Err(Unfit::Families { own, peer: self.peer });
        }
        let notify = self.notify.as_ref().map(|path| path.display().to_string());
        let words = self.ready.iter().chain(&self.tracked).chain([&self.interface]).chain(&notify);
        let is_unfit = |word: &&String| {
            word.is_empty()
                || word.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'{}#!$@~".contains(c))
        };
        match words.into_iter().find(is_unfit) {
            Some(word) => Err(Unfit::Word(word.clone())),
            None => Ok(()),
        }
    }
}

fn block(text: &mut String, name: &str, lines: impl IntoIterator<Item = String>) {
    let lines: String = lines.into_iter().map(|line| format!("    {line}\n")).collect();
    if !lines.is_empty() {
        *text += &format!("  {name} {{\n{lines}  }}\n");
    }
}

/// A sign of life has room for many times as many.
const MOST_TOLD: usize = 20;

const HEAD: &str = "\
# Made by `ballast keepalived`: the VIPs of Ballast's services, on one of two hosts at a time.
# The other host's is made there, with this one as its peer.

global_defs {
  # Parts of a second between signs of life, and IPv6.
  vrrp_version 3
  script_user root
  enable_script_security
}
";

/// Neighbours learn at once, by gratuitous ARP and unsolicited neighbour advertisements, where a VIP is; and now and then again,
/// because some that were busy have not. Two that hold it, after a split, tell it once more to whoever heard the other.
const GRATUITOUS: &str = "  garp_master_delay 1
  garp_master_repeat 3
  garp_master_refresh 30
  garp_master_refresh_repeat 1
  garp_lower_prio_repeat 3
";
