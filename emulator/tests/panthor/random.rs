//! Random operations, one after another.

use emulator::Unbound;
use proptest::prelude::*;

use crate::common::world::{PAGES, follow, step};
use crate::rig::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn page_table_and_memory_follow_the_model(
        steps in prop::collection::vec(step(), 1..40),
        trap in any::<bool>(),
    ) {
        let unbound = if trap { Unbound::Trap } else { Unbound::Zero };
        let config = emulator::Config { unbound, ..Default::default() };
        follow(Rig::with(PAGES * PAGE, config), &steps, trap)?;
    }
}
