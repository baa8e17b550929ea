//! Virtual processors: registers and CPUID before the first entry, the thread that runs one, and
//! what its exits mean.

pub mod cpuid;
pub mod exit;
pub mod kick;
pub mod lapic;
pub mod msr;
pub mod registers;
pub mod thread;
