//! Daemons, and what goes between them.

use std::time::Duration;

use super::{super::member::address, LAG, MEMBERS, Rest, Storm};
use crate::dataplane::scan::Moment;

impl Storm {
    pub(super) fn daemons(&mut self) {
        let boot = self.boot();
        let moment = Moment { monotonic: boot, boot };
        for (number, balancer) in self.balancers.iter_mut().enumerate() {
            if self.rests[number].is_some() {
                continue;
            }
            if (self.now + 30 * number as u64).is_multiple_of(100) {
                balancer.member.tick(Duration::from_millis(self.now), true);
            } else if balancer.member.has_work() && !balancer.member.scanner.is_behind(moment) {
                balancer.member.exchange(moment);
            }
        }
    }

    pub(super) fn carry(&mut self) {
        let (now, boot) = (self.now, self.boot());
        for (from, balancer) in self.balancers.iter_mut().enumerate() {
            if self.rests[from].is_some() {
                continue;
            }
            while let Some((to, datagram)) = balancer.member.endpoint.transmit(boot) {
                let to = (0..).find(|number| address(*number) == to).unwrap();
                if self.cut[from][to] <= now {
                    self.on_its_way.push((now + self.rng.u64(..10), from, to, datagram));
                }
            }
        }
        let (rests, balancers) = (&self.rests, &mut self.balancers);
        self.on_its_way.retain(|(when, from, to, datagram)| match rests[*to] {
            Some((Rest::Stopped, _)) => true,
            Some((Rest::Dead, _)) => false,
            None if *when <= now => {
                balancers[*to].member.endpoint.receive(address(*from), datagram, boot);
                false
            }
            None => true,
        });
    }

    /// Notes who could not know.
    pub(super) fn watch(&mut self) {
        let now = self.now;
        for one in 0..MEMBERS {
            if self.rests[one].is_some() {
                self.still[one].goes_on(now, 500);
            }
            for other in (0..MEMBERS).filter(|other| *other != one) {
                let peer = if other < one { other } else { other - 1 };
                let is_up = self.balancers[one].member.endpoint.up_peers().any(|up| up == peer);
                if !is_up || self.cut[one][other] > now {
                    self.parted[one][other].goes_on(now, 700);
                    self.parted[other][one].goes_on(now, 700);
                }
            }
        }
    }
}

/// When something was last not as it should be.
#[derive(Clone, Copy, Default)]
pub(super) struct Trouble {
    since: u64,
    until: u64,
}

impl Trouble {
    /// It is so, and what was missed takes so long to be made up for.
    pub(super) fn goes_on(&mut self, now: u64, made_up: u64) {
        if self.until < now {
            self.since = now;
        }
        self.until = now + made_up;
    }

    /// Whether it may be the reason for which what was new at a time was not known at another.
    pub(super) fn excuses(self, new: u64, at: u64) -> bool {
        self.until > at && new + LAG > self.since
    }
}
