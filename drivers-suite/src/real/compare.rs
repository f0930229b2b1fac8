//! Page tables beside what others say of them.

use super::{Content, Page};
use anyhow::{Context as _, Result, bail, ensure};
use kmd::gpuvas;
use oracle::mark::PAGE;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Two things that have to be one to one.
struct Pairs<A, B> {
    forth: HashMap<A, B>,
    back: HashMap<B, A>,
}

impl<A: Copy + Eq + Hash, B: Copy + Eq + Hash> Pairs<A, B> {
    fn new() -> Self {
        Self { forth: HashMap::new(), back: HashMap::new() }
    }

    /// Whether these can be a pair.
    fn fits(&mut self, a: A, b: B) -> bool {
        *self.forth.entry(a).or_insert(b) == b && *self.back.entry(b).or_insert(a) == a
    }
}

/// A mapping as the layer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    va: u64,
    len: u64,
    /// The GEM handle; 0 for a null mapping.
    handle: u64,
    offset: u64,
}

impl Account {
    /// Reads lines of four numbers.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let line = |line: &str| {
            let numbers: Option<Vec<_>> =
                line.split(' ').map(|word| u64::from_str_radix(word, 16).ok()).collect();
            match numbers.as_deref() {
                Some(&[va, len, handle, offset]) => Ok(Self { va, len, handle, offset }),
                _ => bail!("a line that makes no sense: {line}"),
            }
        };
        text.lines().map(line).collect()
    }
}

/// The tables have to map what the kernel says, page by page, and nothing else.
pub fn with_account(pages: &[Page], account: &[gpuvas::Mapping]) -> Result<()> {
    let said = account.iter().flat_map(|&gpuvas::Mapping { va, len, object, offset }| {
        (0..len).step_by(PAGE as usize).map(move |at| (va + at, object, offset + at))
    });
    let (mut physical, mut names) = (Pairs::new(), Pairs::new());
    let (mut null, mut others) = (None, HashSet::new());
    let mut count = 0;
    for (page, said) in pages.iter().zip(said) {
        let (va, object, offset) = said;
        let fits = match page.content {
            // One object for all, whatever it is.
            Content::Null => *null.get_or_insert(object) == object,
            Content::Memory(name, at) => {
                at == offset && names.fits(name, object) && physical.fits(page.physical, (object, offset))
            }
            Content::Own => physical.fits(page.physical, (object, offset)),
        };
        if page.content != Content::Null {
            others.insert(object);
        }
        ensure!(page.va == va && fits, "the page table has {page:x?}, said is {said:x?}");
        count += 1;
    }
    ensure!(null.is_none_or(|null| !others.contains(&null)), "null mappings are of an object of others");
    let said: u64 = account.iter().map(|mapping| mapping.len / PAGE).sum();
    ensure!(count == pages.len() && count as u64 == said, "{} pages are mapped, said is {said}", pages.len());
    Ok(())
}

/// What the mirror has the tables have to map. What else they map of the suite's memory is where the driver has that itself, once; and
/// nothing else is unbound.
pub fn with_mirror(pages: &[Page], mirror: &[Account]) -> Result<()> {
    let mut names = Pairs::new();
    let mut left: HashMap<u64, &Page> = pages.iter().map(|page| (page.va, page)).collect();
    for mapping in mirror {
        for at in (0..mapping.len).step_by(PAGE as usize) {
            let va = mapping.va + at;
            let page = left.remove(&va).with_context(|| format!("{mapping:x?}: {va:#x} is not mapped"))?;
            let fits = match page.content {
                Content::Null => mapping.handle == 0,
                Content::Memory(name, offset) => {
                    mapping.handle != 0 && offset == mapping.offset + at && names.fits(name, mapping.handle)
                }
                Content::Own => false,
            };
            ensure!(fits, "{mapping:x?}, the page table has {page:x?}");
        }
    }
    let mut once = HashSet::new();
    for page in pages.iter().filter(|page| left.contains_key(&page.va)) {
        let fits = match page.content {
            Content::Null => false,
            Content::Memory(name, offset) => once.insert((name, offset)),
            Content::Own => true,
        };
        ensure!(fits, "it does not have {page:x?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: [(u64, u64, Content); 6] = [
        (1, 10, Content::Own),
        (2, 20, Content::Memory(1, 0)),
        (3, 21, Content::Memory(1, PAGE)),
        (5, 21, Content::Memory(1, PAGE)),
        (6, 99, Content::Null),
        (7, 99, Content::Null),
    ];

    fn pages(from: &[(u64, u64, Content)]) -> Vec<Page> {
        from.iter()
            .map(|&(va, physical, content)| Page { va: va * PAGE, physical: physical * PAGE, content })
            .collect()
    }

    #[test]
    fn the_account_is_of_every_page() {
        let said = |va: u64, len: u64, object, offset: u64| gpuvas::Mapping {
            va: va * PAGE,
            len: len * PAGE,
            object,
            offset: offset * PAGE,
        };
        let account = [said(1, 1, 5, 0), said(2, 2, 6, 0), said(5, 1, 6, 1), said(6, 2, 7, 0)];
        with_account(&pages(&PAGES), &account).unwrap();
        // Another offset, another object, one object for two, nothing there, too much there.
        for (n, wrong) in
            [(2, said(5, 1, 6, 0)), (2, said(5, 1, 8, 1)), (0, said(1, 1, 6, 1)), (3, said(6, 2, 6, 0))]
        {
            let mut account = account;
            account[n] = wrong;
            assert!(with_account(&pages(&PAGES), &account).is_err(), "{wrong:x?}");
        }
        assert!(with_account(&pages(&PAGES[..5]), &account).is_err());
        assert!(with_account(&pages(&PAGES), &account[..3]).is_err());
    }

    #[test]
    fn the_mirror_is_of_what_is_bound() {
        let mirror = Account::parse("5000 1000 3 1000\n6000 2000 0 0\n").unwrap();
        with_mirror(&pages(&PAGES), &mirror).unwrap();
        for wrong in [
            "5000 1000 3 0\n6000 2000 0 0\n",
            "5000 1000 3 1000\n6000 1000 0 0\n",
            "5000 1000 3 1000\n6000 3000 0 0\n",
            "5000 1000 0 0\n6000 2000 0 0\n",
            "2000 1000 4 0\n5000 1000 3 1000\n6000 2000 0 0\n",
            "1000 1000 3 0\n5000 1000 3 1000\n6000 2000 0 0\n",
            "6000 2000 0 0\n",
        ] {
            assert!(with_mirror(&pages(&PAGES), &Account::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
        assert!(Account::parse("1 2 3").is_err());
    }
}
