//! What a kernel back end tells the planner about its kernel.

/// Properties of a kernel's VM_BIND that decide what the best plan is: plain data, made by whoever knows the kernel.
///
/// # Examples
/// Panthor makes one job of every operation, with a lock and a flush of its own and page tables allocated for the
/// worst case; because the region is locked while it changes, what the GPU is using can be mapped again.
/// ```
/// # use gpuvm::{Cost, Policy};
/// let panthor = Policy {
///     page_size: 4096,
///     block_size: 2 << 20,
///     null_mapping: true, // since version 1.9 of the driver
///     max_ops: 256,
///     remap_in_use: true,
///     cost: Cost { op: 4000, table: 300, entry: 5, pages: 3000 },
///     ..Policy::default()
/// };
/// ```
/// Msm makes one job of all operations of a call. Those that are sorted share the tables of 2 MiB that are allocated
/// for them, within the call. Page tables are changed under a running GPU, so nothing that was not asked for may be
/// touched.
/// ```
/// # use gpuvm::{Cost, Policy};
/// let msm = Policy {
///     page_size: 4096,
///     block_size: 2 << 20,
///     null_mapping: true, // with HAS_PRR
///     max_ops: 1024,
///     shares_tables: true,
///     cost: Cost { op: 300, table: 300, entry: 5, pages: 3000 },
///     ..Policy::default()
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes of which addresses, lengths and object offsets have to be multiples: a power of two, or rounded up to one.
    pub page_size: u64,
    /// Bytes that one entry maps where address and object offset are multiples of it, and that one last-level page
    /// table covers where it is filled with pages: 2 MiB on the kernels of today. Rounded up to a power of two that is
    /// at least a page.
    pub block_size: u64,
    /// Whether the kernel has null mappings. Where it does not, a wanted [`Null`](crate::OpKind::Null) is planned as
    /// an [`Unmap`](crate::OpKind::Unmap).
    pub null_mapping: bool,
    /// Most operations in one call of the kernel, the length of [`Plan::chunks`](crate::Plan::chunks); 0 counts as 1.
    pub max_ops: usize,
    /// Whether operations of one call share the page tables that are allocated for them, when they are sorted. Then
    /// [`Plan::chunks`](crate::Plan::chunks) do not part operations in one table when that takes no call more, and a second
    /// operation in a table does not cost the table again.
    pub shares_tables: bool,
    /// Whether mapping again what is mapped already, while the GPU uses it, is safe. Then an operation may reach
    /// over mappings next to what was wanted that show what it would map.
    pub remap_in_use: bool,
    /// Whether the kernel leaves page table entries alone that show already what an operation maps (it honours
    /// `keep`). Then they cost nothing.
    pub keeps_entries: bool,
    /// What is cheap and what is dear.
    pub cost: Cost,
}

impl Default for Policy {
    /// 4 KiB pages, blocks of 2 MiB, null mappings, no limit on the operations of a call, nothing mapped again outside
    /// of what was wanted, and as few operations as possible.
    fn default() -> Self {
        Self {
            page_size: 4096,
            block_size: 2 << 20,
            null_mapping: true,
            max_ops: usize::MAX,
            shares_tables: false,
            remap_in_use: false,
            keeps_entries: false,
            cost: Cost::default(),
        }
    }
}

impl Policy {
    /// The policy with every value in its domain.
    pub(crate) fn in_force(self) -> Self {
        let power_of_two = |value: u64| value.max(1).checked_next_power_of_two().unwrap_or(1 << 63);
        let page_size = power_of_two(self.page_size);
        Self {
            page_size,
            block_size: power_of_two(self.block_size).max(page_size),
            max_ops: self.max_ops.max(1),
            cost: Cost { op: self.cost.op.max(1), ..self.cost },
            ..self
        }
    }
}

/// What a kernel's work costs, in any one unit, such as nanoseconds. The default counts operations alone.
///
/// The cost of a plan is the sum of
/// * [`op`](Self::op) for each operation,
/// * [`table`](Self::table) for each block that it touches,
/// * [`entry`](Self::entry) for each page table entry that it writes: one for a block that it maps as a whole, in
///   line (the distance of address and object offset is a multiple of the block; any null mapping is in line), and
///   else one for each page,
/// * [`pages`](Self::pages) for each block that could have been mapped as a whole by one operation, was to be
///   changed, and was not.
///
/// Unmaps cost `op` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// An operation: its job, its locks and flushes. 0 counts as 1.
    pub op: u32,
    /// A last-level page table that is allocated in advance.
    pub table: u32,
    /// A page table entry that is written, and the old one that is cleared.
    pub entry: u32,
    /// A block that stays in pages although one entry could map it: its table, and the TLB misses to come.
    pub pages: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { op: 1, table: 0, entry: 0, pages: 0 }
    }
}
