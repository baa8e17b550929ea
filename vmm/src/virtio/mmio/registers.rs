//! Register names and numbers (virtio 1.2 §4.2.2, table 4.1).

/// Offset of `QueueNotify`.
pub const QUEUE_NOTIFY: u64 = Register::QueueNotify as u64;

/// Bits of `Status` (virtio 1.2 §2.1).
pub(super) mod status {
    /// The guest has seen the device.
    pub(in super::super) const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub(in super::super) const DRIVER: u32 = 2;
    /// The driver is ready.
    pub(in super::super) const DRIVER_OK: u32 = 4;
    /// Feature negotiation is complete.
    pub(in super::super) const FEATURES_OK: u32 = 8;
    /// The device is broken until it is reset.
    pub(in super::super) const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub(in super::super) const FAILED: u32 = 128;
}

macro_rules! registers {
    ($($name:ident = $offset:literal,)*) => {
        /// A 32-bit register.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub(super) enum Register {
            $($name = $offset,)*
        }

        impl Register {
            /// The register at this offset.
            pub(super) fn at(offset: u64) -> Option<Self> {
                match offset {
                    $($offset => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

registers! {
    MagicValue = 0x000,
    Version = 0x004,
    DeviceId = 0x008,
    VendorId = 0x00c,
    DeviceFeatures = 0x010,
    DeviceFeaturesSelect = 0x014,
    DriverFeatures = 0x020,
    DriverFeaturesSelect = 0x024,
    QueueSelect = 0x030,
    QueueSizeMax = 0x034,
    QueueSize = 0x038,
    QueueReady = 0x044,
    QueueNotify = 0x050,
    InterruptStatus = 0x060,
    InterruptAck = 0x064,
    Status = 0x070,
    QueueDescLow = 0x080,
    QueueDescHigh = 0x084,
    QueueDriverLow = 0x090,
    QueueDriverHigh = 0x094,
    QueueDeviceLow = 0x0a0,
    QueueDeviceHigh = 0x0a4,
    SharedMemorySelect = 0x0ac,
    SharedMemoryLengthLow = 0x0b0,
    SharedMemoryLengthHigh = 0x0b4,
    SharedMemoryBaseLow = 0x0b8,
    SharedMemoryBaseHigh = 0x0bc,
    ConfigGeneration = 0x0fc,
}
