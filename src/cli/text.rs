//! Text for a terminal: lines that fit, and times as kubectl writes them.

use std::fmt::Write as _;

use jiff::SignedDuration;

/// A terminal as most people have it, and what is assumed where there is none.
pub const WIDTH: usize = 80;

/// Below this, words are longer than lines.
const NARROWEST: usize = 40;

/// Columns and lines of the terminal that is written to, if it is one. Tests have none, wherever they run.
pub fn terminal() -> Option<(usize, usize)> {
    let size = terminal_size::terminal_size_of(std::io::stdout()).filter(|_| !cfg!(test));
    size.map(|(width, height)| (usize::from(width.0).max(NARROWEST), usize::from(height.0)))
}

/// Columns of the terminal that is written to; [`WIDTH`] where there is none.
pub fn columns() -> usize {
    terminal().map_or(WIDTH, |(columns, _)| columns)
}

/// Columns of the terminal, or as many as anything takes: a file and a pipe get tables whole.
pub fn room() -> usize {
    terminal().map_or(usize::MAX, |(columns, _)| columns)
}

/// Lines of at most [`WIDTH`] characters and as the terminal is wide, broken between words.
pub fn wrapped(text: &str, indent: &str) -> String {
    wrapped_at(text, indent, columns().min(WIDTH))
}

/// Lines of at most `width` characters, broken between words; a number keeps its unit beside it.
pub fn wrapped_at(text: &str, indent: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = indent.to_owned();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let unit = words.next_if(|next| word.ends_with(|c: char| c.is_ascii_digit()) && is_unit(next));
        let word = unit.map_or_else(|| word.to_owned(), |unit| format!("{word} {unit}"));
        let fits = line.chars().count() + 1 + word.chars().count() <= width;
        if line.trim().is_empty() || fits {
            if !line.trim().is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        } else {
            let _ = writeln!(out, "{}", line.trim_end());
            line = format!("{indent}{word}");
        }
    }
    let _ = writeln!(out, "{}", line.trim_end());
    out
}

/// A line as the terminal is wide, without what stands before it; what goes on below begins with `indent`. In a file or a pipe it stays
/// whole.
pub fn broken(line: &str, indent: &str) -> String {
    let Some((columns, _)) = terminal() else { return line.to_owned() };
    wrapped_at(line, indent, columns).trim().to_owned()
}

/// A line of a fix that a shell understands, and that has to stay in one piece.
fn is_command(line: &str) -> bool {
    let first = line.split(' ').next().unwrap_or_default();
    matches!(first, "kubectl" | "istioctl" | "helm" | "revguard" | "for" | "curl" | "openssl")
}

/// The text of a denial, broken between words where the terminal would break it within one. Commands are left alone, so that they can
/// be pasted.
pub fn message(text: &str) -> String {
    let Some((columns, _)) = terminal() else { return text.to_owned() };
    // The text behind `  why:   ` and its kin begins in this column.
    let indent = " ".repeat(9);
    let mut fixing = false;
    let mut out = String::new();
    for (i, line) in text.lines().enumerate() {
        fixing = line.starts_with("  fix:") || fixing && line.starts_with(&indent);
        let said = line.trim_start_matches("  fix:").trim_start();
        let prose = said.starts_with('(') || line.chars().count() > columns && !is_command(said);
        let indent = if i == 0 { "" } else { indent.as_str() };
        out.push_str(&match line.split_at_checked(indent.len()) {
            Some((head, rest)) if !fixing || prose => {
                format!("{head}{}", wrapped_at(rest, indent, columns).trim_start())
            }
            _ => format!("{line}\n"),
        });
    }
    out.truncate(out.trim_end().len());
    out
}

fn is_unit(word: &str) -> bool {
    matches!(word.trim_end_matches([',', '.', ';', ':', ')']), "s" | "ms" | "%")
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
    fn a_number_keeps_its_unit() {
        assert_eq!(
            wrapped_at("lets connections end for 5 s, then no more", "  ", 28),
            "  lets connections end for\n  5 s, then no more\n"
        );
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (252, "4m12s"), (600, "10m"), (11_100, "3h5m"), (187_200, "2d4h")]
        {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text);
        }
    }
}
