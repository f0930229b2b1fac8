//! What is bound in a row, as data: the same for the driver and for the layer, and enough to tell the fewest operations that would do.

/// Bytes of an image's block: what 128x128 RGBA8 texels take.
pub(crate) const BLOCK: u64 = 65536;

/// `count` pages (blocks, in the order of their addresses) of the resource from `first` on, bound to pages of memory from `memory` on, or
/// to nothing. A memory has as many pages as the resource; the numbers of the next memory's pages follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bind {
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) memory: Option<u32>,
}

/// What the pages belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    /// Of `pages` pages of `page` bytes.
    Buffer { pages: u32, page: u64 },
    /// One level of `side` by `side` blocks of 128x128 RGBA8 texels; a bind is one block, or the whole level.
    Image { side: u32 },
}

impl Resource {
    pub(crate) const fn pages(self) -> u32 {
        match self {
            Self::Buffer { pages, .. } => pages,
            Self::Image { side } => side * side,
        }
    }

    /// Bytes of a page.
    pub(crate) const fn page(self) -> u64 {
        match self {
            Self::Buffer { page, .. } => page,
            Self::Image { .. } => BLOCK,
        }
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.pages() as u64 * self.page()
    }
}

/// A row's work.
pub(crate) struct Workload {
    pub(crate) resource: Resource,
    /// Binds that lead from the unbound resource to the state in which measuring starts.
    pub(crate) start: Vec<Bind>,
    /// Calls of vkQueueBindSparse; in each, one list of binds a VkBindSparseInfo.
    pub(crate) calls: Vec<Vec<Vec<Bind>>>,
    /// Whether every call is waited for, or only the last.
    pub(crate) wait_each: bool,
    /// Whether waiting is for a fence that the call signals, or for the queue to be idle.
    pub(crate) fence: bool,
    /// The time is told per this many.
    pub(crate) per: u32,
}

type State = Vec<Option<u32>>;

impl Workload {
    /// One call of one VkBindSparseInfo.
    fn call(resource: Resource, start: Vec<Bind>, binds: Vec<Bind>) -> Self {
        Self { resource, start, calls: vec![vec![binds]], wait_each: true, fence: true, per: 1 }
    }

    /// How many memories the pages are in.
    pub(crate) fn memories(&self) -> u32 {
        let binds = self.start.iter().chain(self.calls.iter().flatten().flatten());
        binds.filter_map(|bind| bind.memory).max().map_or(1, |last| last / self.resource.pages() + 1)
    }

    /// Binds asked for, per unit of time told.
    pub(crate) fn asked(&self) -> f64 {
        let binds: usize = self.calls.iter().flatten().map(Vec::len).sum();
        binds as f64 / f64::from(self.per)
    }

    /// The fewest disjoint operations, all calls together: in each call the runs of pages that change and continue in address and memory.
    pub(crate) fn minimum(&self) -> u64 {
        let mut state = self.start_state();
        let mut operations = 0;
        for call in &self.calls {
            let before = state.clone();
            call.iter().flatten().for_each(|bind| apply(&mut state, bind));
            operations += runs(&before, &state);
        }
        operations
    }

    /// Whether the calls lead back to where they started, so that nothing has to be restored.
    pub(crate) fn is_closed(&self) -> bool {
        let start = self.start_state();
        let mut state = start.clone();
        self.calls.iter().flatten().flatten().for_each(|bind| apply(&mut state, bind));
        state == start
    }

    fn start_state(&self) -> State {
        let mut state = vec![None; self.resource.pages() as usize];
        self.start.iter().for_each(|bind| apply(&mut state, bind));
        state
    }
}

fn apply(state: &mut State, bind: &Bind) {
    for page in 0..bind.count {
        state[(bind.first + page) as usize] = bind.memory.map(|memory| memory + page);
    }
}

fn runs(before: &State, after: &State) -> u64 {
    let mut runs = 0;
    let mut last = None;
    for (page, (old, new)) in before.iter().zip(after).enumerate() {
        if old == new {
            continue;
        }
        let continues = last.is_some_and(|(last_page, last_new): (usize, Option<u32>)| {
            last_page + 1 == page && last_new.map(|memory| memory + 1) == *new
        });
        runs += u64::from(!continues);
        last = Some((page, *new));
    }
    runs
}

/// One bind a page, in the order of `pages`; `memory` says where each goes.
fn singly(pages: impl IntoIterator<Item = u32>, memory: impl Fn(u32) -> Option<u32>) -> Vec<Bind> {
    pages.into_iter().map(|page| Bind { first: page, count: 1, memory: memory(page) }).collect()
}

fn whole(resource: Resource, memory: Option<u32>) -> Vec<Bind> {
    vec![Bind { first: 0, count: resource.pages(), memory }]
}

/// The same shuffled order in every process (Fisher and Yates over splitmix64).
fn shuffled(count: u32) -> Vec<u32> {
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..count).rev() {
        let other = (random() % u64::from(last + 1)) as usize;
        order.swap(last as usize, other);
    }
    order
}

pub(crate) fn contiguous(resource: Resource) -> Workload {
    Workload::call(resource, vec![], singly(0..resource.pages(), Some))
}

/// Every page where [`contiguous`] has it, named in random order.
pub(crate) fn shuffled_order(resource: Resource) -> Workload {
    Workload::call(resource, vec![], singly(shuffled(resource.pages()), Some))
}

fn scatter(resource: Resource) -> Vec<Bind> {
    let memory = shuffled(resource.pages());
    singly(0..resource.pages(), |page| Some(memory[page as usize]))
}

/// Neighbours in address are no neighbours in memory.
pub(crate) fn scattered(resource: Resource) -> Workload {
    Workload::call(resource, vec![], scatter(resource))
}

/// What [`scattered`] has bound, bound again.
pub(crate) fn identical(resource: Resource) -> Workload {
    Workload::call(resource, scatter(resource), scatter(resource))
}

/// [`identical`], with nothing to signal: such a call has nothing to do.
pub(crate) fn identical_unsignalled(resource: Resource) -> Workload {
    Workload { fence: false, ..identical(resource) }
}

/// Pages in order, in two memories by turns.
pub(crate) fn alternating(resource: Resource) -> Workload {
    let memory = |page| page + page % 2 * resource.pages();
    Workload::call(resource, vec![], singly(0..resource.pages(), |page| Some(memory(page))))
}

pub(crate) fn unbind(resource: Resource) -> Workload {
    Workload::call(resource, whole(resource, Some(0)), singly(0..resource.pages(), |_| None))
}

pub(crate) fn one(resource: Resource) -> Workload {
    Workload::call(resource, vec![], singly([1000.min(resource.pages() - 1)], Some))
}

/// The first `count` pages in order.
pub(crate) fn first(count: u32, resource: Resource) -> Workload {
    Workload::call(resource, vec![], singly(0..count, Some))
}

/// Everything in one bind.
pub(crate) fn at_once(resource: Resource) -> Workload {
    Workload::call(resource, vec![], whole(resource, Some(0)))
}

/// A rectangle of 16x16 blocks, their memory row by row.
pub(crate) fn rectangle(side: u32) -> Workload {
    let blocks = (0..16).flat_map(|y| (0..16).map(move |x| (x, y)));
    let bind = |(x, y)| Bind { first: y * side + x, count: 1, memory: Some(y * 16 + x) };
    Workload::call(Resource::Image { side }, vec![], blocks.map(bind).collect())
}

/// 1024 VkBindSparseInfo, or as many as there are pages, of one bind each, in one call.
pub(crate) fn many_infos(resource: Resource) -> Workload {
    let infos = singly(0..resource.pages().min(1024), Some).into_iter().map(|bind| vec![bind]).collect();
    Workload { resource, start: vec![], calls: vec![infos], wait_each: true, fence: true, per: 1 }
}

/// 1024 calls of one bind each, waited for at the end.
pub(crate) fn many_calls(resource: Resource) -> Workload {
    let calls = singly(0..1024, Some).into_iter().map(|bind| vec![vec![bind]]).collect();
    Workload { resource, start: vec![], calls, wait_each: false, fence: true, per: 1 }
}

/// What a streaming engine does: a window of 8x6 blocks moves over the level in small steps. Every frame unbinds, block by block, what left
/// the window and names all blocks in it, most of them where they were. A block's place in memory repeats with the window, so that no two
/// blocks in it share one.
pub(crate) fn flight(side: u32) -> Workload {
    const FRAMES: u32 = 48;
    const WIDTH: u32 = 8;
    const HEIGHT: u32 = 6;
    let at = |frame: u32| (frame / 2, frame / 5);
    let window = |frame: u32| {
        let (left, top) = at(frame);
        (top..top + HEIGHT).flat_map(move |y| (left..left + WIDTH).map(move |x| (x, y)))
    };
    let page = |(x, y): (u32, u32)| y * side + x;
    let bind = |(x, y): (u32, u32)| Bind {
        first: page((x, y)),
        count: 1,
        memory: Some(x % WIDTH + y % HEIGHT * WIDTH),
    };
    let calls = (1..=FRAMES)
        .map(|frame| {
            let (left, top) = at(frame);
            let gone = window(frame - 1)
                .filter(|(x, y)| !(left..left + WIDTH).contains(x) || !(top..top + HEIGHT).contains(y));
            let mut binds = singly(gone.map(page), |_| None);
            binds.extend(window(frame).map(bind));
            vec![binds]
        })
        .collect();
    Workload {
        resource: Resource::Image { side },
        start: window(0).map(bind).collect(),
        calls,
        wait_each: true,
        fence: true,
        per: FRAMES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: Resource = Resource::Buffer { pages: 8192, page: 65536 };
    const IMAGE: Resource = Resource::Image { side: 64 };

    #[test]
    fn fewest_operations() {
        for resource in [BUFFER, IMAGE] {
            assert_eq!(contiguous(resource).minimum(), 1);
            assert_eq!(shuffled_order(resource).minimum(), 1);
            assert_eq!(identical(resource).minimum(), 0);
            assert_eq!(unbind(resource).minimum(), 1);
            assert_eq!(at_once(resource).minimum(), 1);
            // A few random neighbours happen to continue.
            let pages = u64::from(resource.pages());
            assert!((pages - 8..=pages).contains(&scattered(resource).minimum()));
        }
        assert_eq!(many_infos(BUFFER).minimum(), 1);
        assert_eq!(many_calls(BUFFER).minimum(), 1024);
        assert_eq!(rectangle(32).minimum(), 16);
        assert_eq!(alternating(BUFFER).minimum(), 8192);
    }

    #[test]
    fn memories_are_as_large_as_the_resource() {
        assert_eq!(
            [contiguous(BUFFER), unbind(BUFFER), flight(64)].map(|workload| workload.memories()),
            [1; 3]
        );
        assert_eq!(alternating(BUFFER).memories(), 2);
    }

    #[test]
    fn runs_end_where_address_or_memory_jumps() {
        let before = vec![None; 6];
        assert_eq!(runs(&before, &vec![Some(4), Some(5), None, Some(7), Some(9), Some(10)]), 3);
        let bound: State = (0..6).map(Some).collect();
        assert_eq!(runs(&bound, &vec![None, None, Some(2), None, None, Some(5)]), 2);
    }

    #[test]
    fn a_flight_keeps_its_window_in_the_pool() {
        let flight = flight(64);
        let mut state = flight.start_state();
        for call in &flight.calls {
            call.iter().flatten().for_each(|bind| apply(&mut state, bind));
            let mut used: Vec<_> = state.iter().flatten().collect();
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), 48, "every block of the window has a place of its own");
            assert_eq!(state.iter().flatten().count(), 48, "what left the window is unbound");
        }
        assert!(!flight.is_closed() && identical(IMAGE).is_closed());
    }

    #[test]
    fn a_shuffle_names_every_page_once() {
        let mut order = shuffled(1000);
        assert!(order.windows(2).any(|pair| pair[0] > pair[1]));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }
}
