//! Test results in JUnit's XML, which continuous integration shows.

use std::fmt::Write;

use crate::tests::Report;

/// The report of several plugins, a suite each.
pub fn junit(reports: &[Report]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let name = attribute(&report.plugin);
        match &report.tests {
            Ok(tests) => {
                let failures = tests.iter().filter(|test| !test.problems.is_empty()).count();
                let seconds: f64 = tests.iter().map(|test| test.seconds).sum();
                let count = tests.len();
                let _ = writeln!(
                    xml,
                    "  <testsuite name=\"{name}\" tests=\"{count}\" failures=\"{failures}\" errors=\"0\" time=\"{seconds:.6}\">"
                );
                for test in tests {
                    let (case, seconds) = (attribute(&test.name), test.seconds);
                    let _ = write!(xml, "    <testcase classname=\"{name}\" name=\"{case}\" time=\"{seconds:.6}\"");
                    if let Some(first) = test.problems.first() {
                        let message = attribute(first.lines().next().unwrap_or_default());
                        let _ = writeln!(
                            xml,
                            ">\n      <failure message=\"{message}\">{}</failure>\n    </testcase>",
                            escaped(&test.problems.join("\n"))
                        );
                    } else {
                        xml.push_str("/>\n");
                    }
                }
            }
            Err(error) => {
                let _ = writeln!(
                    xml,
                    "  <testsuite name=\"{name}\" tests=\"1\" failures=\"0\" errors=\"1\">\n    \
                     <testcase classname=\"{name}\" name=\"loads\">\n      \
                     <error message=\"{}\"/>\n    </testcase>",
                    attribute(error)
                );
            }
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// Text as XML takes it. What XML can't hold at all (controls, and two that are no characters) is left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\t' | '\n' | '\r' => safe.push(letter),
            '\u{fffe}' | '\u{ffff}' => {}
            letter if letter.is_control() => {}
            letter => safe.push(letter),
        }
    }
    safe
}

/// Text for an attribute, in which line ends would become blanks.
fn attribute(text: &str) -> String {
    escaped(text).replace('\r', "&#13;").replace('\n', "&#10;").replace('\t', "&#9;")
}

#[cfg(test)]
mod tests {
    use base::Span;

    use super::*;
    use crate::tests::Tested;

    #[test]
    fn what_a_model_wrote_stays_text() {
        let test = |problems: &[&str]| Tested {
            name: "a <b>\u{1b}[31m & \"c\"".into(),
            at: Span::new("plugin.toml", 0..1),
            problems: problems.iter().map(|&problem| problem.into()).collect(),
            seconds: 0.25,
        };
        let report = Report { plugin: "p".into(), tests: Ok(vec![test(&[]), test(&["x\u{0}\u{ffff}\n]]></y>"])]) };
        let xml = junit(&[report]);
        assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
        assert!(xml.contains("name=\"a &lt;b&gt;[31m &amp; &quot;c&quot;\""), "{xml}");
        assert!(xml.contains("<failure message=\"x\">x\n]]&gt;&lt;/y&gt;</failure>"), "{xml}");
        assert!(!xml.contains(['\u{1b}', '\u{0}', '\u{ffff}']));
    }
}
