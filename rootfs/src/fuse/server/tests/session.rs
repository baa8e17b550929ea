//! INIT, DESTROY, and what is answered before, between and after.

use super::*;

#[test]
fn init_takes_what_is_wanted_and_nothing_else() {
    let mut client = Client::before_init(Quota::UNLIMITED);
    let out = client.init(OFFERED).unwrap();
    let flags = InitFlags::from_bits_retain(out.flags);
    assert_eq!((out.major, out.minor), (7, 38));
    assert_eq!(out.max_write, 1 << 20);
    assert_eq!(out.max_pages, 256);
    assert_eq!(out.max_readahead, 128 << 10);
    assert_eq!(out.flags2, 0);
    assert!(flags.contains(
        InitFlags::WRITEBACK_CACHE
            | InitFlags::NO_OPEN_SUPPORT
            | InitFlags::NO_OPENDIR_SUPPORT
            | InitFlags::HANDLE_KILLPRIV_V2
            | InitFlags::MAX_PAGES
    ));
    assert!(!flags.intersects(
        InitFlags::ATOMIC_O_TRUNC
            | InitFlags::POSIX_ACL
            | InitFlags::DONT_MASK
            | InitFlags::AUTO_INVAL_DATA
            | InitFlags::POSIX_LOCKS
            | InitFlags::FLOCK_LOCKS
            | InitFlags::SUBMOUNTS
            | InitFlags::SETXATTR_EXT
            | InitFlags::INIT_EXT
    ));
}

#[test]
fn init_takes_nothing_that_was_not_offered() {
    let mut client = Client::before_init(Quota::UNLIMITED);
    assert_eq!(client.init(0).unwrap().flags, 0);
}

#[test]
fn a_newer_major_version_is_asked_to_step_down() {
    let mut client = Client::before_init(Quota::UNLIMITED);
    let init = InitIn {
        major: 8,
        ..InitIn::default()
    };
    let out: InitOut = parse(&client.call(Opcode::Init, 0, &[init.as_bytes()]).unwrap());
    assert_eq!(out.major, 7);
    assert_eq!(client.getattr(ROOT).unwrap_err(), Errno::IO);
    client.init(OFFERED).unwrap();
    client.getattr(ROOT).unwrap();
}

#[test]
fn versions_too_old_are_refused() {
    let mut client = Client::before_init(Quota::UNLIMITED);
    for (major, minor) in [(6, 99), (7, 30), (0, 0)] {
        let init = InitIn {
            major,
            minor,
            ..InitIn::default()
        };
        let error = client
            .call(Opcode::Init, 0, &[init.as_bytes()])
            .unwrap_err();
        assert_eq!(error, Errno::PROTO, "{major}.{minor}");
    }
}

#[test]
fn nothing_is_answered_before_init() {
    let mut client = Client::before_init(Quota::UNLIMITED);
    assert_eq!(client.getattr(ROOT).unwrap_err(), Errno::IO);
    assert_eq!(client.lookup(ROOT, "file").unwrap_err(), Errno::IO);
    assert_eq!(client.write(ROOT, 0, b"x").unwrap_err(), Errno::IO);
}

#[test]
fn destroy_drops_what_the_kernel_held() {
    let mut client = Client::new();
    let node = client.create(ROOT, "gone").unwrap().nodeid;
    client.call(Opcode::Unlink, ROOT, &[&nul("gone")]).unwrap();
    client.getattr(node).unwrap();
    client.call(Opcode::Destroy, 0, &[]).unwrap();
    assert_eq!(client.getattr(ROOT).unwrap_err(), Errno::IO);
    client.init(OFFERED).unwrap();
    client.getattr(node).unwrap_err();
}

#[test]
fn opening_is_not_needed_by_kernels_that_can_go_without() {
    let mut client = Client::new();
    assert_eq!(
        client.call(Opcode::Open, ROOT, &[&[0; 8]]).unwrap_err(),
        Errno::NOSYS
    );
    assert_eq!(
        client.call(Opcode::Opendir, ROOT, &[&[0; 8]]).unwrap_err(),
        Errno::NOSYS
    );
    assert_eq!(
        client.call(Opcode::Flush, ROOT, &[&[0; 24]]).unwrap_err(),
        Errno::NOSYS
    );
    let mut other = Client::before_init(Quota::UNLIMITED);
    other.init(0).unwrap();
    let out: OpenOut = parse(&other.call(Opcode::Open, ROOT, &[&[0; 8]]).unwrap());
    assert_eq!(out.open_flags, OpenFlags::KEEP_CACHE.bits());
}

#[test]
fn statfs_says_the_longest_name() {
    let mut client = Client::new();
    let out: StatfsOut = parse(&client.call(Opcode::Statfs, ROOT, &[]).unwrap());
    assert_eq!(out.namelen, 255);
    assert!(out.bsize > 0 && out.blocks >= out.bfree);
}
