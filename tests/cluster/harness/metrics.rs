//! Just enough of the Prometheus text format to read one number out of it.

use anyhow::{Context, Result, bail};

/// Sums the samples called `name` that carry all of `labels`.
pub fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let mut total = 0.0;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let (found, value) = match rest.as_bytes().first() {
            Some(b'{') => labels_of(&rest[1..]).with_context(|| format!("in {line}"))?,
            Some(b' ') => (Vec::new(), rest),
            // Another metric whose name begins like ours.
            _ => continue,
        };
        let matches = labels
            .iter()
            .all(|&(key, value)| found.iter().any(|(found_key, found_value)| found_key == key && found_value == value));
        if matches {
            let number = value.split_whitespace().next().unwrap_or_default();
            total += number.parse::<f64>().with_context(|| format!("in {line}"))?;
        }
    }
    Ok(total)
}

type Labels = Vec<(String, String)>;

/// Reads `key="value",…}` and returns what follows. Values may hold any escaped character.
fn labels_of(mut rest: &str) -> Result<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (key, after) = rest.split_once("=\"").context("a label without a value")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next() {
                Some((at, '"')) => break at + 1,
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c)) => value.push(c),
                    None => bail!("an escape at the end"),
                },
                Some((_, c)) => value.push(c),
                None => bail!("a value without its end"),
            }
        };
        labels.push((key.to_owned(), value));
        rest = &after[end..];
    }
}
