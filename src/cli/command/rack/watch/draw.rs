//! The picture: a line for the rack, the elevation, what is behind the chosen node, and the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table, TableState, Wrap};

use super::board::{Action, Board, Mode, Row};
use crate::job::{NodeView, TaskState};
use crate::model::ByteSize;
use crate::rack::show;
use crate::sys::clock::Timestamp;

/// Cells of a progress bar.
const BAR: usize = 12;
/// Below this width, what is behind a node takes the whole screen.
const NARROW: u16 = 100;

/// Draws the board as it is at `now`.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board, now: Timestamp) {
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(head(board, now)), top);
    let (left, right) = match board.detail {
        false => (Some(middle), None),
        true if middle.width < NARROW => (None, Some(middle)),
        true => {
            let [left, right] =
                Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(middle);
            (Some(left), Some(right))
        }
    };
    if let Some(area) = left {
        elevation(frame, board, area, now);
    }
    if let (Some(area), Some(row)) = (right, board.chosen()) {
        let block = Block::new().borders(Borders::LEFT).title(format!(" {} ", row.node)).bold();
        let text = Paragraph::new(behind(row, now)).wrap(Wrap { trim: false }).block(block).not_bold();
        frame.render_widget(text, area);
    }
    frame.render_widget(Paragraph::new(keys(board)), bottom);
}

fn head(board: &Board, now: Timestamp) -> Vec<Line<'static>> {
    let mut first = vec![Span::from(format!("rack {}", board.rack)).bold()];
    match &board.job {
        None => first.push(Span::from("   no job yet: `bedplate rack apply` begins one")),
        Some(job) => {
            let state = match (job.ended, job.paused) {
                (Some(_), _) => "over",
                (None, true) => "paused",
                (None, false) => "running",
            };
            let until = job.ended.unwrap_or(now);
            first.push(Span::from(format!("   job {}   {state}   {}", job.id, clock(until.since(job.created)))));
        }
    }
    let mut second = vec![];
    for (state, color) in [
        ("imaged", Color::Green),
        ("running", Color::Cyan),
        ("queued", Color::Gray),
        ("failing", Color::Red),
        ("failed", Color::Red),
        ("cancelled", Color::Yellow),
        ("quarantined", Color::Red),
        ("unknown", Color::DarkGray),
    ] {
        let count = board.all().iter().filter(|row| row.state() == state).count();
        if count > 0 {
            second.push(Span::from(format!("{count} {state}   ")).fg(color));
        }
    }
    if let Some((since, why)) = &board.away {
        let text = format!("the appliance has not answered for {}: {why}", show::ago(now, *since));
        second = vec![Span::from(text).fg(Color::Red).bold()];
    }
    vec![Line::from(first), Line::from(second)]
}

fn elevation(frame: &mut Frame<'_>, board: &Board, area: Rect, now: Timestamp) {
    let shown = board.shown();
    let rows = shown.iter().map(|row| {
        let (task, trouble) = (row.task.as_ref().map(|(_, view)| view), row.trouble().unwrap_or_default());
        TableRow::new(vec![
            Cell::from(row.slot.map_or_else(String::new, |slot| format!("{slot:>4}"))),
            Cell::from(format!("{}{}", row.node, if row.lit { " *" } else { "" })),
            Cell::from(row.state()).style(color(row)),
            Cell::from(row.step()),
            Cell::from(row.done().map(bar).unwrap_or_default()),
            Cell::from(task.map(|view| show::ago(now, view.since)).unwrap_or_default()),
            Cell::from(trouble.to_owned()).style(Style::new().fg(Color::Yellow)),
        ])
    });
    let name = board.all().iter().map(|row| row.node.as_str().len()).max().unwrap_or(4).clamp(4, 24) as u16 + 2;
    let widths = [
        Constraint::Length(4),
        Constraint::Length(name),
        Constraint::Length(11),
        Constraint::Length(30),
        Constraint::Length(BAR as u16 + 6),
        Constraint::Length(7),
        Constraint::Fill(1),
    ];
    let header = TableRow::new(["slot", "node", "state", "step", "done", "since", "trouble"]).bold();
    let table = Table::new(rows, widths)
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP));
    let mut state = TableState::new().with_selected(Some(board.cursor()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn color(row: &Row) -> Style {
    Style::new().fg(match row.state() {
        "imaged" => Color::Green,
        "failed" | "failing" | "quarantined" => Color::Red,
        "running" => Color::Cyan,
        "cancelled" | "cancelling" => Color::Yellow,
        _ => Color::Gray,
    })
}

fn bar(done: f64) -> String {
    let full = (done * BAR as f64) as usize;
    format!("{}{} {:>3} %", "#".repeat(full), ".".repeat(BAR - full), (done * 100.0) as u32)
}

fn behind(row: &Row, now: Timestamp) -> Vec<Line<'static>> {
    let mut lines = vec![fact("BMC", &row.bmc)];
    if let Some((job, view)) = &row.task {
        lines.push(fact("job", &job.to_string()));
        of_task(&mut lines, view, now);
    }
    if let Some(known) = &row.known {
        if let Some(holds) = &known.holds {
            lines.push(fact("runs", &format!("{}, since {}", holds.image, holds.since)));
            lines.push(fact("disk", holds.disk_serial.as_deref().unwrap_or(&holds.disk)));
        }
        if let Some(quarantine) = &known.quarantine {
            lines.push(fact("quarantined", &format!("since {}: {}", quarantine.since, quarantine.cause.message)));
        }
        if let Some(serial) = known.machine.as_ref().and_then(|machine| machine.serial.as_ref()) {
            lines.push(fact("serial", serial));
        }
    }
    lines
}

fn of_task(lines: &mut Vec<Line<'static>>, view: &NodeView, now: Timestamp) {
    lines.push(fact("image", &view.image.to_string()));
    if let Some(error) = &view.error {
        lines.push(Line::from(error.message.clone()).fg(Color::Red));
        lines.push(Line::from(error.hint.clone()).fg(Color::Yellow));
    }
    if let Some(trouble) = &view.trouble {
        lines.push(Line::from(format!("trying again: {trouble}")).fg(Color::Yellow));
    }
    if let Some(phase) = view.phase {
        let (done, total) = (ByteSize(view.bytes_done), ByteSize(view.bytes_total));
        lines.push(fact(show::phase_words(phase), &format!("{done} of {total}")));
    }
    lines.push(Line::default());
    for passed in &view.passed {
        lines.push(Line::from(format!("{:>9}  {}", clock(passed.until.since(passed.since)), passed.step)));
    }
    if view.state == TaskState::Running {
        lines.push(Line::from(format!("{:>9}  {}", clock(now.since(view.since)), view.step)).bold());
    }
    lines.extend(view.notes.iter().map(|note| Line::from(format!("- {note}"))));
    lines.push(Line::default());
}

fn fact(name: &str, value: &str) -> Line<'static> {
    Line::from(vec![Span::from(format!("{name}: ")).dim(), Span::from(value.to_owned())])
}

fn keys(board: &Board) -> Line<'static> {
    match (&board.mode, &board.message) {
        (Mode::Filter, _) => Line::from(format!("/{}_   Enter keeps the filter, Esc clears it", board.filter)),
        (Mode::Sure(Action::Retry(node)), _) => {
            Line::from(format!("apply the spec to {node} again? its disk may be written   y: yes, any other key: no"))
                .fg(Color::Yellow)
        }
        (_, Some(message)) => Line::from(message.clone()).fg(Color::Yellow),
        _ => {
            let filter = match board.filter.is_empty() {
                true => "/ filter".to_owned(),
                false => format!("/ filter ({})", board.filter),
            };
            let pause = if board.job.as_ref().is_some_and(|job| job.paused) { "p go on" } else { "p pause" };
            Line::from(format!("Enter behind it   {filter}   i light   c console   r retry   {pause}   q quit")).dim()
        }
    }
}

fn clock(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    //! What a technician sees, in letters; and what the keys do to it.
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::board::Key;
    use super::*;
    use crate::job::{Fault, JobState, JobView, Passed, Step};
    use crate::model::JobId;
    use crate::rack::Spec;

    const SPEC: &str = r#"
        name = "r1"
        image = "os@1"
        disk = { serial = "S" }
        [[node]]
        name = "gpu-01"
        bmc = "https://10.0.0.1"
        slot = 10
        [[node]]
        name = "gpu-02"
        bmc = "https://10.0.0.2"
        slot = 12
        [[node]]
        name = "gpu-03"
        bmc = "https://10.0.0.3"
        slot = 14
    "#;

    fn view(node: &str, state: TaskState, step: Step) -> NodeView {
        NodeView { bytes_total: 4_000_000_000, ..NodeView::example(node, state, step, Timestamp(50_000)) }
    }

    fn job() -> JobView {
        let mut writing = view("gpu-01", TaskState::Running, Step::Install);
        (writing.phase, writing.bytes_done) = (Some(crate::format::order::Phase::Write), 1_000_000_000);
        writing.passed = vec![Passed { step: Step::PowerOn, since: Timestamp(1_000), until: Timestamp(50_000) }];
        let mut failed = view("gpu-02", TaskState::Failed, Step::BootMedia);
        let fault = Fault { message: "the BMC reverted it".to_owned(), hint: "update its firmware".to_owned() };
        failed.error = Some(fault);
        JobView {
            id: JobId([7; 16]),
            rack: "r1".to_owned(),
            state: JobState::Running,
            paused: false,
            created: Timestamp(1_000),
            ended: None,
            nodes: vec![writing, failed, view("gpu-03", TaskState::Queued, Step::PowerOff)],
            unchanged: vec![],
        }
    }

    fn board() -> Board {
        let spec = Spec::parse(SPEC, "rack.toml", std::path::Path::new("/")).unwrap();
        let mut board = Board::new(&spec);
        board.look(&[job()], &[]);
        board
    }

    fn picture(board: &Board, width: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, 14)).unwrap();
        terminal.draw(|frame| draw(frame, board, Timestamp(100_000))).unwrap();
        let text = terminal.backend().to_string();
        text.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_rack_from_top_to_bottom() {
        insta::assert_snapshot!(picture(&board(), 110), @r#"
        rack r1   job 07070707070707070707070707070707   running   1:39
        1 running   1 queued   1 failed
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
        slot node     state       step                           done               since   trouble
          14 gpu-03   queued                                                        50 s
          12 gpu-02   failed                                                        50 s    the BMC reverted it
          10 gpu-01   running     install                        ###.........  25 % 50 s






        Enter behind it   / filter   i light   c console   r retry   p pause   q quit
        "#);
    }

    #[test]
    fn what_is_behind_a_node() {
        let mut board = board();
        board.key(Key::End);
        board.key(Key::Enter);
        insta::assert_snapshot!(picture(&board, 80), @r#"
        rack r1   job 07070707070707070707070707070707   running   1:39
        1 running   1 queued   1 failed
        │ gpu-01
        │BMC: https://10.0.0.1
        │job: 07070707070707070707070707070707
        │image: os@1
        │writing: 953.7 MiB of 3.7 GiB
        │
        │     0:49  power on
        │     0:50  install
        │
        │
        │
        Enter behind it   / filter   i light   c console   r retry   p pause   q quit
        "#);
    }

    #[test]
    fn keys_choose_filter_and_ask() {
        let mut board = board();
        assert_eq!(board.chosen().unwrap().node.as_str(), "gpu-03", "the top of the rack");
        assert_eq!(board.key(Key::Char('r')), None);
        assert!(board.message.is_some(), "it has not failed");
        for key in [Key::Char('/'), Key::Char('f'), Key::Char('a'), Key::Char('i'), Key::Enter] {
            assert_eq!(board.key(key), None);
        }
        assert_eq!(board.shown().len(), 1, "one has failed");
        let node = board.chosen().unwrap().node.clone();
        assert_eq!(board.key(Key::Char('i')), Some(Action::Identify(node.clone(), true)));
        board.lit(&node, true);
        assert_eq!(board.key(Key::Char('i')), Some(Action::Identify(node.clone(), false)));
        board.key(Key::Char('r'));
        assert_eq!(board.key(Key::Char('n')), None);
        board.key(Key::Char('r'));
        assert_eq!(board.key(Key::Char('y')), Some(Action::Retry(node)));
        assert_eq!(board.key(Key::Char('p')), Some(Action::Pause(JobId([7; 16]), true)));
        board.key(Key::Escape);
        assert_eq!(board.shown().len(), 3);
        assert_eq!(board.key(Key::Char('q')), Some(Action::Quit));
    }
}
