//! Replication to peers, where there are any.

use std::{collections::HashMap, sync::Arc};

use lb_common::abi::ServiceRecord;

use super::{
    super::{
        encode,
        replicate::{FleetMap, Replicator, Tables},
        scan::Moment,
    },
    Reconciler,
};
use crate::peers::{Exchange, Post};

#[derive(Debug)]
pub(super) struct Replication {
    replicator: Replicator,
    exchange: Arc<Exchange>,
    map: FleetMap,
}

impl Reconciler {
    /// From now on peers are told, and heard. `is_new`: the maps have just been made.
    pub fn replicate_with(&mut self, exchange: Arc<Exchange>, is_new: bool) {
        let replicator = Replicator::new(is_new);
        self.replication = Some(Replication { replicator, exchange, map: FleetMap::default() });
        self.look_around();
    }

    /// How long entries and windows of a service are kept.
    pub(super) fn kept(&self, record: &ServiceRecord) -> u32 {
        let idle = record.flow_idle_timeout;
        if self.replication.is_some() { Replicator::kept(idle) } else { idle }
    }

    /// Tells replication what there is.
    pub(super) fn map_fleet(&mut self) {
        let Some(replication) = &mut self.replication else { return };
        let name = |index| {
            let value = self.backends.get(&index);
            value.map_or(0, |value| encode::peer_id(value.address, value.port))
        };
        let tables: HashMap<_, _> = self
            .tables
            .iter()
            .map(|(id, table)| (*id, encode::peer_table(table.fingerprint, table.indices().map(name))))
            .collect();
        let backends = self.backends.iter().map(|(index, value)| (*index, value));
        let records = self.records.iter().map(|(number, record)| (*number, record));
        replication.map = FleetMap::new(records, backends, &tables).after(&replication.map);
        // What a change opens peers have to track before its flows come to them.
        replication.exchange.give_work();
    }

    /// What is due of it, and what there is to be done at once: [`Exchange::work`] says when. After a pause nothing, before the scan
    /// has found out what times are worth.
    pub fn replicate(&mut self, now: Moment) {
        if self.scanner.is_behind(now) {
            return;
        }
        let Some(Replication { replicator, exchange, map }) = &mut self.replication else { return };
        let news = self.dataplane.take_flow_news();
        let backends = &self.backends;
        let mut tables = Tables {
            words: self.dataplane.words(),
            world: &mut self.world,
            map,
            states: |index| backends.get(&index).map_or(0, |value| value.state),
            restamped: self.scanner.restamped(),
        };
        let age = replicator.age(now);
        let mut post = Post::collect(&mut exchange.endpoint(), map.tables, age, now.boot);
        replicator.step(&mut tables, &news, &mut post, now);
        post.deliver(&mut exchange.endpoint(), now.boot);
        exchange.tell(&replicator.fates, replicator.is_joining());
    }
}
