//! What strikes members, what is changed, and where traffic goes.

use super::{Connection, MEMBERS, Rest, SPARE, Storm};

impl Storm {
    /// Begins and ends what strikes members.
    pub(super) fn strike(&mut self) {
        let (now, boot) = (self.now, self.boot());
        for number in 0..MEMBERS {
            if let Some((rest, until)) = self.rests[number]
                && until <= now
            {
                self.rests[number] = None;
                if rest == Rest::Dead {
                    self.balancers[number].restart(boot);
                }
                self.note(format!("daemon {number} goes on"));
            }
        }
        if now < self.next_strike {
            return;
        }
        let rng = &mut self.rng;
        self.next_strike = now + rng.u64(3_000..25_000);
        let (one, lasts) = (rng.usize(..MEMBERS), rng.u64(500..8_000));
        let other = (one + rng.usize(1..MEMBERS)) % MEMBERS;
        match rng.u8(..6) {
            0 => self.rests[one] = Some((Rest::Stopped, now + lasts)),
            1 => self.rests[one] = Some((Rest::Dead, now + lasts)),
            2 => {
                let returns = now + lasts + rng.u64(2_000..6_000);
                self.off[one] = (now + lasts, now + 300, returns);
                for other in 0..MEMBERS {
                    (self.cut[one][other], self.cut[other][one]) = (now + lasts, now + lasts);
                }
                // It takes all backends for dead by and by, and for alive when it is back.
                for until in &mut self.sick[one] {
                    *until = now + lasts + rng.u64(200..600);
                }
                self.next_strike = self.next_strike.max(returns);
            }
            3 => (self.cut[one][other], self.cut[other][one]) = (now + lasts, now + lasts),
            4 => self.cut[one][other] = now + lasts,
            _ => self.alone[one] = now + 2 * lasts,
        }
        self.next_strike = self.next_strike.max(now + lasts + 3_000);
        self.note(format!(
            "strike: rests {:?} off {:?} cut {:?} alone {:?}",
            self.rests.map(|rest| rest.map(|(_, until)| until)),
            self.off,
            self.cut,
            self.alone
        ));
    }

    /// Changes what is declared, and has it come to members.
    pub(super) fn change(&mut self) {
        let now = self.now;
        if now >= self.next_change {
            let rng = &mut self.rng;
            self.next_change = now
                + match rng.u8(..10) {
                    0..5 => rng.u64(50..1_000),
                    5..8 => rng.u64(1_000..6_000),
                    _ => rng.u64(8_000..30_000),
                };
            let backend = if rng.bool() { SPARE } else { rng.usize(..SPARE) };
            let is_idle = |connection: &Connection| connection.backend != backend as u32;
            let mut spare = self.intended[backend];
            if backend == SPARE
                && spare.is_known
                && spare.weight == 0
                && self.connections.iter().all(is_idle)
                && self.coming.iter().all(|(_, _, coming, _)| *coming != backend)
            {
                spare.is_known = false;
                self.intended[backend] = spare;
                let lates = self.alone.map(|late| late.max(now + rng.u64(..100)));
                let coming = (0..).zip(lates).map(|(number, when)| (when, number, backend, spare));
                self.coming.extend(coming);
            } else if rng.u8(..5) == 0 {
                let (number, lasts) = (rng.usize(..MEMBERS), rng.u64(100..3_000));
                self.sick[number][backend] = now + lasts;
            } else {
                let mut new = self.intended[backend];
                new.is_known = true;
                new.weight = match new.weight {
                    0 => 1 + rng.u8(..2),
                    _ => rng.u8(..3) * rng.u8(..2),
                };
                self.intended[backend] = new;
                for number in 0..MEMBERS {
                    let rng = &mut self.rng;
                    let joins = if new.weight > 0 { rng.u64(..400) } else { 0 };
                    let late = if rng.u8(..12) == 0 { rng.u64(1_000..15_000) } else { 0 };
                    let when = (now + joins + rng.u64(..100) + late).max(self.alone[number]);
                    self.coming.push((when, number, backend, new));
                }
            }
        }
        let (heard, rests) = (&mut self.heard, &self.rests);
        self.coming.retain(|(when, number, backend, new)| {
            let comes = *when <= now && rests[*number].is_none();
            if comes {
                heard[*number][*backend] = *new;
            }
            !comes
        });
        for number in 0..MEMBERS {
            let mut standing = self.heard[number].clone();
            // One that is cut off finds out one by one, and goes on with all of them when there is none left.
            let cut_off = self.off[number].1 + 400;
            for (backend, (one, until)) in (0..).zip(standing.iter_mut().zip(self.sick[number])) {
                let is_found_out = cut_off + backend * 30 <= now || now >= self.off[number].0;
                if until > now && is_found_out {
                    one.weight = 0;
                    one.is_cut = one.is_known && self.is_harsh;
                }
            }
            if standing.iter().all(|one| one.weight == 0) {
                standing.clone_from(&self.heard[number]);
            }
            if standing.iter().all(|one| one.weight == 0) {
                continue;
            }
            if standing != self.balancers[number].standing && self.rests[number].is_none() {
                let weights: Vec<_> = standing.iter().map(|one| one.weight).collect();
                self.note(format!("member {number} has {weights:?}"));
                let seconds = self.boot().as_secs();
                self.balancers[number].apply(&standing, seconds);
            }
        }
    }

    /// Leads packets elsewhere.
    pub(super) fn shift(&mut self) {
        let now = self.now;
        let is_away = |number: usize| {
            let (_, noticed, returns) = self.off[number];
            noticed <= now && now < returns
        };
        let there: Vec<_> = (0..MEMBERS).filter(|number| !is_away(*number)).collect();
        let has_to = self.routes.iter().any(|number| !there.contains(number));
        if !has_to && now < self.next_move {
            return;
        }
        let rng = &mut self.rng;
        self.next_move = now + if rng.u8(..4) == 0 { rng.u64(100..1_000) } else { rng.u64(1_000..8_000) };
        let count = rng.usize(1..4);
        self.routes = (0..count).map(|_| there[rng.usize(..there.len())]).collect();
        self.note(format!("routes {:?}", self.routes));
    }
}
