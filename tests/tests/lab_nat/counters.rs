//! What is told of replies.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lb_tests::lab::{Daemon, Mode, UdpServer, UdpTraffic, VIP_V4, VIP_V6, require_root};
use serde_json::Value;

use crate::scene::PORT;

const DATAGRAMS: u64 = 500;
const SIZE: usize = 100;

#[test]
fn status_and_metrics_count_replies_exactly_and_agree() -> Result<()> {
    require_root!(Ok(()));
    for (mode, vip) in Mode::NAT.into_iter().flat_map(|mode| [(mode, VIP_V4), (mode, VIP_V6)]) {
        let lab = mode.lab().build()?;
        let servers = lab.backends().map(|backend| UdpServer::start(backend, &[mode.server_port(PORT)]));
        let _servers: Vec<_> = servers.collect::<Result<_>>()?;
        let to = SocketAddr::new(vip, PORT);
        let daemon = Daemon::start(&lab, 0, &mode.service("dns", to, "udp", lab.backends()).toml())?;
        let sources = (0..16).map(|number| lab.client(0).source_port(number, 4_000, vip));
        let report = UdpTraffic::new(sources, to).size(SIZE).rate(2_000).run(lab.client(0), DATAGRAMS)?;
        assert_eq!(report.answered, DATAGRAMS, "{mode} {vip}");
        daemon.accounts()?;

        // Each reply is the datagram behind `backendN|`.
        let headers = 14 + 8 + if vip.is_ipv4() { 20 } else { 40 };
        let reply = (headers + "backend0|".len() + SIZE) as u64;
        let status = daemon.status_json()?;
        let service = status.pointer("/services/0").context("a service")?;
        let told =
            |of: &Value, key: &str| of.get(key).and_then(Value::as_u64).with_context(|| format!("no {key}"));
        let replies = (told(service, "reply_packets")?, told(service, "reply_bytes")?);
        assert_eq!(replies, (DATAGRAMS, DATAGRAMS * reply), "{mode} {vip}");
        assert_eq!(told(service, "packets")?, DATAGRAMS);
        assert_eq!(told(service, "new_flows")?, 16);
        let metric = |of: &str, labels: &str| daemon.metric(&format!("ballast_{of}_total{{{labels}}}"));
        let by_service = "service=\"dns\"";
        assert_eq!(metric("service_reply_packets", by_service)?, DATAGRAMS as f64);
        assert_eq!(metric("service_reply_bytes", by_service)?, (DATAGRAMS * reply) as f64);
        for backend in service.get("backends").and_then(Value::as_array).context("backends")? {
            let name = backend.get("name").and_then(Value::as_str).context("a name")?;
            let answered = report.by_backend.get(name).copied().unwrap_or_default();
            assert_eq!(told(backend, "reply_packets")?, answered, "{mode} {vip} {name}");
            assert_eq!(told(backend, "reply_bytes")?, answered * reply);
            let labels = format!("service=\"dns\",backend=\"{name}\"");
            assert_eq!(metric("backend_reply_packets", &labels)?, answered as f64);
            assert_eq!(metric("backend_reply_bytes", &labels)?, (answered * reply) as f64);
        }
    }
    Ok(())
}
