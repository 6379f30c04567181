//! Why a packet goes no further, in one word that a global function can return.

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use lb_common::abi::{DropReason, ServiceEntry};

/// A drop reason, and what its sender may have to be told. A packet refused as [`DropReason::TtlExpired`],
/// [`DropReason::PacketTooBig`] or [`DropReason::Rejected`] is as it came.
#[derive(Clone, Copy)]
pub struct Refusal {
    pub reason: u32,
    /// Largest packet that would have fitted, of [`DropReason::PacketTooBig`]; or [`UNTOLD`].
    pub mtu: u32,
}

/// A bit for each reason.
const TOLD: u32 = 1 << DropReason::TtlExpired as u32
    | 1 << DropReason::PacketTooBig as u32
    | 1 << DropReason::Rejected as u32;
/// No packet is so large.
const UNTOLD: u32 = u32::MAX;

impl Refusal {
    #[inline(always)]
    pub const fn too_big(mtu: u32) -> Self {
        Self { reason: DropReason::PacketTooBig as u32, mtu }
    }

    /// Of a packet of `service` for which there is no backend.
    #[inline(always)]
    pub fn without_backend(service: &ServiceEntry) -> Self {
        Self { reason: service.no_backend.into(), mtu: 0 }
    }

    /// The same, of a packet whose sender is told nothing.
    #[inline(always)]
    pub const fn untold(self) -> Self {
        Self { reason: self.reason, mtu: UNTOLD }
    }

    /// Whether the packet's sender is to be told. In one question, of which the verifier knows two answers.
    #[inline(always)]
    pub const fn is_told(self) -> bool {
        (TOLD >> (self.reason & 31)) & 1 != 0 && self.mtu != UNTOLD
    }

    #[inline(always)]
    pub fn is(self, reason: DropReason) -> bool {
        self.reason == reason as u32
    }
}

impl From<DropReason> for Refusal {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self { reason: reason as u32, mtu: 0 }
    }
}

/// What a step that may be a global function returns: an XDP action, or a refusal.
pub type Outcome = Result<u32, Refusal>;

/// `action:8, reason:8 << 8, mtu:32 << 32`; an action of `XDP_DROP` says that there is a reason.
#[inline(always)]
pub fn to_word(outcome: Outcome) -> u64 {
    match outcome {
        Ok(action) => action.into(),
        Err(Refusal { reason, mtu }) => {
            u64::from(XDP_DROP) | (u64::from(reason) << 8) | (u64::from(mtu) << 32)
        }
    }
}

/// The opposite of [`to_word`].
#[inline(always)]
pub fn from_word(word: u64) -> Outcome {
    let action = word as u32 & 0xff;
    if action == XDP_DROP {
        Err(Refusal { reason: (word >> 8) as u32 & 0xff, mtu: (word >> 32) as u32 })
    } else {
        Ok(action)
    }
}
