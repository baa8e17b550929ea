//! The size and the time that a VM is given, checked before anything is made.

use std::time::Duration;

use pyro_vmm::config::{MAX_VCPUS, MIN_MEMORY_MIB};

use crate::error::{Code, Error, Result};

/// The longest time limit of any kind: one day.
pub const MAX_SECONDS: u64 = 24 * 60 * 60;

/// What a VM gets and how long it and its command may take. Made by [`Limits::check`] only, so
/// whoever holds one holds values that make sense on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    vcpu_count: u8,
    memory_mib: u32,
    timeout: Duration,
    ttl: Duration,
}

/// What the caller asked for; the defaults are the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Virtual CPUs.
    pub vcpu_count: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Seconds that the command may take.
    pub timeout_seconds: u64,
    /// Seconds that the VM may live.
    pub ttl_seconds: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            memory_mib: 1024,
            timeout_seconds: 30,
            ttl_seconds: 600,
        }
    }
}

/// How much this host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Processors that this process may run on.
    pub cpus: usize,
    /// All memory in MiB.
    pub memory_mib: u64,
}

impl Host {
    /// This host.
    pub fn measure() -> Self {
        let info = rustix::system::sysinfo();
        let bytes = u128::from(info.totalram) * u128::from(info.mem_unit.max(1));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: u64::try_from(bytes >> 20).unwrap_or(u64::MAX),
        }
    }
}

impl Limits {
    /// Checks what the caller wants against the monitor's and the host's bounds.
    ///
    /// More virtual CPUs than the host has processors are allowed up to the monitor's maximum:
    /// they are slow, not wrong. More memory than the host has can never be backed.
    pub fn check(wanted: &Wanted, host: &Host) -> Result<Self> {
        let vcpu_count = u8::try_from(wanted.vcpu_count)
            .ok()
            .filter(|count| (1..=MAX_VCPUS).contains(count))
            .ok_or_else(|| {
                Error::new(
                    Code::VcpuCountOutOfRange,
                    format!("{} virtual CPUs are not possible", wanted.vcpu_count),
                    format!(
                        "pass --vcpu-count with 1 to {MAX_VCPUS}; this host has {} processors",
                        host.cpus
                    ),
                )
            })?;
        let most = host.memory_mib.min(u64::from(u32::MAX));
        let memory_mib = u32::try_from(wanted.memory_mib)
            .ok()
            .filter(|mib| *mib >= MIN_MEMORY_MIB && u64::from(*mib) <= most)
            .ok_or_else(|| {
                Error::new(
                    Code::MemoryOutOfRange,
                    format!(
                        "a guest with {} MiB of memory is not possible",
                        wanted.memory_mib
                    ),
                    format!(
                        "pass --mem-mib with {MIN_MEMORY_MIB} to {most}, all that this host has"
                    ),
                )
            })?;
        Ok(Self {
            vcpu_count,
            memory_mib,
            timeout: seconds("--timeout-seconds", wanted.timeout_seconds)?,
            ttl: seconds("--ttl-seconds", wanted.ttl_seconds)?,
        })
    }

    /// Virtual CPUs, 1 to [`MAX_VCPUS`].
    pub fn vcpu_count(&self) -> u8 {
        self.vcpu_count
    }

    /// Guest memory in MiB, at least [`MIN_MEMORY_MIB`] and at most what the host has.
    pub fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    /// How long the command may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long the VM may live.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}

fn seconds(flag: &str, value: u64) -> Result<Duration> {
    if (1..=MAX_SECONDS).contains(&value) {
        return Ok(Duration::from_secs(value));
    }
    Err(Error::new(
        Code::TimeOutOfRange,
        format!("{value} is no sensible value for {flag}"),
        format!("pass {flag} with 1 to {MAX_SECONDS} seconds"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host {
        cpus: 2,
        memory_mib: 4096,
    };

    fn code(wanted: Wanted) -> Code {
        Limits::check(&wanted, &HOST)
            .expect_err("must be refused")
            .code()
    }

    #[test]
    fn the_defaults_are_accepted() {
        let limits = Limits::check(&Wanted::default(), &HOST).expect("fine");

        assert_eq!((limits.vcpu_count(), limits.memory_mib()), (1, 1024));
        assert_eq!(limits.timeout(), Duration::from_secs(30));
    }

    #[test]
    fn zero_and_absurd_vcpu_counts_are_refused() {
        for vcpu_count in [0, 33, 257, u64::MAX] {
            let wanted = Wanted {
                vcpu_count,
                ..Wanted::default()
            };
            assert_eq!(code(wanted), Code::VcpuCountOutOfRange, "{vcpu_count}");
        }
    }

    #[test]
    fn too_little_and_too_much_memory_are_refused_with_the_hosts_bound() {
        for memory_mib in [0, 127, 4097, 1 << 32, u64::MAX] {
            let wanted = Wanted {
                memory_mib,
                ..Wanted::default()
            };
            assert_eq!(code(wanted), Code::MemoryOutOfRange, "{memory_mib}");
        }
        let wanted = Wanted {
            memory_mib: 1 << 40,
            ..Wanted::default()
        };
        let error = Limits::check(&wanted, &HOST).expect_err("must be refused");
        assert!(error.remedy().contains("128 to 4096"), "{}", error.remedy());
    }

    #[test]
    fn the_bounds_themselves_are_accepted() {
        for (vcpu_count, memory_mib) in [(1, 128), (32, 4096)] {
            let wanted = Wanted {
                vcpu_count,
                memory_mib,
                ..Wanted::default()
            };
            Limits::check(&wanted, &HOST).expect("in range");
        }
    }

    #[test]
    fn zero_and_endless_times_are_refused() {
        assert_eq!(
            code(Wanted {
                timeout_seconds: 0,
                ..Wanted::default()
            }),
            Code::TimeOutOfRange
        );
        assert_eq!(
            code(Wanted {
                ttl_seconds: 1 << 40,
                ..Wanted::default()
            }),
            Code::TimeOutOfRange
        );
    }
}
