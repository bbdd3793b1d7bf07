//! `bedplate store gc`: what garbage collection is to do, and what it did.

use serde_json::json;

use crate::cli::exit::{CliError, DONE, Exit, FAILED};
use crate::cli::{Context, output};
use crate::model::ByteSize;
use crate::store::{GcPlan, GcReport, PlannedPack};

/// Asks the appliance to collect, or to say what it would do.
pub(super) async fn run(context: &Context, dry_run: bool, rounds: u32) -> Result<Exit, CliError> {
    let body = json!({ "dry_run": dry_run, "rounds": rounds });
    let report: GcReport = context.api()?.post_json("/api/v1/store/gc", &body).await?;
    context.output.value(&report, show)?;
    if report.done.failures.is_empty() {
        return Ok(DONE);
    }
    context.output.error(
        &CliError::failed(format!("{} packs could not be removed or moved", report.done.failures.len()))
            .hint("the next round tries again; if they stay, run `bedplate store fsck` and check the data disk"),
    );
    Ok(FAILED)
}

fn show(report: &GcReport) -> String {
    let mut text = show_plan(&report.plan);
    if !report.dry_run {
        text.push_str("\n\n");
        text.push_str(&show_done(report));
    }
    text
}

fn show_plan(plan: &GcPlan) -> String {
    let mut rows = Vec::new();
    let kinds: [(&str, &[PlannedPack]); 5] = [
        ("rescue", &plan.rescue),
        ("delete", &plan.delete),
        ("condemn", &plan.condemn),
        ("waiting", &plan.waiting),
        ("repack", &plan.repack),
    ];
    for (what, packs) in kinds {
        rows.extend(packs.iter().map(|pack| {
            let live = format!("{} of {} chunks, {}", pack.live_chunks, pack.chunks, ByteSize(pack.live_bytes));
            vec![what.to_owned(), pack.pack.to_string(), ByteSize(pack.bytes).to_string(), live]
        }));
    }
    rows.extend(plan.orphans.iter().map(|pack| vec!["orphan".into(), pack.to_string(), String::new(), String::new()]));
    let mut text = format!("{} packs looked at in epoch {}", plan.packs, plan.epoch);
    if rows.is_empty() {
        text.push_str(": nothing to do");
    } else {
        text.push('\n');
        text.push_str(&output::table(&["plan", "pack", "size", "in use"], rows));
    }
    if let Some(why) = &plan.orphans_refused {
        text.push_str(&format!("\npacks without a row are kept: {why}"));
    }
    text
}

fn show_done(report: &GcReport) -> String {
    let done = &report.done;
    let bytes = |bytes: u64| format!("{} ({bytes})", ByteSize(bytes));
    let mut rows = vec![
        ("rounds", report.rounds.to_string()),
        ("packs condemned", done.condemned.to_string()),
        ("packs deleted", done.deleted.to_string()),
        ("bytes freed", bytes(done.freed_bytes)),
        ("packs repacked", done.repacked.to_string()),
        ("bytes moved", bytes(done.moved_bytes)),
        ("objects rewritten", done.rewritten.to_string()),
        ("orphans removed", done.orphans.to_string()),
        ("packs resurrected", done.resurrected.to_string()),
        ("packs waiting", report.waiting.to_string()),
    ];
    if report.waiting > 0 {
        rows.push(("uploads and reads waited for", report.held_over.to_string()));
    }
    let mut text =
        output::table(&["done", "value"], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect());
    for failure in &done.failures {
        text.push_str(&format!("\nfailed: {failure}"));
    }
    text
}
