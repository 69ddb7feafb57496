//! A page of the documentation on a terminal: the Markdown that `explain` prints, with its headings set off and its lines as wide as
//! the screen. Tables and blocks of code stay as they are. Renders no more of Markdown than the pages of rules and guards have in them.

use super::paint::Paint;
use super::text::wrapped_at;

/// The page for a screen of `width` columns.
pub fn render(markdown: &str, width: usize, paint: Paint) -> String {
    let mut out = String::new();
    let mut paragraph = String::new();
    let mut fenced = false;
    for line in markdown.lines() {
        let fence = line.starts_with("```");
        let begins = line.starts_with("- ");
        let verbatim = fenced || fence || line.starts_with('|') || line.starts_with("    ");
        let heading = !verbatim && line.starts_with('#');
        if verbatim || heading || begins || line.is_empty() {
            end(&mut out, &mut paragraph, width);
        }
        fenced ^= fence;
        if heading {
            out.push_str(&paint.bold(line.trim_start_matches(['#', ' '])));
            out.push('\n');
        } else if verbatim || line.is_empty() {
            out.push_str(line);
            out.push('\n');
        } else {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line.trim());
        }
    }
    end(&mut out, &mut paragraph, width);
    out
}

/// Writes what has been gathered; the lines of an item of a list stand below its words.
fn end(out: &mut String, paragraph: &mut String, width: usize) {
    let text = std::mem::take(paragraph);
    match text.strip_prefix("- ") {
        _ if text.is_empty() => {}
        Some(item) => {
            let lines = wrapped_at(item, "  ", width);
            out.push_str("- ");
            out.push_str(lines.trim_start());
        }
        None => out.push_str(&wrapped_at(&text, "", width)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_as_wide_as_the_screen_and_code_is_left_alone() {
        let page = "# NS001 both-labels\n\n## What\nA namespace carries\ntwo labels at once.\n- an item that is longer than the screen\n- b\n\n```yaml\na: a line of code that is longer than the screen\n```\n";
        let expected = "NS001 both-labels\n\nWhat\nA namespace carries two\nlabels at once.\n- an item that is longer\n  than the screen\n- b\n\n```yaml\na: a line of code that is longer than the screen\n```\n";
        assert_eq!(render(page, 24, Paint::OFF), expected);
    }

    #[test]
    fn every_page_keeps_its_words() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for rule in crate::rules::RULES.iter() {
            let page = rule.doc();
            let bare: Vec<String> = words(&page).into_iter().filter(|w| !w.starts_with('#')).collect();
            let shown: Vec<String> =
                words(&render(&page, 80, Paint::OFF)).into_iter().filter(|w| !w.starts_with('#')).collect();
            assert_eq!(shown, bare, "{}", rule.code);
        }
    }
}
