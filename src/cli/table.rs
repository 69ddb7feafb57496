//! Tables as kubectl prints them, and what becomes of them where the terminal is too narrow.

use super::text::wrapped_at;

/// Between two columns.
const GAP: usize = 3;

/// The last column is wrapped beside the others while it keeps as much; else it stands below them.
const LEAST: usize = 24;

/// Left-aligned columns, three spaces apart, the last one not padded, within `width`. Columns in `spare` go first, one after another; then the last column is wrapped, or stands below its row;
/// then every row is a card, which has room for all of it. Nothing is cut, and no name is broken: it could not be pasted.
pub fn fitted(heads: &[&str], rows: Vec<Vec<String>>, width: usize, spare: &[&str]) -> String {
    let (all, whole) = (heads, rows.clone());
    let mut rows = rows;
    let mut heads: Vec<String> = heads.iter().map(|h| (*h).to_owned()).collect();
    let mut spare = spare.iter();
    let (widths, before) = loop {
        let widths = widths(&heads, &rows);
        let (last, others) = widths.split_last().map_or((0, &[][..]), |(last, others)| (*last, others));
        let before: usize = others.iter().map(|w| w + GAP).sum();
        if before.saturating_add(last.min(LEAST)) <= width {
            break (widths, before);
        }
        let Some(goes) = spare.next() else { break (widths, before) };
        if let Some(at) = heads.iter().position(|h| h == goes) {
            heads.remove(at);
            rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
    };
    let last = widths.last().copied().unwrap_or(0);
    if before > width || last <= LEAST && before + last > width {
        return cards(all, &whole, width);
    }
    let word =
        rows.iter().filter_map(|row| row.last()).flat_map(|cell| cell.split(' ')).map(|w| w.chars().count()).max();
    let place = match width.saturating_sub(before) {
        room if last <= room => Place::Beside,
        room if room >= LEAST && room >= word.unwrap_or(0) => Place::Wrapped(before),
        _ => Place::Below(width),
    };
    let mut out = String::new();
    for row in std::iter::once(&heads).chain(&rows) {
        line(&mut out, row, &widths, (place, width));
    }
    out
}

/// A cell after the other, behind the heads of their columns; what is empty is left out.
fn cards(heads: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let widest = heads.iter().map(|h| h.chars().count()).max().unwrap_or(0);
    let indent = " ".repeat(widest + GAP);
    let line = |(head, cell): (&&str, &String)| {
        let told = wrapped_at(cell, &indent, width);
        format!("{head:widest$}{}{}\n", " ".repeat(GAP), told.trim())
    };
    let told = |(_, cell): &(&&str, &String)| !matches!(cell.as_str(), "" | "-");
    let card = |row: &Vec<String>| -> String { heads.iter().zip(row).filter(told).map(line).collect() };
    rows.iter().map(card).collect::<Vec<_>>().join("\n")
}

/// Where the last column stands.
#[derive(Clone, Copy)]
enum Place {
    Beside,
    /// In several lines, each this far to the right.
    Wrapped(usize),
    /// In lines of its own, of this width.
    Below(usize),
}

fn widths(heads: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = heads.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    widths
}

fn line(out: &mut String, row: &[String], widths: &[usize], (place, width): (Place, usize)) {
    let Some((last, others)) = row.split_last() else { return };
    let mut line = String::new();
    for (cell, width) in others.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
    }
    match place {
        Place::Beside => line.push_str(last),
        Place::Wrapped(at) => {
            let told = wrapped_at(last, &" ".repeat(at), width);
            line.push_str(told.trim());
        }
        Place::Below(width) => {
            let told = wrapped_at(last, "    ", width);
            line = format!("{}\n{}", line.trim_end(), told.trim_end());
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: usize) -> String {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = vec![
            row(["a", "asks", "yes", "the namespace asks for it and only one answers"]),
            row(["a-longer-name", "asks", "no", "short"]),
        ];
        fitted(&["NAME", "WHAT", "HAS", "BECAUSE"], rows, width, &["WHAT"])
    }

    #[test]
    fn what_fits_is_a_table() {
        let expected = "\
NAME            WHAT   HAS   BECAUSE
a               asks   yes   the namespace asks for it and only one answers
a-longer-name   asks   no    short
";
        assert_eq!(table(usize::MAX), expected);
    }

    #[test]
    fn the_last_column_is_wrapped_then_what_can_be_spared_goes_then_it_stands_below() {
        let wrapped = "\
NAME            WHAT   HAS   BECAUSE
a               asks   yes   the namespace asks for it
                             and only one answers
a-longer-name   asks   no    short
";
        assert_eq!(table(55), wrapped);
        let spared = "\
NAME            HAS   BECAUSE
a               yes   the namespace asks for it
                      and only one answers
a-longer-name   no    short
";
        assert_eq!(table(48), spared);
        let below = "\
NAME            HAS
    BECAUSE
a               yes
    the namespace asks for it and only
    one answers
a-longer-name   no
    short
";
        assert_eq!(table(40), below);
        let card = "NAME      a\nWHAT      asks\nHAS       yes\nBECAUSE   the\n          namespace\n";
        assert!(table(20).starts_with(card), "{}", table(20));
    }

    #[test]
    fn a_name_is_not_broken_and_a_card_has_no_empty_lines() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = vec![
            row(["NS001", "12", "system:serviceaccount:flux-system:kustomize-controller"]),
            row(["NS002", "-", "jane"]),
        ];
        let below = "\
CODE    N
    WHO
NS001   12
    system:serviceaccount:flux-system:kustomize-controller
NS002   -
    jane
";
        assert_eq!(fitted(&["CODE", "N", "WHO"], rows.clone(), 60, &[]), below);
        let cards = fitted(&["CODE", "N", "WHO"], rows, 12, &[]);
        assert!(cards.ends_with("\n\nCODE   NS002\nWHO    jane\n"), "{cards}");
    }
}
