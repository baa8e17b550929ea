//! Where a program may be: the search of execvp(3), as a list of paths to try.

use std::ffi::CString;

use super::{ProgramError, c_string};

/// The paths to try in turn for `name`. A name with a slash is a path itself; others are looked
/// up in the directories of `search`, where an empty one stands for the working directory.
pub(super) fn candidates(name: &str, search: &str) -> Result<Vec<CString>, ProgramError> {
    let what = "the program's name";
    if name.is_empty() {
        return Err(ProgramError::NotFound {
            program: String::new(),
        });
    }
    if name.contains('/') {
        return Ok(vec![c_string(name, what)?]);
    }
    search
        .split(':')
        .map(|directory| match directory {
            "" => c_string(&format!("./{name}"), what),
            directory => c_string(&format!("{directory}/{name}"), what),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_searched_in_every_directory_in_order() {
        let found = candidates("ls", "/a:/b/:").unwrap();
        assert_eq!(
            found,
            [
                c"/a/ls".to_owned(),
                c"/b//ls".to_owned(),
                c"./ls".to_owned()
            ]
        );
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched() {
        assert_eq!(candidates("./ls", "/a").unwrap(), [c"./ls".to_owned()]);
        assert_eq!(
            candidates("/bin/ls", "/a").unwrap(),
            [c"/bin/ls".to_owned()]
        );
    }

    #[test]
    fn an_empty_name_is_not_found_and_a_nul_is_refused() {
        assert!(matches!(
            candidates("", "/a"),
            Err(ProgramError::NotFound { .. })
        ));
        assert!(matches!(
            candidates("a\0b", "/a"),
            Err(ProgramError::Nul { .. })
        ));
        assert!(matches!(
            candidates("a", "/x\0"),
            Err(ProgramError::Nul { .. })
        ));
    }
}
