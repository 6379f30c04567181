//! Frames for other machines: a switch floods what it does not know the way of, and every load balancer sees it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Lab, Node, Service, TcpServer, VIP_V4, VIP_V6, connect, exchange, require_root, wait_until,
};

const SOON: Duration = Duration::from_secs(5);
const PORT: u16 = 80;
const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];

fn services(lab: &Lab, forwarding: &str) -> String {
    let service = |(name, vip)| {
        let address = SocketAddr::new(vip, PORT);
        Service::new(name, address, "tcp", forwarding).nodes(lab.backends(), address).toml()
    };
    ["web4", "web6"].into_iter().zip(FAMILIES).map(service).collect()
}

/// Two load balancers of the same VIPs, of which clients use the first, on a switch that floods everything.
fn flooded() -> Result<Lab> {
    let lab = Lab::builder().balancers(2).build()?;
    lab.switch().ip("learn nothing", ["link set front type bridge ageing_time 0".to_owned()])?;
    Ok(lab)
}

fn is_served(lab: &Lab, number: u16, vip: IpAddr) -> Result<()> {
    let client = lab.client(0);
    let stream = connect(client, Some(client.source_port(number, 0, vip)), SocketAddr::new(vip, PORT), SOON)?;
    exchange(&stream, 64 << 10)
}

fn transmitted(daemon: &Daemon) -> Result<u64> {
    let status = daemon.status_json()?;
    status["verdicts"]["tx"].as_u64().context("a number")
}

fn own_macs(daemon: &Daemon) -> Vec<String> {
    let status = daemon.status_json().unwrap_or_default();
    let macs = status["own_macs"].as_array().cloned().unwrap_or_default();
    macs.iter().filter_map(|mac| Some(mac.as_str()?.to_owned())).collect()
}

fn mac(node: &Node) -> String {
    node.first_leg().mac_text()
}

#[test]
fn what_a_switch_floods_is_forwarded_by_none_but_the_one_it_is_for() -> Result<()> {
    require_root!(Ok(()));
    for mode in ["l2-dsr", "nat"] {
        let lab = flooded()?;
        let _servers: Vec<_> =
            lab.backends().map(|backend| TcpServer::start(backend, &[PORT])).collect::<Result<_>>()?;
        let daemons =
            [Daemon::start(&lab, 0, &services(&lab, mode))?, Daemon::start(&lab, 1, &services(&lab, mode))?];
        for (number, daemon) in daemons.iter().enumerate() {
            // They are told of a moment after the daemon is ready.
            let own = mac(lab.balancer(number));
            wait_until("its address is known", SOON, || own_macs(daemon) == [own.as_str()])
                .with_context(|| format!("{mode}: {own}, {:?}", own_macs(daemon)))?;
        }
        for vip in FAMILIES {
            (0..16).try_for_each(|number| is_served(&lab, number, vip)).with_context(|| mode.to_owned())?;
        }
        let accounts = daemons[1].accounts()?;
        assert_eq!(accounts.verdict("tx"), 0, "{mode}: the other one forwarded, too");
        assert!(accounts.verdict("pass") > 1_000, "{mode}: nothing was flooded");
        assert!(transmitted(&daemons[0])? > 1_000, "{mode}");
    }
    Ok(())
}

/// What it would be like, and that a host which needs it can have it.
#[test]
fn with_any_destination_mac_flooded_frames_are_forwarded_twice() -> Result<()> {
    require_root!(Ok(()));
    let lab = flooded()?;
    let _servers: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &[PORT])).collect::<Result<_>>()?;
    let _first = Daemon::start(&lab, 0, &services(&lab, "l2-dsr"))?;
    let config = format!(
        "[daemon]\ninterfaces = {{interfaces}}\nstate_dir = \"{{state_dir}}\"\npin_dir = \"{{pin_dir}}\"\n\
         socket = \"{{socket}}\"\ndestination_mac = \"any\"\n\n{}",
        services(&lab, "l2-dsr")
    );
    let second = Daemon::start(&lab, 1, &config)?;
    assert!(second.status_json()?["own_macs"].is_null());
    // Each has a key of its own, so they may well choose different backends, of which one knows nothing of the connection.
    let _ = is_served(&lab, 0, VIP_V4);
    assert!(transmitted(&second)? > 0);
    Ok(())
}

#[test]
fn a_new_mac_address_and_a_virtual_one_are_taken_at_once_and_over_a_restart() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _servers: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &[PORT])).collect::<Result<_>>()?;
    let mut daemon = Daemon::start(&lab, 0, &services(&lab, "l2-dsr"))?;
    let (balancer, client) = (lab.balancer(0), lab.client(0));
    let (interface, own) = (balancer.first_leg().interface.clone(), mac(balancer));
    let send_to = |mac: &str| {
        let port = &client.first_leg().interface;
        let line = |vip| {
            let address = balancer.address(vip);
            format!("neighbour replace {address} lladdr {mac} dev {port} nud permanent")
        };
        client.ip("send to another address", FAMILIES.map(line))
    };
    // As keepalived makes one for a VRRP instance.
    let vrrp = "00:00:5e:00:01:33";
    balancer.ip(
        "make a virtual router",
        [format!("link add vrrp.51 link {interface} address {vrrp} type macvlan mode private")],
    )?;
    wait_until("the virtual address is known", SOON, || own_macs(&daemon) == [vrrp, &own])?;
    send_to(vrrp)?;
    FAMILIES.into_iter().try_for_each(|vip| is_served(&lab, 1, vip)).context("to the virtual address")?;

    daemon.kill9()?;
    FAMILIES.into_iter().try_for_each(|vip| is_served(&lab, 2, vip)).context("without a daemon")?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    wait_until("it knows its addresses again", SOON, || own_macs(&daemon) == [vrrp, &own])?;
    FAMILIES.into_iter().try_for_each(|vip| is_served(&lab, 3, vip)).context("after a restart")?;

    let new = "02:00:00:12:34:56";
    balancer.ip(
        "another address, and no virtual one",
        ["link del vrrp.51".to_owned(), format!("link set {interface} address {new}")],
    )?;
    wait_until("the new address is known", SOON, || own_macs(&daemon) == [new])?;
    send_to(new)?;
    FAMILIES.into_iter().try_for_each(|vip| is_served(&lab, 4, vip)).context("to the new address")?;
    send_to(&own)?;
    let before = transmitted(&daemon)?;
    ensure!(is_served(&lab, 5, VIP_V4).is_err(), "frames for an address that is nobody's any more");
    assert_eq!(transmitted(&daemon)?, before);
    Ok(())
}
