//! Power-off and reset, as ACPI's sleep control and reset registers.
//!
//! The registers hold no state: what a guest writes either ends the VM or does nothing.

use crate::boot::acpi::{RESET_VALUE, SLEEP_TYPE_OFF};
use crate::layout::{RESET_PORT, SLEEP_CONTROL_PORT};

/// `SLP_EN` of the sleep control register (ACPI 6.5 §4.8.3.7).
const SLEEP_ENABLE: u8 = 1 << 5;
/// `SLP_TYP` of the sleep control register, bits 2 to 4.
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0x7;

/// How a guest ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// It powered off.
    Off,
    /// It asked for a reset.
    Reset,
}

/// What a write of `value` to `port` asks for.
pub fn written(port: u16, value: u8) -> Option<PowerEvent> {
    match port {
        SLEEP_CONTROL_PORT => {
            let enabled = value & SLEEP_ENABLE != 0;
            let off = (value >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK == SLEEP_TYPE_OFF;
            (enabled && off).then_some(PowerEvent::Off)
        }
        RESET_PORT => (value == RESET_VALUE).then_some(PowerEvent::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_off_needs_type_and_enable() {
        assert_eq!(written(SLEEP_CONTROL_PORT, 0x34), Some(PowerEvent::Off));
        assert_eq!(written(SLEEP_CONTROL_PORT, 0x14), None);
        assert_eq!(written(SLEEP_CONTROL_PORT, 0x24), None);
    }

    #[test]
    fn reset_needs_its_value() {
        assert_eq!(written(RESET_PORT, RESET_VALUE), Some(PowerEvent::Reset));
        assert_eq!(written(RESET_PORT, 0), None);
        assert_eq!(written(0x80, RESET_VALUE), None);
    }
}
