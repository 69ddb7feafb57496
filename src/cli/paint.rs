//! Colours, on a terminal only, and never where somebody has set `NO_COLOR`.

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
        Paint { on: stream.is_terminal() && std::env::var_os("NO_COLOR").is_none() }
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

    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
}
