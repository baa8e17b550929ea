//! Who a user is, by the guest's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! Read with a parser of our own: the name service of a static C library would load the guest's
//! shared objects into PID 1. The files belong to the guest, so they may hold anything; lines that
//! make no sense are skipped, and a file that is not regular or is too long is an error.

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::ProgramError;
use crate::sys::spawn::Credentials;

/// Longest file that is read.
const LONGEST: usize = 4 << 20;
/// Most supplementary groups that a process can have, `NGROUPS_MAX` of linux/limits.h.
const GROUPS_MAX: usize = 65536;

/// What the guest says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) home: String,
    pub(super) credentials: Credentials,
}

/// Finds a user by name, or else by number.
pub(super) fn find(user: &str) -> Result<User, ProgramError> {
    let passwd = read("/etc/passwd")?;
    // Without the file nobody has supplementary groups.
    let group = match read("/etc/group") {
        Err(ProgramError::Users {
            source: Errno::NOENT,
            ..
        }) => Vec::new(),
        other => other?,
    };
    look_up(user, &passwd, &group).ok_or_else(|| ProgramError::UnknownUser {
        user: user.to_owned(),
    })
}

fn look_up(user: &str, passwd: &[u8], group: &[u8]) -> Option<User> {
    let number = user
        .parse::<u32>()
        .ok()
        .filter(|_| user.bytes().all(|b| b.is_ascii_digit()));
    let entries = || lines(passwd).filter_map(parse_user);
    let mut found = entries()
        .find(|entry| entry.name == user)
        .or_else(|| entries().find(|entry| Some(entry.credentials.uid.as_raw()) == number))?;
    let primary = found.credentials.gid;
    let mut groups: Vec<Gid> = lines(group)
        .filter_map(|line| member_of(line, found.name.as_bytes()))
        .filter(|gid| *gid != primary)
        .take(GROUPS_MAX - 1)
        .collect();
    groups.push(primary);
    found.credentials.groups = groups;
    Some(found)
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty() && line[0] != b'#')
}

/// `name:password:uid:gid:comment:home:shell`
fn parse_user(line: &[u8]) -> Option<User> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = text(fields.next()?)?;
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1).and_then(text).filter(|home| !home.is_empty());
    Some(User {
        name: name.to_owned(),
        home: home.unwrap_or("/").to_owned(),
        credentials: Credentials {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: Vec::new(),
        },
    })
}

/// The group's number, when `name` is among the members of `name:password:gid:members`.
fn member_of(line: &[u8], name: &[u8]) -> Option<Gid> {
    let mut fields = line.split(|byte| *byte == b':');
    let gid = id(fields.nth(2)?)?;
    let members = fields.next()?;
    members
        .split(|byte| *byte == b',')
        .any(|member| member == name)
        .then(|| Gid::from_raw(gid))
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// A user's or group's number. All ones means "unchanged" to the kernel and is nobody's.
fn id(field: &[u8]) -> Option<u32> {
    text(field)?.parse().ok().filter(|id| *id != u32::MAX)
}

fn read(file: &'static str) -> Result<Vec<u8>, ProgramError> {
    let failed = |source| ProgramError::Users { file, source };
    // Non-blocking, in case the guest has put a FIFO there.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = open(file, flags, Mode::empty()).map_err(failed)?;
    let stat = fstat(&fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(Errno::INVAL));
    }
    let mut contents = Vec::new();
    loop {
        contents.reserve(16 << 10);
        match rustix::io::read(&fd, spare_capacity(&mut contents)) {
            Ok(0) => return Ok(contents),
            Ok(_) if contents.len() > LONGEST => return Err(failed(Errno::FBIG)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\
        # a comment\nbroken line\nbad:x:none:0:::\n\
        max:x:4294967295:0::/:/\n\
        ann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n\
        1000:x:7:7::/odd:/bin/sh\n\
        homeless:x:8:8";
    const GROUP: &[u8] = b"root:x:0:\nsudo:x:27:bob,ann\nann:x:1000:ann\nx:x:27\n\
        docker:x:900:annabel,bob\nvideo:x:44:ann\n";

    fn numbers(user: &User) -> (u32, u32, Vec<u32>) {
        let Credentials { uid, gid, groups } = &user.credentials;
        (
            uid.as_raw(),
            gid.as_raw(),
            groups.iter().map(|gid| gid.as_raw()).collect(),
        )
    }

    #[test]
    fn a_user_is_found_by_name_with_all_groups() {
        let ann = look_up("ann", PASSWD, GROUP).unwrap();
        assert_eq!(numbers(&ann), (1000, 1000, vec![27, 44, 1000]));
        assert_eq!(ann.home, "/home/ann");
    }

    #[test]
    fn a_name_comes_before_a_number_that_looks_the_same() {
        assert_eq!(look_up("1000", PASSWD, GROUP).unwrap().name, "1000");
        assert_eq!(look_up("8", PASSWD, GROUP).unwrap().name, "homeless");
    }

    #[test]
    fn nobody_is_found_by_a_broken_line_or_an_odd_number() {
        for nobody in [
            "bad",
            "broken line",
            "max",
            "4294967295",
            "+0",
            "-1",
            "",
            "99",
        ] {
            assert_eq!(look_up(nobody, PASSWD, GROUP), None, "{nobody}");
        }
    }

    #[test]
    fn a_missing_home_is_the_root_directory() {
        assert_eq!(look_up("homeless", PASSWD, GROUP).unwrap().home, "/");
    }

    proptest! {
        #[test]
        fn no_file_makes_the_parser_panic(
            passwd in proptest::collection::vec(any::<u8>(), 0..300),
            group in "[a-z:,0-9\n]{0,300}",
            user in "[a-z0-9]{0,4}",
        ) {
            let _ = look_up(&user, &passwd, group.as_bytes());
            let _ = look_up(&user, group.as_bytes(), &passwd);
        }
    }
}
