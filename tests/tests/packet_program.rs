//! The program as the kernel sees it.

use anyhow::Result;
use lb_tests::packet::World;
use lb_tests::require_root;

/// The verifier gives up at a million instructions, walked on all paths together; what adds a door must leave room for
/// the next.
const ENOUGH: u32 = 250_000;

#[test]
fn the_verifier_accepts_the_program_with_room_to_spare() -> Result<()> {
    require_root!(Ok(()));
    for world in [World::new()?, World::without_side_effects()?] {
        let (instructions, verified) = world.instructions();
        println!("{instructions} instructions, the verifier walked {verified}");
        assert!(verified < ENOUGH, "{verified}");
    }
    Ok(())
}
