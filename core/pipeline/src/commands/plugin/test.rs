//! `pipeline plugin test [PLUGIN...]`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use author::Report;
use host::{Host, Options};
use spec::Files;

use super::{BudgetArgs, counted, open};
use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// Folders of plugins, such as `plugins/*`, or a folder that holds such folders.
    #[arg(value_name = "PLUGIN", default_value = ".")]
    plugins: Vec<PathBuf>,
    /// Run only the tests whose names contain this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Also write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let start = Instant::now();
    let (named, passed_over) = author::find(&args.plugins);
    let (mut files, mut plugins, mut reports) = (Files::default(), Vec::new(), Vec::new());
    for named in &named {
        match open(named, &BudgetArgs::default(), &mut files)? {
            Ok(plugin) => plugins.push(plugin),
            Err(_) => {
                let plugin = named.display().to_string();
                reports.push(Report { plugin, tests: Err("its plugin.toml is wrong".into()) });
            }
        }
    }
    let host = Host::new(Options::default())?;
    author::test(&host, &plugins, &args.filter, |report| {
        print(&report, &files);
        reports.push(report);
    });
    if let Some(path) = &args.junit {
        std::fs::write(path, author::junit(&reports)).with_context(|| format!("failed to write {}", path.display()))?;
    }
    if !passed_over.is_empty() {
        ui::say(&format!("{} without a plugin.toml passed over", counted(passed_over.len(), "path")));
    }
    let tests = || reports.iter().filter_map(|report| report.tests.as_ref().ok()).flatten();
    let failed = tests().filter(|test| !test.problems.is_empty()).count();
    let unusable = reports.iter().filter(|report| report.tests.is_err()).count();
    let mut summary = vec![format!("{} passed", tests().count() - failed)];
    if failed > 0 {
        summary.push(format!("{failed} failed"));
    }
    if unusable > 0 {
        summary.push(format!("{} could not be tested", counted(unusable, "plugin")));
    }
    let of = format!("{} of {}", counted(tests().count(), "test"), counted(named.len(), "plugin"));
    ui::say(&format!("{of}: {} ({:.2} s)", summary.join(", "), start.elapsed().as_secs_f64()));
    Ok(match (failed + unusable, tests().count()) {
        (0, 0) => exit_code::NO_TESTS,
        (0, _) => exit_code::DONE,
        _ => exit_code::FINDING,
    })
}

fn print(report: &Report, files: &Files) {
    let plugin = ui::escape(&report.plugin);
    let tests = match &report.tests {
        Ok(tests) => tests,
        Err(error) => return ui::say(&format!("FAIL  {plugin}: {}", ui::escape(error))),
    };
    for test in tests {
        let name = ui::escape(&test.name);
        if test.problems.is_empty() {
            ui::say(&format!("ok    {plugin}: {name}"));
            continue;
        }
        let file = &test.at.file;
        let line = files.text(file).map_or(1, |text| text[..test.at.start].matches('\n').count() + 1);
        ui::say(&format!("FAIL  {plugin}: {name} ({}:{line})", ui::escape(&file.display().to_string())));
        for line in test.problems.iter().flat_map(|problem| problem.lines()) {
            ui::say(&format!("        {}", ui::escape(line)));
        }
    }
}
