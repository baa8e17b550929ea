//! Numbers and times for people.

use jiff::Timestamp;

/// Bytes: `1.5 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A number of things: `1 file`, `2 files`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => match thing.strip_suffix('y') {
            Some(stem) => format!("{number} {stem}ies"),
            None => format!("{number} {thing}s"),
        },
    }
}

/// How long something took: `12 ms`, `3.4 s`, `5 min`.
pub(crate) fn millis(millis: f64) -> String {
    if millis < 1000.0 {
        format!("{millis:.0} ms")
    } else if millis < 60_000.0 {
        format!("{:.1} s", millis / 1000.0)
    } else {
        // Saturates at what no command takes.
        seconds((millis / 1000.0) as u64)
    }
}

/// A span in its largest unit, rounded down: `45 s`, `10 min`, `2 h`, `3 d`.
pub(crate) fn seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A time in the past: `3 min ago`. The clock may have been set back since.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    match u64::try_from(now.as_second() - then.as_second()) {
        Ok(0) | Err(_) => "just now".to_string(),
        Ok(past) => format!("{} ago", seconds(past)),
    }
}

/// A time to come: `in 9 min`.
pub(crate) fn until(then: Timestamp, now: Timestamp) -> String {
    match u64::try_from(then.as_second() - now.as_second()) {
        Ok(0) | Err(_) => "now".to_string(),
        Ok(rest) => format!("in {}", seconds(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3072.0 GiB");
    }

    #[test]
    fn things_are_counted() {
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(0, "entry"), "0 entries");
        assert_eq!(count(2, "file"), "2 files");
    }

    #[test]
    fn times_are_relative_even_when_the_clock_is_wrong() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(ago(at(0), at(0)), "just now");
        assert_eq!(ago(at(0), at(59)), "59 s ago");
        assert_eq!(ago(at(0), at(200)), "3 min ago");
        assert_eq!(ago(at(0), at(90_000)), "1 d ago");
        assert_eq!(ago(at(100), at(0)), "just now");
        assert_eq!(until(at(600), at(0)), "in 10 min");
        assert_eq!(until(at(0), at(600)), "now");
        assert_eq!(ago(Timestamp::MIN, Timestamp::MAX), "7304481 d ago");
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        assert_eq!(millis(12.4), "12 ms");
        assert_eq!(millis(3440.0), "3.4 s");
        assert_eq!(millis(300_000.0), "5 min");
    }
}
