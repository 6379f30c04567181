//! A request as the data plane understands it.

use std::time::Duration;

use lb_common::abi::{CAPTURE_ANY_SERVICE, CaptureSettings};
use nix::{
    net::if_::if_nametoindex,
    time::{ClockId, clock_gettime},
};

use super::{Request, StartError};
use crate::{
    control::Snapshot,
    dataplane::encode::mapped_prefix,
    domain::{Name, Prefix},
    similar,
    trace::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
};

pub(super) struct Filter {
    service: Option<Name>,
    interface: Option<String>,
    /// What does not change while it runs.
    settings: CaptureSettings,
}

impl Filter {
    /// # Errors
    ///
    /// If there is no such service or interface.
    pub(super) fn new(request: &Request, snapshot: &Snapshot) -> Result<Self, StartError> {
        if let Some(service) = &request.service
            && id_of(service, snapshot).is_none()
        {
            let names = snapshot.services.iter().map(|view| view.service.name.as_str());
            let similar = similar::closest(service.as_str(), names).map(ToOwned::to_owned);
            return Err(StartError::NoService { name: service.clone(), similar });
        }
        if let Some(name) = &request.interface
            && !snapshot.interfaces.iter().any(|interface| interface.name == *name)
        {
            let known = snapshot.interfaces.iter().map(|interface| interface.name.clone()).collect();
            return Err(StartError::NoInterface { name: name.clone(), known });
        }
        let handled =
            if request.dropped { 1 << XDP_DROP } else { 1 << XDP_DROP | 1 << XDP_TX | 1 << XDP_REDIRECT };
        let passed = if request.passed { 1 << XDP_PASS } else { 0 };
        let (interval, burst) = request.pace();
        let (client, client_mask) = request.from.map_or_else(Default::default, masked);
        let settings = CaptureSettings {
            interval,
            burst,
            client,
            client_mask,
            actions: handled | passed,
            snaplen: request.snaplen,
            ..CaptureSettings::default()
        };
        Ok(Self { service: request.service.clone(), interface: request.interface.clone(), settings })
    }

    /// As things are, for [`LIFE`] from now. An interface or a service that is made anew has another number.
    pub(super) fn settings(&self, snapshot: &Snapshot) -> CaptureSettings {
        let service = match &self.service {
            None => CAPTURE_ANY_SERVICE,
            Some(service) => id_of(service, snapshot).unwrap_or(NOBODY),
        };
        let ifindex = match &self.interface {
            None => 0,
            Some(name) => if_nametoindex(name.as_str()).unwrap_or(NOBODY),
        };
        let deadline = now(ClockId::CLOCK_MONOTONIC) + LIFE;
        let deadline = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        CaptureSettings { deadline, service, ifindex, ..self.settings }
    }
}

pub(super) fn now(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

fn id_of(service: &Name, snapshot: &Snapshot) -> Option<u32> {
    snapshot.services.iter().find(|view| view.service.name == *service).map(|view| view.id)
}

/// A prefix as the maps keep addresses, and its bits.
fn masked(prefix: Prefix) -> ([u8; 16], [u8; 16]) {
    let (address, bits) = mapped_prefix(prefix);
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (address, mask.to_be_bytes())
}

/// How long the program goes on copying after whoever listens has said so last.
pub(super) const LIFE: Duration = Duration::from_secs(5);
/// Number of a service, or an interface, that there is none of.
const NOBODY: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::encode::mapped;

    #[test]
    fn prefixes_are_as_the_data_plane_compares_them() {
        let of = |text: &str| masked(text.parse().expect("a prefix"));
        assert_eq!(
            of("198.51.100.0/24"),
            (mapped([198, 51, 100, 0].into()), {
                let mut mask = [0xff; 16];
                mask[15] = 0;
                mask
            })
        );
        assert_eq!(of("198.51.100.7").1, [0xff; 16]);
        assert_eq!(of("::/0").1, [0; 16]);
        assert_eq!(of("0.0.0.0/0").1, (u128::MAX << 32).to_be_bytes(), "IPv4 alone");
        assert_eq!(of("2001:db8::/32").1, (u128::MAX << 96).to_be_bytes());
    }

    #[test]
    fn what_does_not_exist_is_refused_and_what_is_wanted_is_said() {
        let snapshot = Snapshot::default();
        let filter = |request: &Request| Filter::new(request, &snapshot);
        let service = Request { service: Some("web".parse().expect("a name")), ..Request::default() };
        assert!(matches!(filter(&service), Err(StartError::NoService { .. })));
        let interface = Request { interface: Some("eth7".into()), ..Request::default() };
        assert!(matches!(filter(&interface), Err(StartError::NoInterface { .. })));
        let actions = |dropped, passed| {
            let request = Request { dropped, passed, ..Request::default() };
            filter(&request).map(|filter| filter.settings(&snapshot)).expect("nothing is named")
        };
        assert_eq!(actions(false, false).actions, 0b11010);
        assert_eq!(actions(true, false).actions, 0b00010);
        assert_eq!(actions(false, true).actions, 0b11110);
        let all = actions(false, false);
        assert_eq!((all.service, all.ifindex, all.client_mask), (CAPTURE_ANY_SERVICE, 0, [0; 16]));
        assert!(all.deadline > 0);
    }
}
