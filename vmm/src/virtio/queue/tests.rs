//! Chains that keep the rules, and chains that do not (virtio 1.2 §2.7).

use proptest::prelude::*;
use vm_memory::Bytes;

use super::*;
use crate::virtio::test_driver::{BUFFERS, INDIRECT, MEMORY_SIZE, NEXT, Ring, WRITE, memory};

const SIZE: u16 = 16;

fn queue(ring: &Ring<'_>, memory: &GuestMemory) -> ActiveQueue {
    let queue: Queue = ring.queue();
    ActiveQueue::new(
        queue,
        memory.clone(),
        EventFd::new(libc::EFD_NONBLOCK).unwrap(),
    )
    .unwrap()
}

/// What popping a chain with these descriptors, the first of them its head, gives.
fn pop(descriptors: &[(u64, u32, u16, u16)]) -> Result<Option<Chain>, QueueError> {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0, SIZE);
    ring.write_descriptors(0, descriptors);
    ring.make_available(0);
    queue(&ring, &memory).pop()
}

fn fault(descriptors: &[(u64, u32, u16, u16)]) -> ChainFault {
    match pop(descriptors) {
        Err(QueueError::BadChain { head: 0, fault }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_proper_chain_is_read_and_written_across_its_segments() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0, SIZE);
    let segments = [
        (0, 3, false),
        (64, 5, false),
        (128, 4, true),
        (256, 100, true),
    ];
    ring.add(&segments.map(|(at, len, writable)| (BUFFERS + at, len, writable)));
    memory.write_slice(b"abc", GuestAddress(BUFFERS)).unwrap();
    memory
        .write_slice(b"defgh", GuestAddress(BUFFERS + 64))
        .unwrap();
    let mut queue = queue(&ring, &memory);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (8, 104));
    let mut reader = chain.reader();
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"abcd");
    assert_eq!((reader.remaining(), reader.consumed()), (4, 4));
    let mut too_many = [0; 5];
    assert!(reader.read_exact(&mut too_many).is_err());
    assert_eq!(reader.remaining(), 4);
    let mut writer = chain.writer();
    writer.write_all(b"123456").unwrap();
    assert!(writer.write_all(&[0; 99]).is_err());
    queue.push_used(chain.head(), writer.consumed()).unwrap();
    assert_eq!(ring.take_used(), Some((0, 6)));
    assert_eq!(ring.read(BUFFERS + 128, 4), b"1234");
    assert_eq!(ring.read(BUFFERS + 256, 3), b"56\0");
    assert!(queue.pop().unwrap().is_none());
}

#[test]
fn cursors_skip_and_split_at_any_byte() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0, SIZE);
    ring.add(&[(BUFFERS, 3, false), (BUFFERS + 16, 3, false)]);
    memory.write_slice(b"abc", GuestAddress(BUFFERS)).unwrap();
    memory
        .write_slice(b"def", GuestAddress(BUFFERS + 16))
        .unwrap();
    let chain = queue(&ring, &memory).pop().unwrap().unwrap();
    for at in 0..=6 {
        let mut rest = chain.reader();
        let mut front = rest.split_to(at);
        let mut bytes = vec![0; at];
        front.read_exact(&mut bytes).unwrap();
        assert_eq!(front.remaining(), 0);
        assert!(front.slices(usize::MAX).next().is_none());
        let mut tail = vec![0; 6 - at];
        rest.read_exact(&mut tail).unwrap();
        bytes.extend(tail);
        assert_eq!(bytes, b"abcdef");
        rest.skip(usize::MAX);
        assert_eq!(rest.consumed(), 6);
    }
}

#[test]
fn a_loop_ends() {
    assert_eq!(fault(&[(BUFFERS, 1, NEXT, 0)]), ChainFault::Unterminated);
    let two = [(BUFFERS, 1, NEXT, 1), (BUFFERS, 1, NEXT, 0)];
    assert_eq!(fault(&two), ChainFault::Unterminated);
}

#[test]
fn an_index_out_of_range_is_refused() {
    assert_eq!(fault(&[(BUFFERS, 1, NEXT, SIZE)]), ChainFault::Unterminated);
    assert_eq!(
        fault(&[(BUFFERS, 1, NEXT, u16::MAX)]),
        ChainFault::Unterminated
    );
    let memory = memory();
    let mut ring = Ring::new(&memory, 0, SIZE);
    ring.make_available(SIZE);
    assert!(queue(&ring, &memory).pop().is_err());
}

#[test]
fn segments_outside_memory_are_refused() {
    for (address, len) in [
        (MEMORY_SIZE, 1),
        (MEMORY_SIZE - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - 3, u32::MAX),
        (0, u32::MAX),
        (1 << 63, 8),
    ] {
        assert_eq!(fault(&[(address, len, 0, 0)]), ChainFault::OutsideMemory);
        assert_eq!(
            fault(&[(address, len, WRITE, 0)]),
            ChainFault::OutsideMemory
        );
    }
}

#[test]
fn lengths_that_overflow_together_are_refused() {
    let whole = MEMORY_SIZE as u32;
    // Each fits; a real overflow of 32 bits needs more segments than a queue of 16 has.
    let chain: Vec<_> = (1..=16)
        .map(|next| (0, whole, if next < 16 { NEXT } else { 0 }, next))
        .collect();
    let chain = pop(&chain).unwrap().unwrap();
    assert_eq!(chain.readable_len(), 16 << 20);
}

#[test]
fn readable_after_writable_is_refused() {
    let chain = [(BUFFERS, 1, WRITE | NEXT, 1), (BUFFERS, 1, 0, 0)];
    assert_eq!(fault(&chain), ChainFault::ReadableAfterWritable);
}

#[test]
fn empty_segments_do_not_count() {
    let chain = [(MEMORY_SIZE * 2, 0, NEXT, 1), (BUFFERS, 4, WRITE, 0)];
    let chain = pop(&chain).unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (0, 4));
}

fn with_table(table: &[(u64, u32, u16, u16)], len: u32) -> Result<Option<Chain>, QueueError> {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0, SIZE);
    for (index, (address, length, flags, next)) in (0u64..).zip(table) {
        let at = GuestAddress(BUFFERS + index * 16);
        memory.write_obj(*address, at).unwrap();
        memory.write_obj(*length, GuestAddress(at.0 + 8)).unwrap();
        memory
            .write_obj(
                u32::from(*flags) | u32::from(*next) << 16,
                GuestAddress(at.0 + 12),
            )
            .unwrap();
    }
    ring.write_descriptors(0, &[(BUFFERS, len, INDIRECT, 0)]);
    ring.make_available(0);
    queue(&ring, &memory).pop()
}

#[test]
fn indirect_tables_are_followed_and_checked() {
    let table = [
        (BUFFERS + 0x1000, 8, NEXT, 1),
        (BUFFERS + 0x2000, 8, WRITE, 0),
    ];
    let chain = with_table(&table, 32).unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (8, 8));
    // A size that is no multiple of a descriptor's, a table in a table, a loop, an index beyond.
    assert!(with_table(&table, 31).is_err());
    assert!(with_table(&[(BUFFERS, 16, INDIRECT, 0)], 16).is_err());
    assert!(with_table(&[(BUFFERS, 8, NEXT, 0)], 16).is_err());
    assert!(with_table(&[(BUFFERS, 8, NEXT, 9)], 32).is_err());
    assert!(with_table(&table, 0).is_err());
}

#[test]
fn an_indirect_table_longer_than_the_queue_is_refused() {
    let long: Vec<_> = (1..=17)
        .map(|next| (BUFFERS, 1, if next < 17 { NEXT } else { 0 }, next))
        .collect();
    assert!(with_table(&long[..], 17 * 16).is_err());
}

#[test]
fn an_available_index_beyond_the_queue_breaks_it_for_good() {
    let memory = memory();
    let ring = Ring::new(&memory, 0, SIZE);
    let mut queue = queue(&ring, &memory);
    ring.available.idx().store(SIZE + 1);
    assert!(matches!(queue.pop(), Err(QueueError::Rings(_))));
    ring.available.idx().store(0);
    assert!(matches!(queue.pop(), Err(QueueError::Broken)));
}

#[test]
fn an_undone_pop_comes_again() {
    let memory = memory();
    let mut ring = Ring::new(&memory, 0, SIZE);
    ring.add(&[(BUFFERS, 1, false)]);
    let mut queue = queue(&ring, &memory);
    assert!(queue.has_available().unwrap());
    assert!(queue.pop().unwrap().is_some());
    assert!(!queue.has_available().unwrap());
    queue.undo_pop();
    assert!(queue.pop().unwrap().is_some());
}

#[test]
fn rings_outside_memory_make_no_queue() {
    let memory = memory();
    let ring = Ring::new(&memory, 0, SIZE);
    let mut raw: Queue = ring.queue();
    raw.try_set_used_ring_address(GuestAddress(MEMORY_SIZE - 8))
        .unwrap();
    let kick = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    assert!(ActiveQueue::new(raw, memory.clone(), kick).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_descriptors_give_a_chain_in_memory_or_an_error(
        descriptors in proptest::collection::vec(
            (
                prop_oneof![0..MEMORY_SIZE + 16, any::<u64>()],
                prop_oneof![0u32..64, any::<u32>()],
                0u16..8,
                0u16..20,
            ),
            16,
        ),
    ) {
        if let Ok(Some(chain)) = pop(&descriptors) {
            // Reading and writing all of it stays in memory, else this would crash.
            let mut left = chain.reader();
            let mut bytes = vec![0; left.remaining().min(4096)];
            left.read_exact(&mut bytes).unwrap();
            let end: usize = chain.writer().slices(usize::MAX).map(|slice| slice.len()).sum();
            prop_assert_eq!(end, chain.writable_len());
        }
    }
}
