//! The lab: machines made of network namespaces, wired by veth pairs and bridges, gone when the [`Lab`] is dropped.
//!
//! ```no_run
//! use lb_tests::lab::{Lab, HttpServer, http_get};
//! # use std::{net::SocketAddr, time::Duration};
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder().clients(1).balancers(1).backends(3).build()?;
//! let _server = HttpServer::start(lab.backend(0), &[80])?;
//! let to = SocketAddr::new(lab.backend(0).ipv4().into(), 80);
//! let reply = http_get(lab.client(0), None, to, "/", Duration::from_secs(1))?;
//! assert_eq!(reply.backend, "backend0");
//! # Ok(())
//! # }
//! ```
//!
//! # How it is wired
//!
//! All bridges are in one namespace of their own, the switch. **One-armed** (the default): every node's `eth0` is on the
//! segment `front`, and load balancers receive and send there. **Two-armed**: clients are on `front` with the load
//! balancers' `eth0`, backends on `back` with their `eth1`. Either way clients may be behind a gateway (segment
//! `access`) and further backends behind a router (segment `remote`). Everybody has routes to everybody, IPv4 and IPv6.
//!
//! The VIPs (by default [`VIP_V4`] and [`VIP_V6`]) are on `lo` of every backend, which answers neither ARP nor NDP for
//! them, and the clients' route to them leads to the first load balancer. Replies go directly to the client.
//!
//! # What is taken care of
//!
//! - The far end of each load balancer interface runs an XDP program that passes everything: without one, veth loses what
//!   XDP sends.
//! - Offloads are off on every node: kernel sockets over veth leave checksums and segmentation undone otherwise.
//! - Clients send up to 1500 bytes, backends answer with at most as much, and everything else takes 1600, so that
//!   encapsulated frames fit.
//!
//! Sockets stay in the namespace they were made in, so servers and clients are plain threads of the test process;
//! only live connections by the thousand are held by processes of their own.

mod accounts;
mod assembler;
mod attached;
mod bird;
mod bpf;
mod browser;
mod builder;
mod calls;
mod capture;
mod cleanup;
mod client;
mod config;
mod counters;
mod daemon;
mod deliveries;
mod etcd;
mod flood;
mod fragments;
mod http;
mod http_load;
mod icmp;
mod interrupt;
mod live;
mod mode;
mod namespace;
mod nginx;
mod node;
mod packet_socket;
mod plan;
mod privilege;
mod process;
pub mod programs;
mod root;
mod stop;
mod tcp;
mod terminal;
mod udp;
mod wait;
mod watchpoint;
mod wiring;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;

pub use accounts::Accounts;
pub use assembler::{Assembler, Instruction, Register, Width};
pub use attached::{Attached, Passage, XdpProgram};
pub use bird::{Bird, next_hops};
pub use bpf::{Kind, Program};
pub use browser::{Browser, Screen};
pub use builder::Builder;
pub use calls::{Call, Calls, Fault};
pub use capture::{Capture, Frame};
pub use client::{connect, exchange};
pub use config::Service;
pub use counters::Counters;
pub use daemon::{Daemon, DaemonFiles, binary};
pub use deliveries::{Deliveries, Delivery};
pub use etcd::Etcd;
pub use flood::Flood;
pub use fragments::fragments;
pub use http::{Behaviour, HttpServer, Reply, http_get};
pub use http_load::{HttpLoad, Sample, Settings as HttpLoadSettings};
pub use icmp::{Icmp, IcmpListener, Quoted};
pub use interrupt::interrupt_cleans_up;
pub use live::{LiveClients, LiveServers, Loss, NOBODY, Order, Report, Served};
pub use mode::Mode;
pub use namespace::Namespace;
pub use nginx::Nginx;
pub use node::Node;
pub use plan::{Leg, Prefix, Role, Segment};
pub use privilege::{BPFFS, SKIP_FILE_VARIABLE, is_root, skip};
pub use process::{ChildGuard, Output};
pub use root::Root;
pub use tcp::{CustomServer, TcpServer};
pub use terminal::Terminal;
pub use udp::{UdpReport, UdpRun, UdpServer, UdpTraffic};
pub use wait::{let_pass, try_all, try_wait_for, try_wait_until, wait_for, wait_until};
pub use watchpoint::Watchpoint;

pub use crate::require_root;

/// The VIPs of a lab that was not given others.
pub const VIP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// See [`VIP_V4`].
pub const VIP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

/// A running lab. Dropping it ends every process in it and removes all of it, also while a panic unwinds.
#[derive(Debug)]
pub struct Lab {
    place: cleanup::Place,
    switch: Option<Namespace>,
    nodes: Vec<Node>,
    vips: Vec<IpAddr>,
    kept: bool,
}

impl Lab {
    /// Describes a lab: one client, one load balancer and two backends on one segment, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Removes what is left of labs whose process is gone. Building a lab does so too.
    pub fn sweep_stale() -> Result<()> {
        cleanup::sweep_stale()
    }

    /// Removes the lab that [`Lab::keep`] left behind under this name.
    pub fn remove_kept(name: &str) -> Result<()> {
        cleanup::Place::named(name)?.tear_down()
    }

    /// What the names of all its namespaces begin with: `bl-PID-NUMBER`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// Client number `index`.
    ///
    /// # Panics
    ///
    /// As all of these: if there is none, saying what there is.
    #[must_use]
    pub fn client(&self, index: usize) -> &Node {
        self.nth(Role::Client, index)
    }

    /// Load balancer number `index`.
    #[must_use]
    pub fn balancer(&self, index: usize) -> &Node {
        self.nth(Role::Balancer, index)
    }

    /// Backend number `index`; remote ones are counted on after the others.
    #[must_use]
    pub fn backend(&self, index: usize) -> &Node {
        self.nth(Role::Backend, index)
    }

    /// What forwards between clients and load balancers, if they were put behind a gateway.
    #[must_use]
    pub fn gateway(&self) -> &Node {
        self.nth(Role::Gateway, 0)
    }

    /// What forwards to the remote backends, if there are any.
    #[must_use]
    pub fn router(&self) -> &Node {
        self.nth(Role::Router, 0)
    }

    /// Every client.
    pub fn clients(&self) -> impl Iterator<Item = &Node> {
        self.of(Role::Client)
    }

    /// Every load balancer.
    pub fn balancers(&self) -> impl Iterator<Item = &Node> {
        self.of(Role::Balancer)
    }

    /// Every backend, remote ones last.
    pub fn backends(&self) -> impl Iterator<Item = &Node> {
        self.of(Role::Backend)
    }

    /// Every node.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The namespace of the bridges.
    ///
    /// # Panics
    ///
    /// Never for a lab that was built.
    #[must_use]
    pub fn switch(&self) -> &Namespace {
        self.switch.as_ref().expect("a lab that was built has a switch")
    }

    /// The VIPs.
    #[must_use]
    pub fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// A directory for the lab's own files, removed with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.place.directory()
    }

    /// The lab's directory in bpffs, removed with it (what is pinned there is thereby detached).
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.place.pins().to_path_buf()
    }

    /// Leaves the namespaces and files behind for [`Lab::remove_kept`]; returns its name.
    ///
    /// Servers that are threads of this process end with it all the same.
    pub fn keep(mut self) -> Result<String> {
        self.place.mark_kept()?;
        self.kept = true;
        Ok(self.place.name().to_owned())
    }

    /// Who is where: a line for each node, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut lines = String::new();
        for node in &self.nodes {
            lines += &format!("{:<10} {}\n", node.label(), node.path().display());
            for leg in node.legs() {
                let (segment, mac) = (leg.segment.bridge(), leg.mac_text());
                lines += &format!(
                    "    {} on {segment:<7} {:<12} {:<14} {mac}\n",
                    leg.interface, leg.ipv4, leg.ipv6
                );
            }
        }
        lines
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role() == role)
    }

    fn nth(&self, role: Role, index: usize) -> &Node {
        let found = self.of(role).nth(index);
        found
            .unwrap_or_else(|| panic!("no {role}{index}: the lab has {} of that role", self.of(role).count()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Dropping must not panic, and there is nobody to hand the error to.
        if let Err(error) = self.place.tear_down() {
            eprintln!("lab: {}: {error:#}", self.place.name());
        }
    }
}
