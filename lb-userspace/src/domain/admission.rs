use std::collections::BTreeSet;

use super::Prefix;

/// Who may send to a service, and how fast flows may be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Where there are any, whoever is in none of them is denied. The longest prefix of both lists decides.
    pub allow: BTreeSet<Prefix>,
    pub deny: BTreeSet<Prefix>,
    /// New flows a second; 0: any number.
    pub new_flow_rate: u32,
}

impl Admission {
    /// Whether anybody is kept out.
    pub fn limits(&self) -> bool {
        self.new_flow_rate > 0 || self.asks_who()
    }

    /// Whether it matters where a packet comes from.
    pub fn asks_who(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    /// How many prefixes it takes to say so: those of both lists, and one that denies the others if some are allowed.
    pub fn prefixes(&self) -> usize {
        let everybody = |prefix: &Prefix| prefix.length() == 0;
        let denies_others = !self.allow.is_empty() && !self.allow.iter().chain(&self.deny).any(everybody);
        self.allow.len() + self.deny.len() + usize::from(denies_others)
    }
}
