//! Fences and fence chains, with the semantics of `dma_fence` and `dma_fence_chain`.
//!
//! A leaf is signalled once. A chain node is one point of a timeline: it carries a fence of its own and a link to the node
//! before it, and counts as signalled when all of them are. Nodes whose work is done drop out of the chain as it is walked.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

static NEXT_CONTEXT: AtomicU64 = AtomicU64::new(1);

/// A thread that waits for something to change.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Waiter {
    pub(crate) fn wake(&self) {
        *self.woken.lock() = true;
        self.changed.notify_all();
    }

    /// Sleeps until woken (also if that was before the call) or until `deadline`; `false` when the deadline passed first.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> bool {
        let mut woken = self.woken.lock();
        while !*woken {
            match deadline {
                None => self.changed.wait(&mut woken),
                Some(at) => {
                    if self.changed.wait_until(&mut woken, at).timed_out() && !*woken {
                        return false;
                    }
                }
            }
        }
        *woken = false;
        true
    }
}

/// What a fence does when it signals.
pub(crate) enum Wake {
    /// Wakes a thread, if it still waits.
    Thread(Weak<Waiter>),
    /// Runs once.
    Call(Box<dyn FnOnce() + Send>),
}

struct Attached {
    wake: Wake,
    /// The fence that the caller asked about. Where it is a chain, a `Call` moves on to the next unsignalled leaf.
    root: Option<Arc<Fence>>,
}

struct Leaf {
    signaled: AtomicBool,
    attached: Mutex<Vec<Attached>>,
}

struct Chain {
    context: u64,
    seqno: u64,
    prev_seqno: u64,
    prev: Mutex<Option<Arc<Fence>>>,
    fence: Arc<Fence>,
}

enum Kind {
    Leaf(Leaf),
    Chain(Chain),
}

/// A fence: a leaf or a point of a timeline.
pub(crate) struct Fence(Kind);

impl core::fmt::Debug for Fence {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0 {
            Kind::Leaf(leaf) => write!(f, "Fence({})", leaf.signaled.load(Ordering::Relaxed)),
            Kind::Chain(chain) => write!(f, "Fence(point {})", chain.seqno),
        }
    }
}

impl Fence {
    pub(crate) fn new() -> Arc<Self> {
        Self::leaf(false)
    }

    /// A fence that is signalled already (the kernel's stub).
    pub(crate) fn stub() -> Arc<Self> {
        Self::leaf(true)
    }

    fn leaf(signaled: bool) -> Arc<Self> {
        let leaf = Leaf { signaled: AtomicBool::new(signaled), attached: Mutex::new(Vec::new()) };
        Arc::new(Self(Kind::Leaf(leaf)))
    }

    /// A new node for `seqno` behind `prev`. A point that is not later than its predecessor starts a context of its own, with the
    /// greater of both numbers, as in the kernel.
    pub(crate) fn chain(prev: Option<Arc<Self>>, fence: Arc<Self>, seqno: u64) -> Arc<Self> {
        let (context, seqno, prev_seqno) = match prev.as_deref() {
            Some(Self(Kind::Chain(p))) if seqno > p.seqno => (p.context, seqno, p.seqno),
            Some(Self(Kind::Chain(p))) => (new_context(), p.seqno, 0),
            _ => (new_context(), seqno, 0),
        };
        Arc::new(Self(Kind::Chain(Chain { context, seqno, prev_seqno, prev: Mutex::new(prev), fence })))
    }

    /// A fence that is signalled when both are.
    pub(crate) fn both(a: Arc<Self>, b: Arc<Self>) -> Arc<Self> {
        Self::chain(Some(a), b, 0)
    }

    /// The leaves that this fence still waits for, each once.
    pub(crate) fn pending_leaves(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut leaves: Vec<Arc<Self>> = Vec::new();
        // Fences whose leaves are still to be found.
        let mut rest = vec![self.clone()];
        while let Some(fence) = rest.pop() {
            match &fence.0 {
                Kind::Chain(chain) => {
                    rest.push(chain.fence.clone());
                    rest.extend(chain.walk());
                }
                Kind::Leaf(_)
                    if fence.is_signaled() || leaves.iter().any(|leaf| Arc::ptr_eq(leaf, &fence)) => {}
                Kind::Leaf(_) => leaves.push(fence),
            }
        }
        leaves
    }

    fn as_chain(&self) -> Option<&Chain> {
        match &self.0 {
            Kind::Chain(chain) => Some(chain),
            Kind::Leaf(_) => None,
        }
    }

    /// Signals a leaf. Signalling twice, or a chain node, does nothing.
    pub(crate) fn signal(&self) {
        let Kind::Leaf(leaf) = &self.0 else { return };
        let attached = {
            let mut attached = leaf.attached.lock();
            if leaf.signaled.swap(true, Ordering::AcqRel) {
                return;
            }
            core::mem::take(&mut *attached)
        };
        for Attached { wake, root } in attached {
            match (wake, root) {
                (Wake::Call(call), Some(root)) => root.on_signal(Wake::Call(call)),
                (wake, _) => fire(wake),
            }
        }
    }

    pub(crate) fn is_signaled(&self) -> bool {
        match &self.0 {
            Kind::Leaf(leaf) => leaf.signaled.load(Ordering::Acquire),
            Kind::Chain(_) => self.unsignaled_leaf().is_none(),
        }
    }

    /// Some leaf that this fence still waits for.
    fn unsignaled_leaf(&self) -> Option<Arc<Self>> {
        let chain = self.as_chain()?;
        let mut node = None::<Arc<Self>>;
        loop {
            let here = node.as_deref().map_or(Some(chain), Self::as_chain);
            match here {
                Some(here) => {
                    if let Some(leaf) = here.fence.clone().pending() {
                        return Some(leaf);
                    }
                    node = here.walk();
                    node.as_ref()?;
                }
                None => return node.and_then(Self::pending),
            }
        }
    }

    /// The leaf that keeps this fence from being signalled: itself, or one of a nested chain.
    fn pending(self: Arc<Self>) -> Option<Arc<Self>> {
        match &self.0 {
            Kind::Leaf(leaf) => (!leaf.signaled.load(Ordering::Acquire)).then_some(self),
            Kind::Chain(_) => self.unsignaled_leaf(),
        }
    }

    /// Fires `wake` when the fence is signalled: at once if it is. A thread is woken at *some* progress and has to look again.
    pub(crate) fn on_signal(self: &Arc<Self>, wake: Wake) {
        let mut wake = wake;
        while let Some(leaf) = self.clone().pending() {
            let Kind::Leaf(inner) = &leaf.0 else { unreachable!("pending() returns leaves") };
            let mut attached = inner.attached.lock();
            if inner.signaled.load(Ordering::Acquire) {
                continue;
            }
            // Waits that timed out leave their entry behind; drop those before the list grows.
            attached.retain(|a| !matches!(&a.wake, Wake::Thread(thread) if thread.strong_count() == 0));
            let root = match (&wake, self.as_chain()) {
                (Wake::Call(_), Some(_)) => Some(self.clone()),
                _ => None,
            };
            attached.push(Attached { wake: core::mem::replace(&mut wake, Wake::Thread(Weak::new())), root });
            return;
        }
        fire(wake);
    }

    /// Blocks until the fence is signalled.
    pub(crate) fn wait(self: &Arc<Self>) {
        self.wait_until(None);
    }

    /// Blocks until the fence is signalled, or until `deadline`; `false` when it is not signalled.
    pub(crate) fn wait_until(self: &Arc<Self>, deadline: Option<Instant>) -> bool {
        if self.is_signaled() {
            return true;
        }
        let waiter = Arc::new(Waiter::default());
        loop {
            self.on_signal(Wake::Thread(Arc::downgrade(&waiter)));
            let woken = waiter.sleep(deadline);
            if !woken || self.is_signaled() {
                return self.is_signaled();
            }
        }
    }

    /// The node that stands for point `seqno`: `Ok(None)` when that point is signalled and gone, `EINVAL` when nobody has submitted
    /// it. Point 0 is the fence itself.
    pub(crate) fn find_seqno(self: &Arc<Self>, seqno: u64) -> Result<Option<Arc<Self>>, Errno> {
        if seqno == 0 {
            return Ok(Some(self.clone()));
        }
        let head = self.as_chain().filter(|chain| chain.seqno >= seqno).ok_or(Errno::INVAL)?;
        let mut node = self.clone();
        loop {
            match node.as_chain() {
                Some(chain) if chain.context == head.context && chain.prev_seqno >= seqno => {
                    match chain.walk() {
                        Some(prev) => node = prev,
                        None => return Ok(None),
                    }
                }
                _ => return Ok(Some(node)),
            }
        }
    }

    /// The last point that is submitted, or the last that is reached; 0 where the fence is no timeline.
    pub(crate) fn timeline_value(self: &Arc<Self>, last_submitted: bool) -> u64 {
        let Some(head) = self.as_chain() else { return 0 };
        if last_submitted {
            return head.seqno;
        }
        let mut earliest = self.clone();
        let mut node = head.walk();
        while let Some(next) = node {
            let Some(chain) = next.as_chain().filter(|chain| chain.context == head.context) else { break };
            node = chain.walk();
            earliest = next;
        }
        let chain = earliest.as_chain().unwrap_or(head);
        if earliest.is_signaled() { chain.seqno } else { chain.prev_seqno }
    }
}

impl Chain {
    /// The node before this one that still matters; links to finished ones are cut on the way.
    fn walk(&self) -> Option<Arc<Fence>> {
        loop {
            let prev = self.prev.lock().clone()?;
            let replacement = match prev.as_chain() {
                Some(chain) if !chain.fence.is_signaled() => return Some(prev),
                Some(chain) => chain.prev.lock().clone(),
                None if !prev.is_signaled() => return Some(prev),
                None => None,
            };
            let mut link = self.prev.lock();
            // Somebody else may have cut further meanwhile.
            if link.as_ref().is_some_and(|now| Arc::ptr_eq(now, &prev)) {
                let cut = core::mem::replace(&mut *link, replacement);
                drop(link);
                drop(cut);
            }
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // A long timeline must not be dropped by recursion.
        let mut next = self.prev.get_mut().take();
        while let Some(mut fence) = next.and_then(Arc::into_inner) {
            next = match &mut fence.0 {
                Kind::Chain(chain) => chain.prev.get_mut().take(),
                Kind::Leaf(_) => None,
            };
        }
    }
}

fn new_context() -> u64 {
    NEXT_CONTEXT.fetch_add(1, Ordering::Relaxed)
}

fn fire(wake: Wake) {
    match wake {
        Wake::Thread(thread) => {
            if let Some(thread) = thread.upgrade() {
                thread.wake();
            }
        }
        Wake::Call(call) => call(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(points: &[(Arc<Fence>, u64)]) -> Arc<Fence> {
        let mut head = None;
        for (fence, seqno) in points {
            head = Some(Fence::chain(head, fence.clone(), *seqno));
        }
        head.expect("at least one point")
    }

    #[test]
    fn a_point_needs_all_before_it() {
        let (a, b) = (Fence::new(), Fence::new());
        let head = timeline(&[(a.clone(), 1), (b.clone(), 5)]);
        b.signal();
        assert!(!head.is_signaled());
        assert_eq!((head.timeline_value(false), head.timeline_value(true)), (0, 5));
        a.signal();
        assert!(head.is_signaled());
        assert_eq!(head.timeline_value(false), 5);
    }

    #[test]
    fn points_in_between_resolve_to_the_next_node() {
        let (a, b) = (Fence::new(), Fence::new());
        let head = timeline(&[(a.clone(), 2), (b, 5)]);
        let two = head.find_seqno(1).unwrap().unwrap();
        assert!(!two.is_signaled());
        a.signal();
        assert!(two.is_signaled());
        assert!(!head.find_seqno(3).unwrap().unwrap().is_signaled());
        assert_eq!(head.find_seqno(6).err(), Some(Errno::INVAL));
        // The first node is finished and cut: asking for it again says "reached".
        assert!(head.find_seqno(2).unwrap().is_none_or(|f| f.is_signaled()));
        assert_eq!(head.timeline_value(false), 2);
    }

    #[test]
    fn unordered_point_starts_a_new_context() {
        let (a, b) = (Fence::new(), Fence::stub());
        let head = timeline(&[(a.clone(), 5), (b, 3)]);
        assert_eq!(head.timeline_value(true), 5);
        assert!(!head.is_signaled());
        a.signal();
        assert!(head.is_signaled());
    }

    #[test]
    fn call_on_a_chain_waits_for_every_leaf() {
        let (a, b) = (Fence::new(), Fence::new());
        let head = timeline(&[(a.clone(), 1), (b.clone(), 2)]);
        let hit = Arc::new(AtomicBool::new(false));
        let flag = hit.clone();
        head.on_signal(Wake::Call(Box::new(move || flag.store(true, Ordering::SeqCst))));
        b.signal();
        assert!(!hit.load(Ordering::SeqCst));
        a.signal();
        assert!(hit.load(Ordering::SeqCst));
    }

    #[test]
    fn a_long_timeline_is_dropped_without_recursion() {
        let pending = Fence::new();
        let mut head = Fence::chain(None, pending.clone(), 1);
        for seqno in 2..200_000 {
            head = Fence::chain(Some(head), pending.clone(), seqno);
        }
        assert!(!head.is_signaled());
        drop(head);
    }
}
