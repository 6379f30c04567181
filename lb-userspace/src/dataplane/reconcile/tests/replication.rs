//! When peers are heard and told.

use lb_common::hash::HashKey;

use super::*;
use crate::{
    dataplane::KeyFingerprint,
    peers::{Endpoint, Exchange, Identity, Keys},
};

/// A pause, such as a paused host's: what entries say of times is worth nothing until the scan has looked.
#[test]
fn after_a_pause_nothing_is_said_before_the_scan_has_looked() {
    let mut reconciler = Reconciler::restore(Box::new(Fake::new(LIMITS))).expect("an empty fake");
    let key = HashKey::default();
    let identity =
        Identity { keys: Keys::derive(key), fingerprint: KeyFingerprint::of(key), random: Box::new(|| 7) };
    let exchange = Arc::new(Exchange::new(Endpoint::new(identity, &[], 1e6, at(1000).boot), false));
    reconciler.replicate_with(Arc::clone(&exchange), false);
    // What is said of the tables shows whether anything was done.
    let said = || exchange.endpoint().tables();
    let mut published = reconciler.apply(&serving(3, |_| ()), at(1000)).expect("it fits");
    let before = said();
    reconciler.replicate(at(1000));
    assert_eq!(said(), before, "nothing was ever looked at");
    reconciler.tick(at(1000), &mut published);
    let first = said();
    assert_ne!(first, before);
    reconciler.apply(&serving(2, |_| ()), at(1001)).expect("it fits");
    reconciler.replicate(at(1001));
    let second = said();
    assert_ne!(second, first, "a second is no pause");
    reconciler.apply(&serving(3, |_| ()), at(1010)).expect("it fits");
    reconciler.replicate(at(1010));
    assert_eq!(said(), second);
    reconciler.tick(at(1010), &mut published);
    assert_eq!(said(), first);
}
