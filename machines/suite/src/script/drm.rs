//! The ioctls that all drivers have: handles, files, syncobjs.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{PAGE, WINDOW};

/// An ioctl of any driver, or what takes its place where an ioctl needs a partner.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// GEM_CLOSE.
    BoClose {
        /// GEM handle.
        handle: u32,
    },
    /// PRIME_HANDLE_TO_FD; the file is kept for [`Step::Import`].
    Export {
        /// GEM handle.
        handle: u32,
    },
    /// PRIME_FD_TO_HANDLE.
    Import {
        /// Which of the files exported so far.
        file: usize,
    },
    /// SYNCOBJ_CREATE.
    SyncobjCreate {
        /// Flags: one for "signalled".
        flags: u32,
    },
    /// SYNCOBJ_DESTROY.
    SyncobjDestroy {
        /// Syncobj.
        handle: u32,
    },
    /// SYNCOBJ_RESET.
    Reset {
        /// Syncobj.
        handle: u32,
    },
    /// SYNCOBJ_SIGNAL.
    Signal {
        /// Syncobj.
        handle: u32,
    },
    /// SYNCOBJ_TIMELINE_SIGNAL.
    SignalPoint {
        /// Syncobj.
        handle: u32,
        /// Point.
        point: u64,
    },
    /// SYNCOBJ_TRANSFER.
    Transfer {
        /// Syncobj and point to take from.
        from: (u32, u64),
        /// Syncobj and point to put to.
        to: (u32, u64),
    },
    /// SYNCOBJ_QUERY.
    Query {
        /// Syncobj.
        handle: u32,
        /// Flags: one for "last submitted".
        flags: u32,
    },
    /// SYNCOBJ_TIMELINE_WAIT that polls.
    Wait {
        /// Syncobjs and points.
        points: Vec<(u32, u64)>,
        /// Flags.
        flags: u32,
    },
    /// SYNCOBJ_FD_TO_HANDLE with the sync file of a fence that is signalled by [`Step::Release`].
    Hold {
        /// Syncobj.
        handle: u32,
        /// Point, or zero.
        point: u64,
    },
    /// Signals every fence that is held.
    Release,
}

/// What is done with objects, whatever the driver.
pub(super) fn object() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => handle().prop_map(|handle| Step::BoClose { handle }),
        2 => handle().prop_map(|handle| Step::Export { handle }),
        2 => (0..3usize).prop_map(|file| Step::Import { file }),
    ]
}

/// What is done with syncobjs.
pub(super) fn syncobj() -> impl Strategy<Value = Step> {
    let create_flags = prop_oneof![8 => 0..2u32, 1 => Just(2)];
    let query_flags = prop_oneof![8 => 0..2u32, 1 => Just(2)];
    let waits = vec((handle(), point()), 1..3);
    prop_oneof![
        1 => create_flags.prop_map(|flags| Step::SyncobjCreate { flags }),
        1 => handle().prop_map(|handle| Step::SyncobjDestroy { handle }),
        1 => handle().prop_map(|handle| Step::Reset { handle }),
        2 => handle().prop_map(|handle| Step::Signal { handle }),
        2 => (handle(), point()).prop_map(|(handle, point)| Step::SignalPoint { handle, point }),
        2 => ((handle(), point()), (handle(), point())).prop_map(|(from, to)| Step::Transfer { from, to }),
        3 => (handle(), query_flags).prop_map(|(handle, flags)| Step::Query { handle, flags }),
        3 => (waits, 0..8u32).prop_map(|(points, flags)| Step::Wait { points, flags }),
    ]
}

/// Fences that are held back for a while.
pub(super) fn fence() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (handle(), point()).prop_map(|(handle, point)| Step::Hold { handle, point }),
        1 => Just(Step::Release),
    ]
}

/// Where something is bound: places where scripts meet themselves.
pub(super) fn place() -> impl Strategy<Value = u64> {
    let page = prop_oneof![0..12u64, 510..514u64, 1022..1026u64, Just(2048u64)];
    page.prop_map(|page| WINDOW.start + page * PAGE)
}

/// How much is bound.
pub(super) fn size() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 1..6u64, 2 => prop::sample::select(vec![512u64, 511, 513, 1024]), 1 => Just(2048u64)]
        .prop_map(|pages| pages * PAGE)
}

/// Of an object or a syncobj.
pub(super) fn handle() -> impl Strategy<Value = u32> {
    prop_oneof![30 => 1..4u32, 2 => 4..6u32, 1 => Just(0u32)]
}

/// A point of a timeline, or none.
pub(super) fn point() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0u64), 8 => 1..6u64]
}
