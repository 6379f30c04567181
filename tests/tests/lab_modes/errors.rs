//! What ends a flow, or tells its sender that it got nowhere, reaches the right end.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Icmp, IcmpListener, Mode, Node, connect};
use socket2::SockRef;

use crate::scene::{CLOSED_TCP, CLOSED_UDP, FAMILIES, SOON, Scene, TCP, UDP};
use crate::sockets::Datagrams;

in_every_mode! {
    an_rst_of_the_backend_and_of_the_client_reaches_the_other
    port_unreachable_of_the_backend_reaches_the_client
    port_unreachable_of_the_client_reaches_the_backend
    time_exceeded_on_the_way_to_the_client_reaches_the_backend
}

in_both_nat_modes! {
    time_exceeded_behind_the_load_balancer_reaches_the_client
}

in_every_tunnel! {
    unreachable_behind_the_load_balancer_reaches_the_client
}

fn an_rst_of_the_backend_and_of_the_client_reaches_the_other(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().backends(1))?;
    for vip in FAMILIES {
        from_backend_tcp(&scene, vip).with_context(|| format!("{vip}: the backend's"))?;
        from_client_tcp(&scene, vip).with_context(|| format!("{vip}: the client's"))?;
    }
    scene.daemon.accounts()?;
    Ok(())
}

/// A connection to a port where nobody listens, and one that is aborted.
fn from_backend_tcp(scene: &Scene, vip: IpAddr) -> Result<()> {
    let client = scene.lab.client(0);
    let to = |port| SocketAddr::new(vip, port);
    let Err(error) = connect(client, Some(client.source_port(1, 0, vip)), to(CLOSED_TCP), SOON) else {
        anyhow::bail!("somebody listens there");
    };
    ensure!(kind_of(&error) == Some(ErrorKind::ConnectionRefused), "{error:#}");
    let listener = listen(scene, to(TCP))?;
    let mut stream = connect(client, Some(client.source_port(2, 0, vip)), to(TCP), SOON)?;
    let (accepted, _) = listener.accept()?;
    SockRef::from(&accepted).set_linger(Some(std::time::Duration::ZERO))?;
    drop(accepted);
    let result = stream.read(&mut [0]);
    ensure!(matches!(&result, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{result:?}");
    Ok(())
}

fn from_client_tcp(scene: &Scene, vip: IpAddr) -> Result<()> {
    let client = scene.lab.client(0);
    let to = SocketAddr::new(vip, TCP);
    let listener = listen(scene, to)?;
    let stream = connect(client, Some(client.source_port(3, 0, vip)), to, SOON)?;
    let (mut accepted, _) = listener.accept()?;
    accepted.set_read_timeout(Some(SOON))?;
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
    drop(stream);
    let result = accepted.read(&mut [0]);
    ensure!(matches!(&result, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{result:?}");
    Ok(())
}

fn port_unreachable_of_the_backend_reaches_the_client(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().backends(1))?;
    for vip in FAMILIES {
        let what = || vip.to_string();
        let (client, to) = (scene.lab.client(0), SocketAddr::new(vip, CLOSED_UDP));
        let icmp = IcmpListener::start(client, vip)?;
        let socket = Datagrams::bind(client, client.source_port(1, 0, vip))?;
        socket.connect(to)?;
        socket.send("is anybody there?")?;
        // It is the socket's own only if it quotes its addresses and ports.
        let error = socket.wait_for_error("port unreachable", SOON).with_context(what)?;
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{vip}");
        let heard = icmp.wait_for("port unreachable", SOON, Icmp::is_port_unreachable).with_context(what)?;
        assert_eq!(heard.from, vip, "{vip}: the client is told of an address it does not know");
    }
    scene.daemon.accounts()?;
    Ok(())
}

fn port_unreachable_of_the_client_reaches_the_backend(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab())?;
    for vip in FAMILIES {
        let what = || vip.to_string();
        let Met { server, client, backend: _ } = Met::new(&scene, vip).with_context(what)?;
        drop(client);
        server.send("too late")?;
        let error = server.wait_for_error("port unreachable", SOON).with_context(what)?;
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{vip}");
    }
    assert_eq!(scene.counted(|counters| counters.errors_relayed)?, 2);
    scene.daemon.accounts()?;
    Ok(())
}

/// The backend's reply dies at the gateway, which tells the VIP.
fn time_exceeded_on_the_way_to_the_client_reaches_the_backend(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().clients_behind_gateway())?;
    for vip in FAMILIES {
        let what = || vip.to_string();
        let met = Met::new(&scene, vip).with_context(what)?;
        let backend = scene.lab.backend(met.backend);
        let icmp = IcmpListener::start(backend, vip)?;
        // Replies through the load balancer have a hop more.
        met.server.set_ttl(if mode.translates() { 2 } else { 1 })?;
        met.server.send("not very far")?;
        let heard = icmp.wait_for("time exceeded", SOON, Icmp::is_time_exceeded).with_context(what)?;
        assert!(scene.lab.gateway().addresses().contains(&heard.from), "{vip}: {}", heard.from);
        let quoted = heard.quoted().with_context(what)?;
        let served_at = mode.served_at(backend, SocketAddr::new(vip, UDP));
        assert_eq!(quoted.source, served_at, "{vip}: whose packet that was");
        // Nothing has happened to the flow.
        met.client.send("still there?")?;
        assert_eq!(met.server.receive().with_context(what)?.0, "still there?");
    }
    scene.daemon.accounts()?;
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
    backend: usize,
}

impl Met {
    fn new(scene: &Scene, vip: IpAddr) -> Result<Self> {
        let (lab, to) = (&scene.lab, SocketAddr::new(vip, UDP));
        let client = Datagrams::bind(lab.client(0), lab.client(0).source_port(5, 0, vip))?;
        client.connect(to)?;
        let servers =
            lab.backends().map(|backend| Datagrams::bind(backend, scene.mode.served_at(backend, to)));
        let servers: Vec<_> = servers.collect::<Result<_>>()?;
        client.send("hello")?;
        let (backend, server, peer) = Datagrams::first_of(servers)?;
        server.connect(peer)?;
        server.send("hello yourself")?;
        let (answer, from) = client.receive()?;
        ensure!((answer.as_str(), from) == ("hello yourself", to), "{from} said {answer}");
        Ok(Self { server, client, backend })
    }
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
