//! What a driver, right or hostile, can do at the registers.

use event_manager::{EventOps, Events};
use proptest::prelude::*;
use vmm_sys_util::epoll::EventSet;

use super::*;
use crate::virtio::device::{ActiveDevice, DeviceError};
use crate::virtio::test_driver::{BUFFERS, Driver, MEMORY_SIZE, Ring, memory, wait_for};

/// Returns every chain at once, unread.
struct Echo;

impl VirtioDevice for Echo {
    fn device_type(&self) -> u32 {
        42
    }

    fn name(&self) -> &'static str {
        "echo"
    }

    fn features(&self) -> u64 {
        1 << 5
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 8]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        assert_eq!(offset, 0);
        data[..4].copy_from_slice(b"conf");
    }

    fn activate(self: Box<Self>, mut activation: Activation) -> Box<dyn ActiveDevice> {
        let queues = activation.take_queues();
        Box::new(ActiveEcho {
            queues,
            interrupt: activation.interrupt,
        })
    }
}

struct ActiveEcho {
    queues: [ActiveQueue; 2],
    interrupt: Interrupt,
}

impl ActiveDevice for ActiveEcho {
    fn register(&mut self, ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        for queue in &self.queues {
            ops.add(Events::new(queue.kick(), EventSet::IN))?;
        }
        Ok(())
    }

    fn process(&mut self, _event: Events, _ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        for queue in &mut self.queues {
            queue.drain_kick();
            while let Some(chain) = queue.pop()? {
                queue.push_used(chain.head(), 0)?;
            }
            queue.enable_notification()?;
            if queue.needs_interrupt()? {
                self.interrupt.used_buffer();
            }
        }
        Ok(())
    }

    fn reset(self: Box<Self>) -> Box<dyn VirtioDevice> {
        Box::new(Echo)
    }
}

const STATUS: u64 = 0x070;
const PHASES: [(Phase, &[u32]); 4] = [
    (Phase::Reset, &[]),
    (Phase::Acknowledged, &[1]),
    (Phase::Driver, &[1, 3]),
    (Phase::FeaturesOk, &[1, 3, 11]),
];

fn driver() -> Driver {
    Driver::new(Box::new(Echo), &memory())
}

/// A driver that has come to this phase, accepting what every driver must.
fn driver_in(statuses: &[u32]) -> Driver {
    let mut driver = driver();
    for status in statuses {
        if *status == 11 {
            driver.write(0x024, 1);
            driver.write(0x020, 1); // VIRTIO_F_VERSION_1
        }
        driver.write(STATUS, *status);
    }
    driver
}

#[test]
fn identity_and_configuration_can_be_read_in_any_phase() {
    for (phase, statuses) in PHASES {
        let mut driver = driver_in(statuses);
        assert_eq!(driver.transport.phase, phase);
        assert_eq!(driver.read(0x000), u32::from_le_bytes(*b"virt"));
        assert_eq!(driver.read(0x004), 2);
        assert_eq!(driver.read(0x008), 42);
        assert_eq!(driver.read(0x034), 16);
        assert_eq!(driver.read(0x100), u32::from_le_bytes(*b"conf"));
        assert_eq!(driver.read(0x0fc), 0);
        // No shared memory region: all ones (§4.2.2).
        assert_eq!(
            (driver.read(0x0b0), driver.read(0x0b4)),
            (u32::MAX, u32::MAX)
        );
    }
}

#[test]
fn the_configuration_space_is_read_at_any_width_and_ends_in_zeroes() {
    let mut driver = driver();
    let mut byte = [0xff];
    driver.transport.read(0x103, &mut byte);
    assert_eq!(byte, *b"f");
    let mut wide = [0xff; 8];
    driver.transport.read(0x102, &mut wide);
    assert_eq!(&wide, b"nf\0\0\0\0\0\0");
    driver.transport.read(0xfff, &mut wide);
    assert_eq!(wide, [0; 8]);
    driver.transport.read(u64::MAX, &mut wide);
    assert_eq!(wide, [0; 8]);
    driver.transport.write(0x100, b"evil");
    assert_eq!(driver.read(0x100), u32::from_le_bytes(*b"conf"));
}

#[test]
fn a_write_changes_only_what_its_phase_allows() {
    let feature_register = 0x020;
    let queue_registers = [0x038, 0x044, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4];
    for (phase, statuses) in PHASES {
        for offset in (0..0x100).step_by(4).filter(|offset| *offset != STATUS) {
            let mut driver = driver_in(statuses);
            driver.write(0x024, 0);
            let (accepted, queues) = (driver.transport.accepted, driver.transport.queues.clone());
            driver.write(offset, 1);
            let accepts = driver.transport.accepted != accepted;
            let configures = driver.transport.queues != queues;
            let at = format!("{phase:?} {offset:#x}");
            assert_eq!(
                accepts,
                phase == Phase::Driver && offset == feature_register,
                "{at}"
            );
            let expected = phase == Phase::FeaturesOk && queue_registers.contains(&offset);
            assert_eq!(configures, expected, "{at}");
            assert_eq!(driver.transport.phase, phase, "{at}");
        }
    }
}

#[test]
fn nothing_but_a_reset_changes_a_running_device() {
    let memory = memory();
    let mut driver = Driver::new(Box::new(Echo), &memory);
    let rings = [Ring::new(&memory, 0, 16), Ring::new(&memory, 1, 8)];
    driver.start(&[&rings[0], &rings[1]]);
    assert_eq!(driver.read(STATUS), 15);
    let (accepted, queues) = (driver.transport.accepted, driver.transport.queues.clone());
    for offset in (0..0x200).step_by(4).filter(|offset| *offset != STATUS) {
        for value in [0, 1, u32::MAX] {
            driver.write(offset, value);
        }
    }
    assert_eq!(driver.transport.accepted, accepted);
    assert_eq!(driver.transport.queues, queues);
    assert_eq!(driver.read(STATUS), 15);
}

#[test]
fn only_whole_aligned_words_reach_a_register() {
    let mut driver = driver_in(&[1, 3]);
    for width in [1, 2, 3, 5, 8] {
        driver.transport.write(STATUS, &vec![0; width]);
        assert_eq!(driver.read(STATUS), 3, "width {width}");
        let mut data = vec![0xff; width];
        driver.transport.read(0, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "width {width}");
    }
    for offset in [0x071, 0x072, 0x073, 0x06f] {
        driver.write(offset, 0);
        assert_eq!(driver.read(offset), 0);
    }
    assert_eq!(driver.read(STATUS), 3);
}

#[test]
fn status_goes_forward_one_step_at_a_time() {
    let next = |phase| match phase {
        Phase::Reset => 1,
        Phase::Acknowledged => 3,
        Phase::Driver => 11,
        Phase::FeaturesOk | Phase::Running => 15,
    };
    for (phase, statuses) in PHASES {
        for value in 1..256u32 {
            let mut driver = driver_in(statuses);
            if phase == Phase::Driver {
                driver.write(0x024, 1);
                driver.write(0x020, 1);
            }
            driver.write(STATUS, value);
            let now = driver.transport.phase;
            // Bit 6 belongs to the device; bit 7 gives up.
            let advances = value & !64 == next(phase);
            assert_eq!(now > phase, advances, "{phase:?} {value:#x}");
            assert_eq!(
                driver.read(STATUS) & 128,
                value & 128,
                "{phase:?} {value:#x}"
            );
        }
    }
}

#[test]
fn a_driver_that_gave_up_must_reset() {
    let mut driver = driver_in(&[1, 3]);
    driver.write(STATUS, 128 | 3);
    driver.write(STATUS, 11);
    assert_eq!(driver.read(STATUS), 128 | 3);
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0);
}

#[test]
fn unknown_features_and_legacy_drivers_are_refused() {
    // (low word, high word)
    for (low, high, accepted) in [
        (0, 1, true),
        (1 << 5, 1, true),
        (0, 0, false),
        (1 << 6, 1, false),
        (0, 1 | 1 << 31, false),
    ] {
        let mut driver = driver_in(&[1, 3]);
        for (select, word) in [(0, low), (1, high)] {
            driver.write(0x024, select);
            driver.write(0x020, word);
        }
        // There are no further words.
        driver.write(0x024, 2);
        driver.write(0x020, u32::MAX);
        driver.write(STATUS, 11);
        assert_eq!(driver.read(STATUS) == 11, accepted, "{low:#x} {high:#x}");
    }
}

#[test]
fn a_start_without_all_queues_needs_a_reset_and_recovers() {
    let memory = memory();
    let mut driver = Driver::new(Box::new(Echo), &memory);
    let mut ring = Ring::new(&memory, 0, 16);
    let other = Ring::new(&memory, 1, 8);
    driver.start(&[&ring]);
    assert!(driver.needs_reset());
    driver.start(&[&ring, &other]);
    assert_eq!(driver.read(STATUS), 15);
    ring.add(&[(BUFFERS, 16, true)]);
    driver.kick(0);
    assert_eq!(ring.wait_used(), (0, 0));
}

#[test]
fn rings_outside_memory_or_misaligned_need_a_reset() {
    for (offset, low, high) in [
        (0x080, MEMORY_SIZE as u32, 0),
        (0x090, 0, 1),
        (0x0a0, !3, u32::MAX),
        (0x0a0, MEMORY_SIZE as u32 - 4, 0),
        (0x080, 0x1_0001, 0),
        (0x090, 0x1_0001, 0),
        (0x0a0, 0x1_0002, 0),
    ] {
        let memory = memory();
        let mut driver = driver_in(&[1, 3, 11]);
        let rings = [Ring::new(&memory, 0, 16), Ring::new(&memory, 1, 8)];
        driver.set_up_queue(0, &rings[0]);
        driver.set_up_queue(1, &rings[1]);
        driver.write(0x044, 0);
        driver.write(offset, low);
        driver.write(offset + 4, high);
        driver.write(0x044, 1);
        driver.write(STATUS, 15);
        assert!(driver.needs_reset(), "{offset:#x} {low:#x}");
    }
}

#[test]
fn a_ready_queue_keeps_its_registers() {
    let memory = memory();
    let mut driver = driver_in(&[1, 3, 11]);
    driver.set_up_queue(0, &Ring::new(&memory, 0, 16));
    let queues = driver.transport.queues.clone();
    for offset in [0x038, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4] {
        driver.write(offset, 2);
    }
    assert_eq!(driver.transport.queues, queues);
}

#[test]
fn queue_sizes_that_cannot_be_are_ignored() {
    let mut driver = driver_in(&[1, 3, 11]);
    for size in [0, 3, 32, 0x1_0010, u32::MAX] {
        driver.write(0x038, size);
        assert_eq!(driver.transport.queues[0].size, 16, "{size}");
    }
    driver.write(0x030, 2);
    assert_eq!(driver.read(0x034), 0);
    driver.write(0x038, 4);
    driver.write(0x044, 1);
    assert_eq!(driver.read(0x044), 0);
}

#[test]
fn a_kick_before_activation_is_not_lost() {
    let memory = memory();
    let mut driver = Driver::new(Box::new(Echo), &memory);
    let mut ring = Ring::new(&memory, 0, 16);
    let other = Ring::new(&memory, 1, 8);
    ring.add(&[(BUFFERS, 16, false)]);
    driver.kick(0);
    driver.start(&[&ring, &other]);
    assert_eq!(ring.wait_used(), (0, 0));
    wait_for(|| (driver.read(0x060) == 1).then_some(()));
    driver.write(0x064, 1);
    assert_eq!(driver.read(0x060), 0);
}

#[test]
fn kicks_of_queues_that_do_not_exist_are_ignored() {
    let mut driver = driver();
    for queue in [2, 3, u32::MAX] {
        driver.kick(queue);
    }
}

#[test]
fn a_broken_queue_stops_the_device_until_reset() {
    let memory = memory();
    let mut driver = Driver::new(Box::new(Echo), &memory);
    let mut ring = Ring::new(&memory, 0, 16);
    let other = Ring::new(&memory, 1, 8);
    driver.start(&[&ring, &other]);
    ring.add(&[(MEMORY_SIZE, 1, false)]);
    driver.kick(0);
    wait_for(|| driver.needs_reset().then_some(()));
    assert_eq!(ring.take_used(), None);
    assert_eq!(driver.read(0x060) & 2, 2);
    // It stays quiet, however much it is kicked.
    driver.kick(0);
    driver.kick(1);
    drop(ring);
    let mut ring = Ring::new(&memory, 0, 16);
    driver.start(&[&ring, &other]);
    assert!(!driver.needs_reset());
    ring.add(&[(BUFFERS, 1, false)]);
    driver.kick(0);
    assert_eq!(ring.wait_used(), (0, 0));
}

#[derive(Debug, Clone)]
enum Access {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Word(u64, u32),
}

fn access() -> impl Strategy<Value = Access> {
    let offset = prop_oneof![4 => (0u64..0x44).prop_map(|word| word * 4), 1 => 0u64..0x1100];
    let value = prop_oneof![
        Just(0),
        Just(1),
        Just(3),
        Just(11),
        Just(15),
        Just(16),
        0u32..256,
        Just(0x1_0000),
        Just(0x2_0000),
        any::<u32>()
    ];
    prop_oneof![
        1 => (offset.clone(), 0usize..9).prop_map(|(at, len)| Access::Read(at, len)),
        1 => (offset.clone(), proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(at, bytes)| Access::Write(at, bytes)),
        3 => (Just(STATUS), prop_oneof![Just(1), Just(3), Just(11), Just(15), Just(0)])
            .prop_map(|(at, value)| Access::Word(at, value)),
        6 => (offset, value).prop_map(|(at, value)| Access::Word(at, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_script_leaves_a_device_that_a_reset_repairs(
        script in proptest::collection::vec(access(), 1..120),
        // Rings and descriptors full of nonsense.
        noise in proptest::collection::vec(any::<u8>(), 512),
    ) {
        use vm_memory::{Bytes, GuestAddress};
        let memory = memory();
        for at in [0u64, 0x1_0000, 0x2_0000] {
            memory.write_slice(&noise, GuestAddress(at)).unwrap();
        }
        let mut driver = Driver::new(Box::new(Echo), &memory);
        for access in script {
            match access {
                Access::Read(at, len) => driver.transport.read(at, &mut vec![0; len]),
                Access::Write(at, bytes) => driver.transport.write(at, &bytes),
                Access::Word(at, value) => driver.write(at, value),
            }
        }
        let mut ring = Ring::new(&memory, 0, 16);
        let other = Ring::new(&memory, 1, 8);
        driver.write(STATUS, 0);
        driver.start(&[&ring, &other]);
        prop_assert_eq!(driver.read(STATUS), 15);
        ring.add(&[(BUFFERS, 4, false)]);
        driver.kick(0);
        ring.wait_used();
    }
}
