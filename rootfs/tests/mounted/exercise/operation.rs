//! What can be done, and how often each of it is.

use super::file::Exercised;
use super::random::Random;

/// One step of an exercise.
#[derive(Debug)]
pub(super) enum Operation {
    /// Something with one file.
    File { file: usize, action: Action },
    /// copy_file_range(2).
    Copy {
        from: usize,
        from_offset: usize,
        to: usize,
        to_offset: usize,
        len: usize,
    },
    /// Freezes the writable layer after syncing everything, or one file only.
    Freeze { only: Option<usize> },
}

/// What is done with one file.
#[derive(Debug)]
pub(super) enum Action {
    Read {
        offset: usize,
        len: usize,
    },
    Write {
        offset: usize,
        len: usize,
    },
    DirectRead {
        offset: usize,
        len: usize,
    },
    DirectWrite {
        offset: usize,
        len: usize,
    },
    MappedRead {
        offset: usize,
        len: usize,
    },
    MappedWrite {
        offset: usize,
        len: usize,
    },
    MappedSync,
    Truncate {
        len: usize,
    },
    Punch {
        offset: usize,
        len: usize,
    },
    Zero {
        offset: usize,
        len: usize,
        keep_size: bool,
    },
    Allocate {
        offset: usize,
        len: usize,
        keep_size: bool,
    },
    Fsync,
    /// Everything is written back and the page cache forgets it.
    DropPages,
    /// Closed and opened again.
    Reopen,
    /// The name goes; the file stays open.
    Unlink,
    /// A new file takes its name.
    Replace,
}

impl Operation {
    /// Any one; `freezing` says whether freezes are among them.
    pub(super) fn any(random: &mut Random, files: &[Exercised], freezing: bool) -> Self {
        let file = random.below(files.len());
        let (offset, len) = random.range();
        let keep_size = random.flag();
        let action = match random.below(if freezing { 101 } else { 100 }) {
            0..16 => Action::Write { offset, len },
            16..28 => Action::Read { offset, len },
            28..38 => Action::MappedWrite { offset, len },
            38..46 => Action::MappedRead { offset, len },
            46..54 => Action::Truncate { len: offset },
            54..60 => Action::Punch { offset, len },
            60..65 => Action::Zero {
                offset,
                len,
                keep_size,
            },
            65..69 => Action::Allocate {
                offset,
                len,
                keep_size,
            },
            69..74 => Action::DirectWrite { offset, len },
            74..79 => Action::DirectRead { offset, len },
            79..82 => Action::Fsync,
            82..84 => Action::MappedSync,
            84..87 => Action::DropPages,
            87..90 => Action::Reopen,
            90 => Action::Unlink,
            91 => Action::Replace,
            92..100 => return Self::copy(random, files.len()),
            _ => {
                return Self::Freeze {
                    only: random.flag().then_some(file),
                };
            }
        };
        Self::File { file, action }
    }

    fn copy(random: &mut Random, files: usize) -> Self {
        let (from, to) = (random.below(files), random.below(files));
        let ((from_offset, len), (to_offset, room)) = (random.range(), random.range());
        let mut len = len.min(room);
        if from == to {
            // Ranges of one file may touch and not overlap.
            len = len.min(from_offset.abs_diff(to_offset));
        }
        Self::Copy {
            from,
            from_offset,
            to,
            to_offset,
            len,
        }
    }
}
