//! Whether every packet is accounted for: what the daemon says of verdicts, by either way, against the driver.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_common::abi::{ABI_VERSION, Counters, names};
use serde_json::Value;
use zerocopy::FromBytes as _;

use super::bpf::first_value;
use super::daemon::Daemon;

/// What became of all packets, as `ballast status` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Packets received.
    pub packets: u64,
    /// `tx`, `redirect`, `pass`, `drop`.
    pub verdicts: BTreeMap<String, u64>,
    /// By reason.
    pub drops: BTreeMap<String, u64>,
}

impl Accounts {
    /// From `status -o json`.
    pub fn from_status(status: &Value) -> Result<Self> {
        let map = |key: &str| -> Result<BTreeMap<String, u64>> {
            let object = status.get(key).and_then(Value::as_object).with_context(|| format!("no {key}"))?;
            let number = |value: &Value| value.as_u64().with_context(|| format!("{key} holds {value}"));
            object.iter().map(|(name, value)| Ok((name.clone(), number(value)?))).collect()
        };
        let packets = status.get("packets").and_then(Value::as_u64).context("no packets")?;
        Ok(Self { packets, verdicts: map("verdicts")?, drops: map("drops")? })
    }

    /// From `/metrics`.
    pub fn from_metrics(text: &str) -> Result<Self> {
        let mut accounts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((sample, value)) = line.rsplit_once(' ') else { continue };
            let value = || value.parse::<f64>().map(|value| value as u64).with_context(|| line.to_owned());
            let label = |prefix: &str| sample.strip_prefix(prefix)?.strip_suffix("\"}").map(str::to_owned);
            if sample == "ballast_packets_received_total" {
                accounts.packets = value()?;
            } else if let Some(verdict) = label("ballast_packets_total{verdict=\"") {
                accounts.verdicts.insert(verdict, value()?);
            } else if let Some(reason) = label("ballast_drops_total{reason=\"") {
                accounts.drops.insert(reason, value()?);
            }
        }
        Ok(accounts)
    }

    /// Number of packets with this verdict.
    #[must_use]
    pub fn verdict(&self, verdict: &str) -> u64 {
        self.verdicts.get(verdict).copied().unwrap_or_default()
    }

    /// Number of packets dropped for this reason.
    #[must_use]
    pub fn drop(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or_default()
    }

    fn balance(&self) -> Result<()> {
        let verdicts: u64 = self.verdicts.values().sum();
        let drops: u64 = self.drops.values().sum();
        ensure!(
            self.packets == verdicts,
            "{} packets, {verdicts} verdicts: {:?}",
            self.packets,
            self.verdicts
        );
        ensure!(self.verdict("drop") == drops, "{} dropped, reasons {:?}", self.verdict("drop"), self.drops);
        Ok(())
    }
}

impl Daemon {
    /// Waits until traffic has stopped, and fails unless `status`, `/metrics` and the veth driver then tell the same
    /// story and no packet is missing in it.
    pub fn accounts(&self) -> Result<Accounts> {
        let deadline = Instant::now() + SETTLE;
        loop {
            match self.compare() {
                Ok(accounts) => return Ok(accounts),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// What the program counted on each CPU, from its pinned map: there whether or not a daemon runs.
    pub fn counters_by_cpu(&self) -> Result<Vec<Counters>> {
        let pin = self.files().pin_dir.join(format!("abi-{ABI_VERSION}")).join(names::COUNTERS);
        let bytes = first_value(&pin, size_of::<Counters>())?;
        let values = bytes.chunks_exact(size_of::<Counters>());
        values
            .map(|one| Counters::read_from_bytes(one).ok().context("a value is as long as asked for"))
            .collect()
    }

    fn compare(&self) -> Result<Accounts> {
        let before = self.driver()?;
        let status = Accounts::from_status(&self.status_json()?)?;
        let metrics = Accounts::from_metrics(&self.metrics()?)?;
        let after = self.driver()?;
        ensure!(before == after, "packets are still arriving");
        ensure!(status == metrics, "status says {status:?}, /metrics says {metrics:?}");
        status.balance()?;
        let [received, dropped, transmitted, redirected, failed] = after;
        ensure!(failed <= transmitted / FULL, "the driver failed to send {failed} packets after our verdict");
        ensure!(
            [status.packets, status.verdict("drop"), status.verdict("tx"), status.verdict("redirect")]
                == [received, dropped, transmitted + failed, redirected],
            "the driver counted {received} received, {dropped} dropped, {transmitted} sent back, {failed} not sent \
             back, {redirected} redirected; Ballast {status:?}"
        );
        Ok(status)
    }

    /// Received, dropped, sent back, redirected and failed, over all interfaces that run the program.
    fn driver(&self) -> Result<[u64; 5]> {
        let mut sums = [0; 5];
        let status = self.status_json()?;
        let interfaces = status.get("interfaces").and_then(Value::as_array).context("no interfaces")?;
        for name in interfaces.iter().filter_map(|interface| interface.get("name")?.as_str()) {
            let counters = self.node().counters(name)?;
            let names =
                ["rx_xdp_packets", "rx_xdp_drops", "rx_xdp_tx", "rx_xdp_redirect", "rx_xdp_tx_errors"];
            for (sum, name) in sums.iter_mut().zip(names) {
                *sum += counters.get(name).with_context(|| format!("the driver does not count {name}"))?;
            }
        }
        Ok(sums)
    }
}

/// One packet in so many may find veth's queue of 256 full, where a busy machine has no time for who reads it.
const FULL: u64 = 10_000;
/// For the last packets to arrive.
const SETTLE: Duration = Duration::from_secs(5);
