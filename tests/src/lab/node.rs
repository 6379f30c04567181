//! A machine of the lab: a namespace with its place in the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::bpf::{Kind, Program};
use super::capture::Capture;
use super::namespace::Namespace;
use super::plan::{Leg, PlannedNode, Role, Segment, source_v4, source_v6};
use super::programs;

/// A machine of the lab. All that a [`Namespace`] can do, it can.
#[derive(Debug, Clone)]
pub struct Node {
    pub(super) plan: PlannedNode,
    pub(super) namespace: Namespace,
    /// Where the other ends of its veth pairs are.
    pub(super) switch: Namespace,
    /// VIPs it has on lo.
    pub(super) vips: Vec<IpAddr>,
    /// The lab's directory in bpffs.
    pub(super) pins: std::path::PathBuf,
}

impl Deref for Node {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Node {
    /// `client0`, `lb0`, `backend0`, `gateway0`, `router0`.
    #[must_use]
    pub fn label(&self) -> String {
        self.plan.name()
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.plan.role
    }

    /// Its interfaces; `eth0` first.
    #[must_use]
    pub fn legs(&self) -> &[Leg] {
        &self.plan.legs
    }

    /// Its place on a segment.
    ///
    /// # Panics
    ///
    /// If it is not on that segment.
    #[must_use]
    pub fn leg(&self, segment: Segment) -> &Leg {
        let found = self.plan.legs.iter().find(|leg| leg.segment == segment);
        found.unwrap_or_else(|| panic!("{} is not on the segment {}", self.label(), segment.bridge()))
    }

    /// Its first interface's place; every node has one.
    #[must_use]
    pub fn first_leg(&self) -> &Leg {
        self.plan.legs.first().expect("a node is planned with a leg")
    }

    /// The IPv4 address of its first interface.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.first_leg().ipv4
    }

    /// The IPv6 address of its first interface.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        self.first_leg().ipv6
    }

    /// The address of its first interface of the family of `like`.
    #[must_use]
    pub fn address(&self, like: IpAddr) -> IpAddr {
        self.first_leg().address(like)
    }

    /// Every address that its services answer on: its interfaces' and its VIPs.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let legs = self.plan.legs.iter().flat_map(|leg| [leg.ipv4.into(), leg.ipv6.into()]);
        legs.chain(self.vips.iter().copied()).collect()
    }

    /// Number `number` of the 65,536 IPv4 addresses (and as many IPv6 ones) that a client has beside its own, as a
    /// source for a socket; every other node knows the way back. The family is that of `like`.
    ///
    /// # Panics
    ///
    /// If this is not a client.
    #[must_use]
    pub fn source(&self, number: u16, like: IpAddr) -> IpAddr {
        assert_eq!(self.role(), Role::Client, "only clients have many addresses, {} has not", self.label());
        if like.is_ipv4() {
            source_v4(self.plan.index, number).into()
        } else {
            source_v6(self.plan.index, number).into()
        }
    }

    /// [`Node::source`] with a port; 0 lets the kernel choose.
    #[must_use]
    pub fn source_port(&self, number: u16, port: u16, like: IpAddr) -> SocketAddr {
        SocketAddr::new(self.source(number, like), port)
    }

    /// Captures what passes an interface of this node, as its kernel sees it.
    ///
    /// Frames that an XDP program took or sent are not seen here: for a load balancer use [`Node::capture_leg`].
    pub fn capture(&self, interface: &str) -> Result<Capture> {
        Capture::start(&self.namespace, interface)
    }

    /// Captures what passes the leg on `segment`, both ways, at its far end: all that a load balancer gets and sends.
    /// There a frame *to* the node is outgoing.
    pub fn capture_leg(&self, segment: Segment) -> Result<Capture> {
        Capture::start(&self.switch, &self.leg(segment).port)
    }

    /// Lets the route to `vip` lead to `balancer`, as a client's does from the start to the first one.
    pub fn route_vip_to(&self, vip: IpAddr, balancer: &Node) -> Result<()> {
        let segment = self
            .legs()
            .iter()
            .map(|leg| leg.segment)
            .find(|segment| balancer.legs().iter().any(|leg| leg.segment == *segment));
        let Some(segment) = segment else {
            bail!("{} and {} share no segment", self.label(), balancer.label());
        };
        let line = format!("route replace {vip} via {}", balancer.leg(segment).address(vip));
        self.ip("lead the route to a VIP to another load balancer", [line])
    }

    /// Attaches an XDP program in native mode to an interface of this node. It stays until the interface goes or
    /// [`Node::detach_xdp`]. This is for proving things about the lab; Ballast brings its own.
    pub fn attach_xdp(&self, interface: &str, program: &[super::assembler::Instruction]) -> Result<()> {
        let program = Program::load(Kind::Xdp, "lab_xdp", program)?;
        let pin = self.pins.join(format!("{}-{interface}-xdp", self.label()));
        attach_pinned(&self.namespace, interface, &program, &pin)
    }

    /// Detaches what [`Node::attach_xdp`] attached.
    pub fn detach_xdp(&self, interface: &str) -> Result<()> {
        self.ip("detach an XDP program", [format!("link set dev {interface} xdpdrv off")])
    }

    /// Lets this backend take the outer header off IPIP and GUE packets of any two families that arrive at any
    /// interface.
    pub fn decapsulate(&self) -> Result<()> {
        let program = Program::load(Kind::Classifier, "lab_decap", &programs::decapsulate())?;
        for leg in self.legs() {
            let pin = self.pins.join(format!("{}-{}-decap", self.label(), leg.interface));
            program.pin(&pin)?;
            let attached = self.tc(
                "attach the decapsulator",
                [
                    format!("qdisc add dev {} clsact", leg.interface),
                    format!(
                        "filter add dev {} ingress bpf direct-action object-pinned {}",
                        leg.interface,
                        pin.display()
                    ),
                ],
            );
            unpin(&pin)?;
            attached?;
        }
        Ok(())
    }
}

/// Attaches a program in native mode by netlink, so that it needs no process that holds it.
pub(super) fn attach_pinned(
    namespace: &Namespace,
    interface: &str,
    program: &Program,
    pin: &Path,
) -> Result<()> {
    program.pin(pin)?;
    let line = format!("link set dev {interface} xdpdrv pinned {}", pin.display());
    let attached = namespace.ip("attach an XDP program", [line]);
    unpin(pin)?;
    attached
}

/// The attachment holds the program; the name has done its work.
fn unpin(pin: &Path) -> Result<()> {
    std::fs::remove_file(pin).with_context(|| format!("remove the pin {}", pin.display()))
}
