//! What a kernel back end tells the planner about its kernel.

/// Properties of a kernel's VM_BIND that decide what the best plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether the kernel has null mappings. Where it does not, a wanted [`Null`](crate::OpKind::Null) is planned as
    /// an [`Unmap`](crate::OpKind::Unmap).
    pub null_mapping: bool,
    /// Most operations in one call of the kernel, the length of [`Plan::chunks`](crate::Plan::chunks); 0 counts as 1.
    pub max_ops: usize,
    /// Bytes of which addresses, lengths and object offsets have to be multiples: a power of two.
    pub page_size: u64,
}

impl Default for Policy {
    /// 4 KiB pages, null mappings, no limit on the operations of a call.
    fn default() -> Self {
        Self { null_mapping: true, max_ops: usize::MAX, page_size: 4096 }
    }
}
