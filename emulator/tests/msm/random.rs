//! Random operations, one after another and queued ahead.

use emulator::{Gpu, SwFence, Unbound};
use kmd::{Syncobj, Vm};
use proptest::prelude::*;
use std::os::fd::AsFd;

use crate::common::world::{PAGES, World, follow, step};
use crate::rig::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn page_table_and_memory_follow_the_model(
        steps in prop::collection::vec(step(), 1..40),
        trap in any::<bool>(),
    ) {
        let unbound = if trap { Unbound::Trap } else { Unbound::Zero };
        let config = emulator::Config { unbound, ..Default::default() };
        follow(Rig::with(PAGES * PAGE, Gpu::A750, config), &steps, trap)?;
    }

    #[test]
    fn what_was_queued_ahead_comes_out_the_same(
        before in prop::collection::vec(step(), 1..8),
        batches in prop::collection::vec(prop::collection::vec(step(), 1..12), 1..8),
    ) {
        let mut world = World::new(Rig::with(PAGES * PAGE, Gpu::A750, Default::default()));
        before.iter().for_each(|step| world.apply(step));
        let (shown, fence) = (world.rig.dump(), SwFence::new());
        let blocked = Syncobj::create(world.rig.dyn_node(), false).unwrap();
        blocked.import_sync_file(fence.sync_file().unwrap().as_fd(), None).unwrap();
        for steps in &batches {
            let ops: Vec<_> = steps.iter().map(|step| world.op(step)).collect();
            world.queue(&ops, &[blocked.binary()]);
            // The tree is ahead; once more changes nothing but null mappings.
            world.queue(&ops[ops.len() - 1..], &[]);
        }
        prop_assert_eq!(world.rig.dump(), shown);
        fence.signal();
        world.wait();
        prop_assert_eq!(world.rig.dump(), world.runs());
        world.check_memory(false, 0..PAGES);
        prop_assert_eq!(world.rig.vm.is_usable(), Ok(true));
    }
}
