//! What the page tables of real kernels map, read past their drivers by root: where a VM's table is ([`smmu`] for msm,
//! [`translation`] for panthor), the memory that it is in ([`kcore`]), and what is in the pages that it maps ([`mark`]).

pub mod kcore;
pub mod mark;
pub mod smmu;
pub mod translation;
