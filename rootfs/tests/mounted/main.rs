//! A stack mounted through `/dev/fuse`, used as programs use a file system.
//!
//! Each test has a mount of its own, served by the command `pyro-rootfs`. Where a mount is not
//! possible, or a program is missing that a test runs, the test counts as ignored and says why.

#![allow(clippy::unwrap_used)] // All of this is tests.

mod contents;
mod durability;
mod exercise;
mod faults;
mod metadata;
mod names;
mod programs;
mod stage;

use libtest_mimic::{Arguments, Completion, Trial};

use stage::Stage;

/// What a test cannot do without, besides a mount.
#[derive(Clone, Copy)]
enum Need {
    /// The rights of root: other owners, device nodes.
    Root,
    /// A program on the path.
    Program(&'static str),
}

impl Need {
    /// Why this is not here, or `None`.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root if rustix::process::geteuid().is_root() => None,
            Self::Root => Some("needs root".to_owned()),
            Self::Program(program) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let found = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
                (!found).then(|| format!("needs the program {program}"))
            }
        }
    }
}

/// One test.
struct Case {
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut Stage),
}

/// Makes [`Case`]s of functions: `module::name`, with what each needs.
macro_rules! cases {
    ($($module:ident: $($name:ident $([$($need:expr),*])?),* ;)*) => {
        vec![$($(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            needs: &[$($($need),*)?],
            run: $module::$name,
        }),*),*]
    };
}

fn main() -> std::process::ExitCode {
    use Need::{Program, Root};
    let cases = cases! {
        names: hard_links_are_one_file, lower_directories_move, renames_replace_exchange_and_refuse,
            a_missing_name_can_be_made, deep_trees_go_deep, names_are_bytes,
            large_directories_list_every_name_once,
            a_listing_survives_changes_made_meanwhile, many_threads_make_and_remove;
        contents: unlinked_files_stay_until_closed, mapped_writes_arrive,
            mapped_writes_survive_the_cache, sparse_files_stay_sparse,
            data_not_yet_written_back_is_data, holes_are_punched, truncation_cuts_and_pads,
            opening_truncates_and_appends, ranges_are_copied,
            the_layer_below_is_never_written, a_full_layer_says_so;
        metadata: modes_and_umask [Root], owners_change_without_copying [Root],
            set_id_bits_fall [Root], directories_hand_their_group_down [Root],
            others_may_create_read_only_files [Root], times_are_kept, a_write_moves_the_times, a_file_written_later_is_not_older,
            attributes_are_kept [Root], device_nodes_fifos_and_sockets [Root],
            acls_are_refused, space_is_told, link_counts_of_directories;
        programs: cp_copies_a_tree [Root], tar_brings_a_tree_back [Root, Program("tar")],
            git_clones [Program("git")], python_imports_and_sqlite_commits [Program("python3")],
            sqlite_commits [Program("sqlite3")], stress_ng_verifies [Program("stress-ng")];
        durability: everything_is_there_after_a_remount [Root],
            what_was_synced_survives_a_killed_server, unlinked_files_are_gone_after_a_remount,
            frozen_layers_stay_as_they_were [Root];
        exercise: one_file_is_what_a_model_says, several_files_are_what_a_model_says,
            written_through_they_are_too, live_freezes_change_nothing_and_stay_as_they_were, freezes_under_load_stay_as_they_were;
        faults: a_full_disk_says_so_and_recovers [Root], a_full_disk_takes_metadata_or_says_so [Root],
            a_lost_content_is_never_synced, a_lost_content_that_was_closed_is_never_synced,
            a_failed_sync_writes_the_journal_anew, a_failed_rename_leaves_a_journal_that_goes_on,
            changes_are_refused_while_the_journal_cannot_be_written,
            a_record_cut_short_does_not_count, a_freeze_that_cannot_sync_changes_nothing, whatever_fails_what_was_synced_is_there,
            an_export_that_fails_leaves_nothing;
    };
    let unmountable = Stage::unavailable();
    let trials = cases.into_iter().map(|case| {
        let unmountable = unmountable.clone();
        Trial::ignorable_test(case.name, move || {
            let missing = unmountable.or_else(|| case.needs.iter().find_map(|need| need.missing()));
            if let Some(reason) = missing {
                return Ok(Completion::ignored_with(reason));
            }
            let mut stage = Stage::new();
            (case.run)(&mut stage);
            stage.end();
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
