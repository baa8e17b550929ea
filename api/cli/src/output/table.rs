//! Tables that fit: what matters least is left out of a narrow terminal, and no cell can do more
//! than show its text.
//!
//! Elsewhere than on a terminal nothing is left out and nothing is cut.

use std::io::{self, IsTerminal};

use comfy_table::{
    Attribute, Cell as Inner, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row,
    Table as Comfy, presets,
};

use super::escape;
use super::paint::{Colour, Paint};

/// Cells between two columns.
const GAP: u16 = 2;
/// What a column that may be cut needs at least.
const LEAST: u16 = 10;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    /// The higher, the sooner it is left out; 0 stays.
    rank: u8,
    /// Whether its text may be cut.
    flexible: bool,
    right: bool,
}

impl Column {
    /// A column that is never cut; the higher `rank`, the sooner it is left out, and 0 stays.
    pub(crate) const fn fixed(title: &'static str, rank: u8) -> Self {
        Self {
            title,
            rank,
            flexible: false,
            right: false,
        }
    }

    /// A column that may be cut.
    pub(crate) const fn flexible(title: &'static str, rank: u8) -> Self {
        Self {
            flexible: true,
            ..Self::fixed(title, rank)
        }
    }

    /// A column of numbers.
    pub(crate) const fn number(title: &'static str, rank: u8) -> Self {
        Self {
            right: true,
            ..Self::fixed(title, rank)
        }
    }
}

/// What is in a cell, made harmless.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
    dim: bool,
}

impl Cell {
    /// Coloured text.
    pub(crate) fn coloured(text: &str, colour: Option<Colour>) -> Self {
        Self {
            colour,
            ..Self::from(text)
        }
    }

    /// Less visible text.
    pub(crate) fn dim(text: &str) -> Self {
        Self {
            dim: true,
            ..Self::from(text)
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self {
            text: escape::line(text).into_owned(),
            colour: None,
            dim: false,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    /// No rows yet.
    pub(crate) fn new(columns: [Column; N]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// The table for standard output.
    pub(crate) fn for_stdout(&self) -> String {
        self.render(terminal_width(), Paint::stdout())
    }

    /// The table in at most `width` cells, when that is given. Ends with a line's end.
    pub(crate) fn render(&self, width: Option<u16>, paint: Paint) -> String {
        let mut table = Comfy::new();
        table
            .load_style(presets::NOTHING)
            .set_truncation_indicator("…")
            .set_header(self.columns.iter().map(|column| {
                let cell = Inner::new(column.title);
                if paint.is_on() {
                    cell.add_attribute(Attribute::Bold)
                } else {
                    cell
                }
            }));
        for row in &self.rows {
            let mut row = Row::from(row.iter().map(|cell| inner(cell, paint)));
            if width.is_some() {
                row.max_height(1);
            }
            table.add_row(row);
        }
        if paint.is_on() {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let shown = match width {
            None => [true; N],
            Some(width) => self.shown(&table.column_max_content_widths(), width),
        };
        let last = shown.iter().rposition(|shown| *shown);
        for (index, inner) in table.column_iter_mut().enumerate() {
            let column = &self.columns[index];
            inner.set_padding((0, if Some(index) == last { 0 } else { GAP }));
            if column.right {
                inner.set_cell_alignment(CellAlignment::Right);
            }
            if !shown[index] {
                inner.set_constraint(ColumnConstraint::Hidden);
            } else if width.is_some() && !column.flexible {
                inner.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        match width {
            None => table.set_content_arrangement(ContentArrangement::Disabled),
            Some(width) => table
                .set_width(width)
                .set_content_arrangement(ContentArrangement::Dynamic),
        };
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Which columns there is room for.
    fn shown(&self, natural: &[u16], width: u16) -> [bool; N] {
        let mut shown = [true; N];
        loop {
            let needed: u32 = (0..N)
                .filter(|index| shown[*index])
                .map(|index| {
                    let natural = natural.get(index).copied().unwrap_or(0);
                    let least = match self.columns[index].flexible {
                        true => natural.min(LEAST),
                        false => natural,
                    };
                    u32::from(least) + u32::from(GAP)
                })
                .sum();
            let next = (0..N)
                .filter(|index| shown[*index] && self.columns[*index].rank > 0)
                .max_by_key(|index| self.columns[*index].rank);
            match next {
                Some(index) if needed > u32::from(width) + u32::from(GAP) => shown[index] = false,
                _ => return shown,
            }
        }
    }
}

fn inner(cell: &Cell, paint: Paint) -> Inner {
    let inner = Inner::new(&cell.text);
    if !paint.is_on() {
        return inner;
    }
    let inner = match cell.colour {
        None => inner,
        Some(Colour::Red) => inner.fg(Color::DarkRed),
        Some(Colour::Green) => inner.fg(Color::DarkGreen),
        Some(Colour::Yellow) => inner.fg(Color::DarkYellow),
        Some(Colour::Blue) => inner.fg(Color::DarkBlue),
    };
    if cell.dim {
        inner.add_attribute(Attribute::Dim)
    } else {
        inner
    }
}

/// The width of standard output, when it is a terminal that knows.
fn terminal_width() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Names with values, aligned; every value is in one line.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    /// Adds a field.
    pub(crate) fn add(&mut self, name: &'static str, value: impl AsRef<str>) {
        self.0
            .push((name, escape::line(value.as_ref()).into_owned()));
    }

    /// The lines.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.0
            .iter()
            .map(|(name, value)| format!("{}  {value}\n", paint.dim(&format!("{name:<width$}"))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<4> {
        let mut table = Table::new([
            Column::fixed("ID", 0),
            Column::flexible("NAME", 0),
            Column::number("SIZE", 1),
            Column::flexible("LABELS", 2),
        ]);
        let names = [
            "plain".to_string(),
            "\x1b[31mred\x1b[0m\r\n\x07".to_string(),
            "\u{202e}gnp.exe\u{2066}\u{200b}".to_string(),
            "広い名前".repeat(20),
            "e\u{301}".repeat(50),
        ];
        for name in &names {
            table.row([
                "ws-abcdefghijkl".into(),
                name.as_str().into(),
                "12 B".into(),
                Cell::dim("issue=42, team=parsers"),
            ]);
        }
        table
    }

    /// The cells that a line takes, as a terminal counts them.
    fn cells(line: &str) -> usize {
        console::measure_text_width(line)
    }

    #[test]
    fn a_table_fits_its_terminal_and_no_row_is_more_than_a_line() {
        for width in [40, 80, 200] {
            for paint in [Paint::fixed(false), Paint::fixed(true)] {
                let text = table().render(Some(width), paint);
                assert_eq!(text.lines().count(), 6, "{width}: {text}");
                for line in text.lines() {
                    assert!(cells(line) <= usize::from(width), "{width}: {line}");
                    assert!(line.contains("ws-abcdefghijkl") || line.contains("ID"));
                }
            }
        }
    }

    #[test]
    fn what_matters_least_goes_first() {
        let header = |width| {
            let text = table().render(Some(width), Paint::fixed(false));
            let line = text.lines().next().unwrap().to_string();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(header(200), "ID NAME SIZE LABELS");
        assert_eq!(header(40), "ID NAME SIZE");
        assert_eq!(header(30), "ID NAME");
    }

    #[test]
    fn a_pipe_gets_all_of_it_and_nothing_that_confuses() {
        let text = table().render(None, Paint::fixed(false));
        assert_eq!(text.lines().count(), 6);
        assert!(text.contains(&"広い名前".repeat(20)), "{text}");
        assert!(text.contains(r"\x1b[31mred\x1b[0m\r\n\x07"), "{text}");
        assert!(text.contains(r"\u{202e}gnp.exe"), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(text.lines().all(|line| line.trim_end() == line));
    }

    #[test]
    fn an_absurdly_narrow_terminal_is_no_crash() {
        for width in 0..12 {
            assert!(!table().render(Some(width), Paint::fixed(true)).is_empty());
        }
    }

    #[test]
    fn fields_are_aligned_and_harmless() {
        let mut fields = Fields::default();
        fields.add("name", "a\x1b]0;title\x07");
        fields.add("workspace", "b");
        let text = fields.render(Paint::fixed(false));
        assert_eq!(text, "name       a\\x1b]0;title\\x07\nworkspace  b\n");
    }
}
