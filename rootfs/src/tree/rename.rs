//! Renaming, with all that renameat2(2) asks for.

use rustix::io::Errno;

use super::writable::NodeEntry;
use super::{Attr, FileType, Ino, Name, RenameMode, Tree};

/// One of the two names that a rename is about.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: Ino,
    name: Name<'a>,
}

impl Tree {
    /// Renames, with renameat2(2)'s rules.
    ///
    /// # Errors
    /// `NOENT`, `EXIST`, `ISDIR`, `NOTDIR`, `NOTEMPTY`, `INVAL` for a directory into itself;
    /// `NOSPC`, `STALE`, `IO`.
    pub fn rename(
        &mut self,
        old_parent: Ino,
        old_name: Name<'_>,
        new_parent: Ino,
        new_name: Name<'_>,
        mode: RenameMode,
    ) -> Result<(), Errno> {
        self.writable.before_change()?;
        let old = Place {
            parent: old_parent,
            name: old_name,
        };
        let new = Place {
            parent: new_parent,
            name: new_name,
        };
        let moved = self.at(old)?.ok_or(Errno::NOENT)?;
        if self.dir_attr(new.parent)?.nlink == 0 {
            return Err(Errno::NOENT);
        }
        let there = self.at(new)?;
        self.refuse_loop(moved, new.parent)?;
        match (mode, there) {
            (RenameMode::Exchange, None) => Err(Errno::NOENT),
            (RenameMode::Exchange, Some(there)) => {
                self.refuse_loop(there, old.parent)?;
                self.exchange(old, moved, new, there)
            }
            (RenameMode::NoReplace, Some(_)) => Err(Errno::EXIST),
            (_, there) => self.replace(old, moved, new, there),
        }
    }

    fn at(&self, place: Place<'_>) -> Result<Option<Attr>, Errno> {
        match self.entry(place.parent, place.name)? {
            Some((ino, _)) => self.named_attr(ino).map(Some),
            None => Ok(None),
        }
    }

    /// Refuses to put a directory into itself or into one beneath it.
    fn refuse_loop(&self, moved: Attr, into: Ino) -> Result<(), Errno> {
        if moved.file_type != FileType::Directory {
            return Ok(());
        }
        // A tree cannot be deeper than it has directories; a damaged one could go round for ever.
        let limit = self.packed.inode_count() + self.counts().inodes + 1;
        let mut dir = into;
        for _ in 0..=limit {
            if dir == moved.ino {
                return Err(Errno::INVAL);
            }
            if dir == Ino::ROOT {
                return Ok(());
            }
            dir = self.parent_of(dir)?;
        }
        Err(Errno::IO)
    }

    fn replace(
        &mut self,
        old: Place<'_>,
        moved: Attr,
        new: Place<'_>,
        there: Option<Attr>,
    ) -> Result<(), Errno> {
        let is_dir = moved.file_type == FileType::Directory;
        if let Some(there) = there {
            if there.ino == moved.ino {
                // Two names of one inode: rename(2) says to do nothing.
                return Ok(());
            }
            match (is_dir, there.file_type == FileType::Directory) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.is_empty(there.ino)? => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        for ino in [
            Some(old.parent),
            Some(new.parent),
            Some(moved.ino),
            there.map(|it| it.ino),
        ] {
            ino.map_or(Ok(()), |ino| self.own(ino))?;
        }
        let absence = self.plan_absence(old.parent, old.name)?;
        let presence = self.plan_entry(new.parent, new.name, moved.ino, moved.file_type)?;
        let now = self.now();
        self.writable
            .set_entry(old.parent, old.name.as_bytes(), absence);
        self.writable
            .set_entry(new.parent, new.name.as_bytes(), Some(presence));
        let replaced_dir = is_dir && there.is_some();
        self.touch_dir(old.parent, now, -i32::from(is_dir));
        self.touch_dir(new.parent, now, i32::from(is_dir) - i32::from(replaced_dir));
        self.moved(moved, new.parent)?;
        if let Some(there) = there {
            self.drop_name(there.ino, now);
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        old: Place<'_>,
        first: Attr,
        new: Place<'_>,
        second: Attr,
    ) -> Result<(), Errno> {
        if first.ino == second.ino {
            return Ok(());
        }
        for ino in [old.parent, new.parent, first.ino, second.ino] {
            self.own(ino)?;
        }
        let at_new = self.plan_entry(new.parent, new.name, first.ino, first.file_type)?;
        let mut at_old = self.plan_entry(old.parent, old.name, second.ino, second.file_type)?;
        if old.parent == new.parent
            && let (
                NodeEntry::Child { cookie: taken, .. },
                NodeEntry::Child {
                    ino,
                    file_type,
                    cookie,
                },
            ) = (at_new, at_old)
            && cookie == taken
        {
            // Both were planned for the next free place in the listing.
            at_old = NodeEntry::Child {
                ino,
                file_type,
                cookie: cookie + 1,
            };
        }
        let now = self.now();
        self.writable
            .set_entry(new.parent, new.name.as_bytes(), Some(at_new));
        self.writable
            .set_entry(old.parent, old.name.as_bytes(), Some(at_old));
        let is_dir = |attr: Attr| i32::from(attr.file_type == FileType::Directory);
        let gained = is_dir(first) - is_dir(second);
        self.touch_dir(new.parent, now, gained);
        self.touch_dir(old.parent, now, -gained);
        self.moved(first, new.parent)?;
        self.moved(second, old.parent)
    }

    /// Says of a renamed inode where it is now.
    fn moved(&mut self, moved: Attr, parent: Ino) -> Result<(), Errno> {
        let now = self.now();
        self.update(moved.ino, |node| {
            node.attr.ctime = now;
            if node.attr.file_type == FileType::Directory {
                node.parent = parent;
            }
        })
    }
}
