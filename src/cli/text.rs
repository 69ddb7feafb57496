//! Text for a terminal: lines that fit, and times as kubectl writes them.

use std::fmt::Write as _;

use jiff::SignedDuration;

/// A terminal as most people have it, and what is assumed where there is none.
pub const WIDTH: usize = 80;

/// Columns of the terminal that is written to, and at least [`WIDTH`].
pub fn columns() -> usize {
    terminal_size::terminal_size_of(std::io::stdout()).map_or(WIDTH, |(width, _)| usize::from(width.0).max(WIDTH))
}

/// Lines of at most [`WIDTH`] characters, broken between words.
pub fn wrapped(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut line = indent.to_owned();
    for word in text.split(' ') {
        let fits = line.chars().count() + 1 + word.chars().count() <= WIDTH;
        if line.trim().is_empty() || fits {
            if !line.trim().is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            let _ = writeln!(out, "{}", line.trim_end());
            line = format!("{indent}{word}");
        }
    }
    let _ = writeln!(out, "{}", line.trim_end());
    out
}

/// A length of time in its two largest units, as kubectl shows an age: `45s`, `4m12s`, `10m`, `3h5m`, `2d4h`.
pub fn age(of: SignedDuration) -> String {
    let seconds = of.as_secs().max(0);
    let two = |large: i64, unit: &str, small: i64, lesser: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{lesser}") }
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (252, "4m12s"), (600, "10m"), (11_100, "3h5m"), (187_200, "2d4h")]
        {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text);
        }
    }
}
