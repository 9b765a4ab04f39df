//! Paragraphs on a terminal: words, a width, colours.

use std::env::{var, var_os};
use std::io::{IsTerminal, stdout};

use crate::escape;
use crate::syscall;

/// How a word looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As the terminal has it.
    Plain,
    /// What one looks for.
    Bold,
    /// What one can skip.
    Dim,
    /// What will go wrong.
    Red,
    /// What is with vfio.
    Green,
    /// What one should think about.
    Yellow,
    /// What one can paste.
    Cyan,
}

impl Style {
    /// As ECMA-48 numbers it in "select graphic rendition", behind the 0 that resets it.
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Bold => ";1",
            Style::Dim => ";2",
            Style::Red => ";31",
            Style::Green => ";32",
            Style::Yellow => ";33",
            Style::Cyan => ";36",
        }
    }
}

/// Where to write, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// Whether to colour.
    pub colour: bool,
    /// Whether lines of a tree can be drawn, or only written in ASCII.
    pub unicode: bool,
}

impl Look {
    /// For what is no terminal.
    pub const PLAIN: Look = Look { width: usize::MAX, colour: false, unicode: false };

    /// What fits where standard output goes: no colour and no end of a line but on a terminal,
    /// unless the environment says otherwise (`NO_COLOR`, `COLUMNS`).
    #[must_use]
    pub fn of_standard_output() -> Look {
        let out = stdout();
        let set = |name: &str| var_os(name).is_some_and(|value| !value.is_empty());
        let columns = var("COLUMNS").ok().and_then(|text| text.parse().ok());
        // The first of these that is set is the one that counts (setlocale(3)).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| set(name));
        let locale =
            locale.and_then(|name| var(name).ok()).unwrap_or_default().to_ascii_lowercase();
        Look {
            width: columns.or_else(|| syscall::columns(&out)).unwrap_or(usize::MAX).max(40),
            colour: out.is_terminal() && !set("NO_COLOR") && var("TERM").is_ok_and(|t| t != "dumb"),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

/// The lines so far.
#[derive(Debug)]
pub struct Page {
    /// Where they go.
    pub look: Look,
    /// With their ends.
    pub text: String,
    /// Of what was written last.
    style: Style,
}

impl Page {
    /// Without any.
    #[must_use]
    pub fn new(look: Look) -> Page {
        Page { look, text: String::new(), style: Style::Plain }
    }

    /// One paragraph: `first` in front of its first line, `rest` in front of the others. Words are
    /// never cut: what is pasted has to stay whole, and a terminal wraps it so that it does.
    pub fn paragraph(&mut self, first: &str, rest: &str, spans: &[(Style, &str)]) {
        self.paint(Style::Dim, first);
        let mut column = first.chars().count();
        let mut is_first = true;
        for (style, text) in spans {
            for word in text.split_whitespace() {
                let length = word.chars().count();
                if !is_first && column + 1 + length > self.look.width {
                    self.paint(Style::Plain, "\n");
                    self.paint(Style::Dim, rest);
                    column = rest.chars().count();
                } else if !is_first {
                    self.text.push(' ');
                    column += 1;
                }
                self.paint(*style, word);
                column += length;
                is_first = false;
            }
        }
        self.paint(Style::Plain, "\n");
    }

    fn paint(&mut self, style: Style, text: &str) {
        if self.look.colour && style != self.style && !text.trim_matches(' ').is_empty() {
            // Back to plain, then the style, in one sequence.
            self.text.extend(["\x1b[0", style.code(), "m"]);
            self.style = style;
        }
        for c in text.chars() {
            if escape::is_hidden(c) && c != '\n' {
                // A device's name could do anything to the terminal otherwise.
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
    }
}
