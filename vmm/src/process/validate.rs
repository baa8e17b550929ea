//! Refuses configurations that cannot be a VM, before anything is made.

use crate::config::{Config, GENERATION, MAX_MTU, MAX_VCPUS, MIN_MEMORY_MIB, MIN_MTU};

/// What this host can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLimits {
    /// The host's RAM.
    pub memory_mib: u64,
    /// Processors that KVM allows in a VM.
    pub vcpus: usize,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    /// Another protocol generation.
    #[error("the configuration is of generation {0}; this monitor speaks {GENERATION}")]
    Generation(u32),
    /// Too few or too many processors.
    #[error("{asked} vCPUs are not possible; give 1 to {most}")]
    Vcpus {
        /// What was asked.
        asked: u8,
        /// The most here.
        most: usize,
    },
    /// Too little or too much memory.
    #[error("{asked} MiB of memory are not possible; give {MIN_MEMORY_MIB} to {most}")]
    Memory {
        /// What was asked.
        asked: u32,
        /// The most here.
        most: u64,
    },
    /// No layer to serve.
    #[error("the root has no immutable layer")]
    NoLayer,
    /// Nothing to start the guest's user space from.
    #[error("there is no initial ram file system")]
    NoInitramfs,
    /// A packet size that the network device cannot have.
    #[error("an mtu of {0} is not possible; give {MIN_MTU} to {MAX_MTU}")]
    Mtu(u16),
    /// An Ethernet address that no device can have.
    #[error("the network device's address is zero or not unicast")]
    Mac,
}

/// Checks the numbers of a configuration.
///
/// # Errors
/// The first that is wrong.
pub fn validate(config: &Config, host: HostLimits) -> Result<(), ValidationError> {
    if config.generation != GENERATION {
        return Err(ValidationError::Generation(config.generation));
    }
    let most = host.vcpus.min(usize::from(MAX_VCPUS));
    if config.vcpu_count == 0 || usize::from(config.vcpu_count) > most {
        return Err(ValidationError::Vcpus {
            asked: config.vcpu_count,
            most,
        });
    }
    let memory = u64::from(config.memory_mib);
    if config.memory_mib < MIN_MEMORY_MIB || memory > host.memory_mib {
        let most = host.memory_mib;
        return Err(ValidationError::Memory {
            asked: config.memory_mib,
            most,
        });
    }
    if config.root.layers.is_empty() {
        return Err(ValidationError::NoLayer);
    }
    if config.initramfs_fds.is_empty() {
        return Err(ValidationError::NoInitramfs);
    }
    if let Some(net) = &config.net {
        if !(MIN_MTU..=MAX_MTU).contains(&net.mtu) {
            return Err(ValidationError::Mtu(net.mtu));
        }
        // The lowest bit of the first byte: a group's.
        if net.mac[0] & 1 != 0 || net.mac == [0; 6] {
            return Err(ValidationError::Mac);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Net, PackedLayer, Root, Vsock};

    const HOST: HostLimits = HostLimits {
        memory_mib: 4096,
        vcpus: 8,
    };

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config {
            generation: GENERATION,
            vcpu_count: 1,
            memory_mib: 512,
            kvm_fd: 3,
            kernel_fd: 4,
            initramfs_fds: vec![5],
            root: Root {
                layers: vec![PackedLayer {
                    index_fd: 6,
                    data_fd: 7,
                }],
                frozen_fds: vec![],
                writable_fd: 8,
                quota_bytes: None,
                quota_inodes: None,
                ephemeral: false,
            },
            vsock: Vsock {
                guest_cid: 3,
                listener_fd: None,
                stream_fds: vec![],
                host_ports: vec![],
            },
            net: None,
            control_fd: 9,
            control_listener_fd: None,
            outlive_control: false,
            debug_console: false,
        };
        change(&mut config);
        config
    }

    #[test]
    fn a_plain_configuration_is_fine() {
        assert_eq!(validate(&config(|_| {}), HOST), Ok(()));
    }

    #[test]
    fn zero_and_absurd_processors_are_refused() {
        for asked in [0, 9, 255] {
            let result = validate(&config(|config| config.vcpu_count = asked), HOST);
            assert_eq!(result, Err(ValidationError::Vcpus { asked, most: 8 }));
        }
    }

    #[test]
    fn too_little_memory_and_more_than_the_hosts_are_refused() {
        for asked in [0, 127, 4097, u32::MAX] {
            let result = validate(&config(|config| config.memory_mib = asked), HOST);
            assert_eq!(result, Err(ValidationError::Memory { asked, most: 4096 }));
        }
    }

    #[test]
    fn another_generation_and_missing_parts_are_refused() {
        let check = |change: fn(&mut Config)| validate(&config(change), HOST);
        assert_eq!(
            check(|c| c.generation = 0),
            Err(ValidationError::Generation(0))
        );
        assert_eq!(
            check(|c| c.root.layers.clear()),
            Err(ValidationError::NoLayer)
        );
        assert_eq!(
            check(|c| c.initramfs_fds.clear()),
            Err(ValidationError::NoInitramfs)
        );
    }

    #[test]
    fn a_network_device_needs_a_possible_address_and_packet_size() {
        let check = |mac, mtu| {
            let net = Net {
                mac,
                mtu,
                backend_fd: 10,
            };
            validate(&config(|config| config.net = Some(net)), HOST)
        };
        let mac = [2, 0, 0, 0, 0, 1];
        assert_eq!(check(mac, 65520), Ok(()));
        for mtu in [0, 575, 65521] {
            assert_eq!(check(mac, mtu), Err(ValidationError::Mtu(mtu)));
        }
        for mac in [[0; 6], [1, 0, 0, 0, 0, 0], [0xff; 6]] {
            assert_eq!(check(mac, 1500), Err(ValidationError::Mac));
        }
    }
}
