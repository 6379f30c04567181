//! etcd, a member on each node, and what is written into it by hand.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::Lab;
use super::node::Node;
use super::process::ChildGuard;
use super::wait::wait_for;

/// For an election, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster. Its members have their data in the lab's directory.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    node: Node,
    name: String,
    directory: PathBuf,
    /// All of the cluster, as etcd wants to be told.
    cluster: String,
    scheme: &'static str,
    options: Vec<String>,
    process: Option<ChildGuard>,
}

impl Etcd {
    /// Starts a member on each of these nodes and waits until they have a leader.
    pub fn start(lab: &Lab, nodes: &[&Node]) -> Result<Self> {
        Self::start_with(lab, nodes, "http", &[])
    }

    /// With more options, and clients that talk `https`, perhaps.
    pub fn start_with(lab: &Lab, nodes: &[&Node], scheme: &'static str, options: &[String]) -> Result<Self> {
        let peer = |node: &Node| format!("{}=http://{}:2380", node.label(), node.ipv4());
        let cluster = nodes.iter().map(|node| peer(node)).collect::<Vec<_>>().join(",");
        let member = |node: &&Node| Member {
            node: (*node).clone(),
            name: node.label(),
            directory: lab.directory().join(format!("etcd-{}", node.label())),
            cluster: cluster.clone(),
            scheme,
            options: options.to_vec(),
            process: None,
        };
        let mut this = Self { members: nodes.iter().map(member).collect() };
        this.members.iter_mut().try_for_each(Member::launch)?;
        // With TLS and users it is asked by those who know how.
        if scheme == "http" {
            this.leader()?;
        }
        Ok(this)
    }

    /// As a configuration names them: `"http://10.0.2.2:2379", ...`.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let url = |member: &Member| format!("\"{}\"", member.url());
        self.members.iter().map(url).collect::<Vec<_>>().join(", ")
    }

    /// Number of the member that leads, once there is one.
    pub fn leader(&self) -> Result<usize> {
        wait_for("etcd has a leader", PATIENCE, || self.members.iter().position(Member::leads))
            .with_context(|| self.members.iter().map(Member::log).collect::<String>())
    }

    /// Ends a member with no chance to do anything about it.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.members[number].process.take().context("it does not run")?.kill()
    }

    /// Starts every member that does not run.
    pub fn revive(&mut self) -> Result<()> {
        let mut dead = self.members.iter_mut().filter(|member| member.process.is_none());
        dead.try_for_each(Member::launch)
    }

    /// Members that run.
    #[must_use]
    pub fn alive(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|number| self.members[*number].process.is_some()).collect()
    }

    /// Addresses of all.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.node.ipv4().to_string()).collect()
    }

    /// Takes a node's ways to all members from it ("add", of blackholes), or gives them back ("del").
    pub fn ways(&self, from: &Node, verb: &str) -> Result<()> {
        let addresses = self.addresses();
        let lines = addresses.iter().map(|address| format!("route {verb} blackhole {address}/32"));
        from.ip("ways to etcd", lines.collect::<Vec<_>>())
    }

    /// Writes a key, whatever is there.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let body = json!({ "key": encode(key.as_bytes()), "value": encode(value) });
        self.ask("/v3/kv/put", &body).map(drop)
    }

    /// The text under a key.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let answer = self.ask("/v3/kv/range", &json!({ "key": encode(key.as_bytes()) }))?;
        let Some(value) = answer.pointer("/kvs/0/value") else { return Ok(None) };
        let bytes = BASE64_STANDARD.decode(value.as_str().context("no text")?)?;
        Ok(Some(String::from_utf8(bytes)?))
    }

    /// Everything that begins with `/ballast/`.
    pub fn delete_all(&self) -> Result<()> {
        let body = json!({ "key": encode(b"/ballast/"), "range_end": encode(b"/ballast0") });
        self.ask("/v3/kv/deleterange", &body).map(drop)
    }

    /// Forgets the past up to now.
    pub fn compact(&self) -> Result<()> {
        let answer = self.ask("/v3/kv/range", &json!({ "key": encode(b"/") }))?;
        let revision = answer.pointer("/header/revision").context("no revision")?;
        self.ask("/v3/kv/compaction", &json!({ "revision": revision })).map(drop)
    }

    /// Whether it takes nothing more for want of room, which it says of itself.
    pub fn no_space(&self, is_full: bool) -> Result<()> {
        let action = if is_full { "ACTIVATE" } else { "DEACTIVATE" };
        let body = json!({ "action": action, "memberID": "1", "alarm": "NOSPACE" });
        let answer = self.ask("/v3/maintenance/alarm", &body)?;
        ensure!(answer.to_string().contains("NOSPACE"), "{answer}");
        Ok(())
    }

    fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let alive = self.members.iter().find(|member| member.process.is_some());
        alive.context("no member runs")?.ask(path, body)
    }
}

impl Member {
    fn url(&self) -> String {
        format!("{}://{}:2379", self.scheme, self.node.ipv4())
    }

    fn launch(&mut self) -> Result<()> {
        let (client, peer) = (self.url(), format!("http://{}:2380", self.node.ipv4()));
        fs::create_dir_all(&self.directory)?;
        let log = fs::File::options().create(true).append(true).open(self.directory.join("log"))?;
        let mut command = Command::new("etcd");
        command.args(["--name", &self.name, "--data-dir"]).arg(self.directory.join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.cluster]);
        command.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        command.args(&self.options);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(self.node.spawn(&mut command)?);
        Ok(())
    }

    fn leads(&self) -> bool {
        let status = self.process.as_ref().and_then(|_| self.ask("/v3/maintenance/status", &json!({})).ok());
        let Some(status) = status else { return false };
        let leader = status.get("leader");
        leader.is_some() && leader == status.pointer("/header/member_id")
    }

    fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let (url, body) = (format!("{}{path}", self.url()), body.to_string());
        let output = self.node.try_run("curl", ["--silent", "--max-time", "5", "--data", &body, &url])?;
        ensure!(output.status.success(), "{url} does not answer: {}", output.stderr);
        let answer: Value = serde_json::from_str(&output.stdout).with_context(|| output.stdout.clone())?;
        match answer.get("error") {
            Some(error) => bail!("{url}: {error}"),
            None => Ok(answer),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}
