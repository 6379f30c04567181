//! What happens in a simulation.

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Makes runs of one scenario differ.
    pub seed: u64,
    /// How long clients come, in seconds; the quiet follows.
    pub seconds: u64,
    /// Idle timeout of flows, in seconds.
    pub idle: u32,
    pub flow_entries: usize,
    /// Clients, each with one connection after the other.
    pub clients: usize,
    /// Seconds between two changes of the backends.
    pub change_every: u64,
    /// Seconds that a backend drains.
    pub drain: u64,
    /// From when to when the controller does not run.
    pub stopped: Option<(u64, u64)>,
    /// When the controller forgets what it knows.
    pub restarted: Option<u64>,
    /// Whether clients stay away, from when to when.
    pub absent: Option<(u64, u64)>,
    pub flood: Option<Flood>,
}

#[derive(Clone, Copy, Debug)]
pub struct Flood {
    pub attack: Attack,
    /// Seconds.
    pub from: u64,
    pub to: u64,
    /// Packets, or pairs of them, a second.
    pub rate: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    Syn,
    /// Segments of connections that don't exist.
    Ack,
    /// Connections whose second packet comes at once.
    TwoPackets,
    /// Resets of connections that do exist.
    Reset,
}

const BASE: Scenario = Scenario {
    name: "",
    seed: 0,
    seconds: 600,
    idle: 60,
    flow_entries: 16_384,
    clients: 800,
    change_every: 50,
    drain: 100,
    stopped: None,
    restarted: None,
    absent: None,
    flood: None,
};

/// A flood into the window of the second change and of the third.
const fn flood(attack: Attack, rate: u64) -> Option<Flood> {
    Some(Flood { attack, from: 98, to: 170, rate })
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "a change every 50 s", ..BASE },
    Scenario { name: "changes that overlap", change_every: 7, drain: 40, ..BASE },
    Scenario { name: "changes far apart", idle: 15, change_every: 50, drain: 30, ..BASE },
    Scenario { name: "a flow table far too small", flow_entries: 256, ..BASE },
    Scenario {
        name: "a flow table too small for changes that overlap",

        flow_entries: 512,
        change_every: 7,
        drain: 20,
        ..BASE
    },
    Scenario {
        name: "spoofed ACKs during a change",

        flow_entries: 2048,
        flood: flood(Attack::Ack, 500),
        ..BASE
    },
    Scenario {
        name: "connections of two packets during a change",

        flow_entries: 2048,
        flood: flood(Attack::TwoPackets, 500),
        ..BASE
    },
    Scenario { name: "SYNs during a change", flow_entries: 2048, flood: flood(Attack::Syn, 1500), ..BASE },
    Scenario { name: "resets of live connections", flood: flood(Attack::Reset, 300), ..BASE },
    Scenario {
        name: "a controller stopped for longer than the idle timeout",

        stopped: Some((103, 203)),
        ..BASE
    },
    Scenario {
        name: "a controller stopped for longer than ages can be told, and tuples used again",

        seconds: 5400,
        stopped: Some((103, 5103)),
        absent: Some((115, 5106)),
        ..BASE
    },
    Scenario { name: "a controller that restarts in a window", restarted: Some(110), ..BASE },
    Scenario {
        name: "tuples used again once their slot is steady",

        idle: 10,
        clients: 200,
        change_every: 40,
        drain: 300,
        ..BASE
    },
    Scenario { name: "backends replaced all the time", idle: 10, change_every: 5, drain: 8, ..BASE },
    Scenario {
        name: "backends replaced all the time with a table too small",

        idle: 10,
        flow_entries: 128,
        change_every: 5,
        drain: 8,
        ..BASE
    },
];
