//! Findings for people, in the style of rustc, and for programs, as JSON.
//!
//! Files, paths and overrides are untrusted: whatever a terminal would obey or reorder is shown, not sent.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use base::{Diagnostic, Severity, Span};
use serde_json::{Value, json};
use spec::Files;

use super::text::{escape, json as json_text, unsafe_letter};

/// All findings as text, a blank line after each; empty if there are none.
pub fn render(diagnostics: &[Diagnostic], files: &Files, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&renderer.render(&report(diagnostic, files)));
        out.push_str("\n\n");
    }
    out
}

fn report<'a>(diagnostic: &'a Diagnostic, files: &Files) -> Vec<Group<'a>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(escape(&diagnostic.message)).id(diagnostic.code);
    let mut group = Group::with_title(title);
    let mut shown: Vec<&Span> = Vec::new();
    let places: Vec<&(Span, String)> = diagnostic.place.iter().chain(&diagnostic.labels).collect();
    for (span, _) in &places {
        if shown.iter().any(|other| other.file == span.file) {
            continue;
        }
        shown.push(span);
        let path = escape(&span.file.to_string_lossy());
        let Some(text) = files.text(&span.file) else {
            group = group.element(Origin::path(path));
            continue;
        };
        let mut snippet = Snippet::source(mask(text)).path(path);
        for (index, (place, label)) in places.iter().enumerate().filter(|(_, place)| place.0.file == span.file) {
            let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            snippet = snippet.annotation(kind.span(within(text, place)).label(escape(label)));
        }
        group = group.element(snippet);
    }
    let help = diagnostic.help.as_deref();
    std::iter::once(group)
        .chain(help.map(|help| Group::with_title(Level::HELP.secondary_title(escape(help)))))
        .collect()
}

/// All findings as a JSON array. Lines and columns count from 1, columns in characters.
pub fn render_json(diagnostics: &[Diagnostic], files: &Files) -> String {
    let place = |(span, label): &(Span, String)| {
        let mut place = json!({ "file": span.file.to_string_lossy(), "label": label });
        if let (Some(text), Value::Object(members)) = (files.text(&span.file), &mut place) {
            let range = within(text, span);
            for (name, byte) in [("start", range.start), ("end", range.end)] {
                let (line, column) = position(text, byte);
                members.insert(name.to_owned(), json!({ "line": line, "column": column, "byte": byte }));
            }
        }
        place
    };
    let findings: Vec<Value> = diagnostics
        .iter()
        .map(|diagnostic| {
            json!({
                "code": diagnostic.code,
                "severity": diagnostic.severity,
                "message": diagnostic.message,
                "place": diagnostic.place.as_ref().map(place),
                "labels": diagnostic.labels.iter().map(place).collect::<Vec<_>>(),
                "help": diagnostic.help,
            })
        })
        .collect();
    json_text(&Value::Array(findings))
}

/// The line and the column of a byte, from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte];
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
}

/// A span's bytes, held within the text and on boundaries of characters.
fn within(text: &str, span: &Span) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end).max(start)
}

/// A source in which each unsafe character is another of the same length, so that places stay. The ASCII controls are
/// replaced by the renderer, which counts on line ends.
fn mask(text: &str) -> String {
    let plain = |letter: char| match letter.len_utf8() {
        2 => '\u{bf}',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars()
        .map(|letter| if unsafe_letter(letter) && !letter.is_ascii() { plain(letter) } else { letter })
        .collect()
}
