//! The cheapest operations over one line: over addresses whose content, as it shall be, continues from the first to
//! the last byte. What differs has to be covered by an operation; what is there already may be.

use crate::Policy;

/// A part of a line that differs from what is mapped, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) differs: bool,
}

/// [`Cost`](crate::Cost) and what it depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prices {
    pub(crate) block: u64,
    op: u64,
    table: u64,
    entry: u64,
    pages: u64,
    block_pages: u64,
    page_shift: u32,
    shares_tables: bool,
    keeps_entries: bool,
}

impl Prices {
    pub(crate) fn new(policy: &Policy) -> Self {
        let Policy { page_size, block_size, shares_tables, keeps_entries, cost, .. } = *policy;
        Self {
            block: block_size,
            op: cost.op.into(),
            table: cost.table.into(),
            entry: cost.entry.into(),
            pages: cost.pages.into(),
            block_pages: block_size / page_size,
            page_shift: page_size.trailing_zeros(),
            shares_tables,
            keeps_entries,
        }
    }

    /// What unmaps cost.
    pub(crate) fn of_unmaps(self) -> Self {
        Self { table: 0, entry: 0, pages: 0, ..self }
    }

    /// Whether it can be worth while to make an operation longer than what differs, to complete a block.
    pub(crate) fn rewards_blocks(&self) -> bool {
        self.entry > 0 || self.pages > 0
    }

    /// The length from which on a part that is there already costs more than any two operations around it that leave
    /// it alone.
    pub(crate) fn longest_bridge(&self) -> u64 {
        let spent = self.table + if self.keeps_entries { 0 } else { self.entry };
        let edge = self.entry.saturating_mul(self.block_pages).saturating_add(self.table + self.pages);
        let saved = edge.saturating_mul(2).saturating_add(self.op);
        saved
            .checked_div(spent)
            .map_or(u64::MAX, |blocks| blocks.saturating_add(2).saturating_mul(self.block))
    }

    fn entries(&self, count: u64, differs: bool) -> u64 {
        if differs || !self.keeps_entries { count.saturating_mul(self.entry) } else { 0 }
    }
}

/// Operations that end before the current address, and perhaps one that does not.
#[derive(Clone, Copy, Debug)]
struct Path {
    cost: u64,
    /// The last finished operation, in [`Cover::ended`].
    ended: usize,
    /// Where the unfinished operation begins.
    start: u64,
}

impl Path {
    const NEVER: Self = Self { cost: u64::MAX, ended: NONE, start: 0 };

    fn plus(self, cost: u64) -> Self {
        Self { cost: self.cost.saturating_add(cost), ..self }
    }

    fn begin(self, start: u64, cost: u64) -> Self {
        Self { start, ..self.plus(cost) }
    }

    /// The cheaper one, `self` if they cost the same.
    fn or(self, other: Self) -> Self {
        if other.cost < self.cost { other } else { self }
    }
}

const NONE: usize = usize::MAX;

/// An operation, and the one before it on the same path.
#[derive(Clone, Copy, Debug)]
struct Ended {
    start: u64,
    end: u64,
    before: usize,
}

/// Finds the cheapest cover block by block. At every address it knows the cheapest way to get there without an
/// operation over it, and with one; in a block that can be mapped as a whole also the cheapest with one that covers
/// the block from its beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cover {
    ended: Vec<Ended>,
}

impl Cover {
    /// Gives the operations over `pieces`, which follow each other without a gap, as starts and ends from the last
    /// one to the first. `in_line` says whether blocks can be mapped as a whole.
    pub(crate) fn operations(
        &mut self,
        pieces: &[Piece],
        prices: &Prices,
        in_line: bool,
    ) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ended.clear();
        let mut last = self.cheapest(pieces, prices, in_line).ended;
        core::iter::from_fn(move || {
            let Ended { start, end, before } = *self.ended.get(last)?;
            last = before;
            Some((start, end))
        })
    }

    fn cheapest(&mut self, pieces: &[Piece], prices: &Prices, in_line: bool) -> Path {
        let Some(end) = pieces.last().map(|piece| piece.end) else { return Path::NEVER };
        let mut closed = Path { cost: 0, ended: NONE, start: 0 };
        let mut open = Path::NEVER;
        let mut pieces = pieces.iter().copied().peekable();
        while let Some(&Piece { start, end: piece_end, differs }) = pieces.peek() {
            let within = start & (prices.block - 1);
            let blocks = if within == 0 { (piece_end - start) / prices.block } else { 0 };
            if blocks > 0 {
                // Block for block the same.
                let stop = start + blocks * prices.block;
                let entries = if in_line { 1 } else { prices.block_pages };
                let cost =
                    prices.table.saturating_add(prices.entries(entries, differs)).saturating_mul(blocks);
                if differs {
                    open = closed.begin(start, prices.op).or(open);
                }
                open = open.plus(cost);
                if differs {
                    closed = self.end(open, stop);
                }
                advance(&mut pieces, stop);
                continue;
            }
            let block_end = start.saturating_add(prices.block - within);
            let whole = in_line && within == 0 && end - start >= prices.block;
            let mut full = if whole { open.or(closed.begin(start, prices.op)) } else { Path::NEVER };
            full = full.plus(prices.table);
            open = open.plus(prices.table);
            let mut changes = false;
            while let Some(&Piece { start, end, differs }) = pieces.peek()
                && start < block_end
            {
                let stop = end.min(block_end);
                let cost = prices.entries((stop - start) >> prices.page_shift, differs);
                if differs {
                    let table = if prices.shares_tables && changes { 0 } else { prices.table };
                    open = closed.begin(start, prices.op + table).or(open).plus(cost);
                    closed = self.end(open, stop);
                    changes = true;
                } else {
                    open = open.plus(cost);
                }
                advance(&mut pieces, stop);
            }
            if whole && changes {
                closed = closed.plus(prices.pages);
                open = open.plus(prices.pages);
            }
            full = full.plus(prices.entries(1, changes));
            if full.cost < open.cost {
                open = full;
                if full.cost < closed.cost {
                    closed = self.end(full, block_end);
                }
            }
        }
        closed
    }

    fn end(&mut self, path: Path, end: u64) -> Path {
        if path.cost == u64::MAX {
            return path;
        }
        self.ended.push(Ended { start: path.start, end, before: path.ended });
        Path { ended: self.ended.len() - 1, ..path }
    }
}

/// Leaves of the pieces what is from `to` on, which is in the first of them or at its end.
fn advance(pieces: &mut core::iter::Peekable<impl Iterator<Item = Piece>>, to: u64) {
    if let Some(piece) = pieces.peek_mut() {
        piece.start = to;
        if piece.start == piece.end {
            pieces.next();
        }
    }
}
