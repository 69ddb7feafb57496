//! Colours, on a terminal only, and never where somebody has set `NO_COLOR` or the terminal says that it is dumb.
//!
//! Not the eight that every palette has in its own shade: its yellow and its green are hardly seen on white in the palettes of
//! xterm and its kin. These are of the fixed cube of 256, whose contrast is 4:1 or more on white and on black alike.

use std::io::IsTerminal;

#[derive(Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Without colours.
    #[cfg(test)]
    pub const OFF: Paint = Paint { on: false };

    /// For what is written there.
    pub fn of(stream: &impl IsTerminal) -> Paint {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Paint { on: stream.is_terminal() && set("NO_COLOR").is_none() && !dumb }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// #ff0000: 4.0:1 on white, 5.3:1 on black.
    pub fn red(self, text: &str) -> String {
        self.with("38;5;196", text)
    }

    /// #008700: 4.7:1 on white, 4.5:1 on black.
    pub fn green(self, text: &str) -> String {
        self.with("38;5;28", text)
    }

    /// #af5f00, an amber: 4.7:1 on white, 4.5:1 on black.
    pub fn yellow(self, text: &str) -> String {
        self.with("38;5;130", text)
    }
}
