//! From when on somebody should look at a table that fills.

/// A table of flows, by how full it may be before that is an alarm. The alert rules in `packaging/prometheus` say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// The flow table: some of its buckets have no room long before all are full.
    Flows,
    /// NAT's, which takes flows until it is full.
    Nat,
}

impl Filling {
    /// Per cent of the entries in use.
    pub const fn alarm_from(self) -> u64 {
        match self {
            Self::Flows => 50,
            Self::Nat => 80,
        }
    }

    /// Whether so many entries are to be told of.
    pub fn is_alarming(self, entries: u64, capacity: u64) -> bool {
        let part = u128::from(capacity) * u128::from(self.alarm_from());
        capacity > 0 && u128::from(entries) * 100 >= part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fills_from_its_alarm_on_and_one_that_is_not_there_never() {
        for (table, capacity, from) in [
            (Filling::Flows, 1000, 500),
            (Filling::Nat, 1000, 800),
            (Filling::Flows, 7, 4),
            (Filling::Nat, 1, 1),
        ] {
            assert!(!table.is_alarming(from - 1, capacity), "{table:?}");
            assert!(table.is_alarming(from, capacity), "{table:?}");
        }
        assert!(!Filling::Flows.is_alarming(0, 0));
        assert!(Filling::Nat.is_alarming(u64::MAX, u64::MAX));
    }

    #[test]
    fn the_alert_rules_and_the_documentation_say_the_same() {
        let rules = include_str!("../../../packaging/prometheus/ballast.rules.yml");
        let metrics = include_str!("../../../docs/metrics.md");
        for (table, entries, capacity) in [
            (Filling::Flows, "ballast_flow_table_entries", "ballast_flow_table_capacity"),
            (Filling::Nat, "ballast_nat_flows", "ballast_nat_flows_capacity"),
        ] {
            let from = table.alarm_from();
            let rule = format!("expr: {entries} / {capacity} >= 0.{}\n", from / 10);
            assert!(rules.contains(&rule), "{rule}");
            let row = metrics.lines().find(|line| line.starts_with(&format!("| `{capacity}`")));
            assert!(row.is_some_and(|row| row.contains(&format!("Alarm from {from} %"))), "{row:?}");
        }
    }
}
