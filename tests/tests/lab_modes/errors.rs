//! What ends a flow, or tells its sender that it got nowhere, reaches the right end.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Icmp, IcmpListener, Mode, Node, Segment, connect};
use socket2::SockRef;

use crate::scene::{CLOSED_TCP, CLOSED_UDP, FAMILIES, SOON, Scene, TCP, UDP};
use crate::sockets::Datagrams;

in_every_mode! {
    what_ends_a_flow_or_got_nowhere_reaches_the_right_end
}

in_both_nat_modes! {
    time_exceeded_behind_the_load_balancer_reaches_the_client
}

in_every_tunnel! {
    unreachable_behind_the_load_balancer_reaches_the_client
}

fn what_ends_a_flow_or_got_nowhere_reaches_the_right_end(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().backends(1).clients_behind_gateway())?;
    for vip in FAMILIES {
        rst_of_the_backend(&scene, vip).with_context(|| format!("{vip}: an RST of the backend"))?;
        rst_of_the_client(&scene, vip).with_context(|| format!("{vip}: an RST of the client"))?;
        port_unreachable_of_the_backend(&scene, vip)
            .with_context(|| format!("{vip}: port unreachable, from the backend"))?;
        port_unreachable_of_the_client(&scene, vip)
            .with_context(|| format!("{vip}: port unreachable, from the client"))?;
        time_exceeded_of_the_gateway(&scene, vip)
            .with_context(|| format!("{vip}: time exceeded, from the gateway"))?;
    }
    scene.daemon.accounts()?;
    Ok(())
}

/// A connection to a port where nobody listens, and one that is aborted.
fn rst_of_the_backend(scene: &Scene, vip: IpAddr) -> Result<()> {
    let client = scene.lab.client(0);
    let to = |port| SocketAddr::new(vip, port);
    let Err(error) = connect(client, Some(client.source_port(1, 0, vip)), to(CLOSED_TCP), SOON) else {
        anyhow::bail!("somebody listens there");
    };
    ensure!(kind_of(&error) == Some(ErrorKind::ConnectionRefused), "{error:#}");
    let listener = listen(scene, to(TCP))?;
    let mut stream = connect(client, Some(client.source_port(2, 0, vip)), to(TCP), SOON)?;
    let (accepted, _) = listener.accept()?;
    abort(&accepted)?;
    drop(accepted);
    let result = stream.read(&mut [0]);
    ensure!(matches!(&result, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{result:?}");
    Ok(())
}

fn rst_of_the_client(scene: &Scene, vip: IpAddr) -> Result<()> {
    let client = scene.lab.client(0);
    let to = SocketAddr::new(vip, TCP);
    let listener = listen(scene, to)?;
    let stream = connect(client, Some(client.source_port(3, 0, vip)), to, SOON)?;
    let (mut accepted, _) = listener.accept()?;
    accepted.set_read_timeout(Some(SOON))?;
    abort(&stream)?;
    drop(stream);
    let result = accepted.read(&mut [0]);
    ensure!(matches!(&result, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{result:?}");
    Ok(())
}

/// To a port where nobody serves.
fn port_unreachable_of_the_backend(scene: &Scene, vip: IpAddr) -> Result<()> {
    let (client, to) = (scene.lab.client(0), SocketAddr::new(vip, CLOSED_UDP));
    let icmp = IcmpListener::start(client, vip)?;
    let socket = Datagrams::bind(client, client.source_port(4, 0, vip))?;
    socket.connect(to)?;
    socket.send("is anybody there?")?;
    // It is the socket's own only if it quotes its addresses and ports.
    let error = socket.wait_for_error("an error of the client's socket", SOON)?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    let heard = icmp.wait_for("port unreachable", SOON, Icmp::is_port_unreachable)?;
    ensure!(heard.from == vip, "the client is told by {}, which it does not know", heard.from);
    Ok(())
}

/// To a client that is gone.
fn port_unreachable_of_the_client(scene: &Scene, vip: IpAddr) -> Result<()> {
    let relayed = scene.counted(|counters| counters.errors_relayed)?;
    let Met { server, client } = Met::new(scene, vip)?;
    drop(client);
    server.send("too late")?;
    let error = server.wait_for_error("an error of the backend's socket", SOON)?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    ensure!(scene.counted(|counters| counters.errors_relayed)? == relayed + 1, "it is counted");
    Ok(())
}

/// About a reply of the backend that dies there; the gateway tells the VIP.
fn time_exceeded_of_the_gateway(scene: &Scene, vip: IpAddr) -> Result<()> {
    let Met { server, client } = Met::new(scene, vip)?;
    let backend = scene.lab.backend(0);
    let icmp = IcmpListener::start(backend, vip)?;
    // Replies through the load balancer have a hop more.
    server.set_ttl(if scene.mode.translates() { 2 } else { 1 })?;
    server.send("not very far")?;
    let heard = icmp.wait_for("time exceeded", SOON, Icmp::is_time_exceeded)?;
    ensure!(scene.lab.gateway().addresses().contains(&heard.from), "from {}", heard.from);
    let quoted = heard.quoted().context("it quotes nothing")?;
    let served_at = scene.mode.served_at(backend, SocketAddr::new(vip, UDP));
    ensure!(quoted.source == served_at, "it quotes a packet of {}", quoted.source);
    // Nothing has happened to the flow.
    client.send("still there?")?;
    ensure!(server.receive()?.0 == "still there?", "another datagram");
    Ok(())
}

/// The client's packet dies at a router behind the load balancer.
fn time_exceeded_behind_the_load_balancer_reaches_the_client(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().two_armed().backends(0).remote_backends(1))?;
    for vip in FAMILIES {
        let what = || vip.to_string();
        let (client, to) = (scene.lab.client(0), SocketAddr::new(vip, UDP));
        let icmp = IcmpListener::start(client, vip)?;
        let socket = Datagrams::bind(client, client.source_port(1, 0, vip))?;
        socket.connect(to)?;
        socket.set_ttl(2)?;
        socket.send("not very far")?;
        let heard = icmp.wait_for("time exceeded", SOON, Icmp::is_time_exceeded).with_context(what)?;
        assert!(scene.lab.router().addresses().contains(&heard.from), "{vip}: {}", heard.from);
        let quoted = heard.quoted().with_context(what)?;
        assert_eq!((quoted.source, quoted.destination), (socket.local_addr()?, to), "{vip}");
    }
    scene.daemon.accounts()?;
    Ok(())
}

/// The router behind the load balancer has nobody to hand the outer packet to.
fn unreachable_behind_the_load_balancer_reaches_the_client(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().two_armed().backends(0).remote_backends(1))?;
    let backend: &Node = scene.lab.backend(0);
    backend.ip("cut a backend off", [format!("link set {} down", backend.first_leg().interface)])?;
    // It asks for the backend once, and gives up after a fifth of a second instead of three.
    let router = scene.lab.router();
    for family in ["ipv4", "ipv6"] {
        for (key, value) in [("mcast_solicit", "1"), ("retrans_time_ms", "200")] {
            let interface = &router.leg(Segment::Remote).interface;
            router.sysctl(&format!("net.{family}.neigh.{interface}.{key}"), value)?;
        }
    }
    for vip in FAMILIES {
        let what = || vip.to_string();
        let (client, to) = (scene.lab.client(0), SocketAddr::new(vip, UDP));
        let icmp = IcmpListener::start(client, vip)?;
        let socket = Datagrams::bind(client, client.source_port(1, 0, vip))?;
        socket.connect(to)?;
        socket.send("is anybody there?")?;
        let host_unreachable = if vip.is_ipv4() { (3, 1) } else { (1, 3) };
        let heard = icmp
            .wait_for("host unreachable", SOON, |icmp| (icmp.kind, icmp.code) == host_unreachable)
            .with_context(what)?;
        let quoted = heard.quoted().with_context(what)?;
        assert_eq!(
            (heard.from, quoted.source, quoted.destination),
            (vip, socket.local_addr()?, to),
            "{mode}"
        );
    }
    Ok(())
}

/// A client and a backend that have each had a datagram of the other.
struct Met {
    server: Datagrams,
    client: Datagrams,
}

impl Met {
    fn new(scene: &Scene, vip: IpAddr) -> Result<Self> {
        let (lab, to) = (&scene.lab, SocketAddr::new(vip, UDP));
        let client = Datagrams::bind(lab.client(0), lab.client(0).source_port(5, 0, vip))?;
        client.connect(to)?;
        let server = Datagrams::bind(lab.backend(0), scene.mode.served_at(lab.backend(0), to))?;
        client.send("hello")?;
        let (_, peer) = server.receive()?;
        server.connect(peer)?;
        server.send("hello yourself")?;
        let (answer, from) = client.receive()?;
        ensure!((answer.as_str(), from) == ("hello yourself", to), "{from} said {answer}");
        Ok(Self { server, client })
    }
}

/// Closing it will reset it.
fn abort(stream: &TcpStream) -> Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).context("set SO_LINGER")
}

/// Where the backend serves what was sent to `to`.
fn listen(scene: &Scene, to: SocketAddr) -> Result<TcpListener> {
    let backend = scene.lab.backend(0);
    let at = scene.mode.served_at(backend, to);
    backend.enter(|| TcpListener::bind(at).with_context(|| format!("listen on {at}")))
}

fn kind_of(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}
