//! `bedplate store scrub` and `fsck --rebuild-index`: how the scrub stands, what is damaged and who needs it, and what can be
//! made again.

use serde_json::json;

use super::local::Opened;
use crate::cli::exit::{CliError, DONE, Exit, FAILED};
use crate::cli::{Context, output};
use crate::store::{DamageInfo, RebuildOptions, RebuildReport, ScrubReport, ScrubStatus};

const DAY_SECONDS: u64 = 86_400;

/// Asks the appliance how its scrub stands, or to scrub at once.
pub(super) async fn run(context: &Context, now: bool, repair: bool) -> Result<Exit, CliError> {
    let api = context.api()?;
    let damage = if now || repair {
        let body = json!({ "all": now, "repair": repair });
        let report: ScrubReport = api.post_json("/api/v1/store/scrub", &body).await?;
        context.output.value(&report, show_report)?;
        report.damage
    } else {
        let status: ScrubStatus = api.get_json("/api/v1/store/scrub").await?;
        context.output.value(&status, show_status)?;
        status.damage
    };
    if damage.is_empty() {
        return Ok(DONE);
    }
    context.output.error(
        &CliError::failed(format!("{} chunks or packs are damaged and needed", damage.len()))
            .hint("put the named objects' bytes again under any name, then run `bedplate store scrub --repair`; docs/operating.md has more"),
    );
    Ok(FAILED)
}

/// Makes index and list of packs again: in the data folder itself, or, where an appliance uses it, by asking that.
pub(super) async fn rebuild(context: &Context) -> Result<Exit, CliError> {
    // An appliance elsewhere has no folder here, and none must be made for it.
    let opened = if context.data.join("meta").exists() { Opened::unless_used(context).await? } else { None };
    let report: RebuildReport = match opened {
        Some(opened) => {
            let report = opened.store.rebuild_index(RebuildOptions { adopt: true }).await;
            opened.close().await;
            report?
        }
        None => context.api()?.post_json("/api/v1/store/rebuild-index", &json!({})).await?,
    };
    context.output.value(&report, show_rebuild)?;
    if report.failures.is_empty() {
        return Ok(DONE);
    }
    context.output.error(
        &CliError::failed(format!("{} packs could not be read", report.failures.len()))
            .hint("they were left as they are; run `bedplate store fsck` to see which objects need them"),
    );
    Ok(FAILED)
}

fn show_status(status: &ScrubStatus) -> String {
    let mut text =
        format!("{} packs, {} never read again since they were written", status.packs, status.never_verified);
    if let Some(oldest) = status.oldest {
        let days = status.oldest_age_seconds / DAY_SECONDS;
        text.push_str(&format!("\nthe oldest was last read or written {days} days ago, {oldest}"));
    }
    text.push_str(&show_damage(&status.damage));
    text
}

fn show_report(report: &ScrubReport) -> String {
    let mut text = format!(
        "{} packs and {} chunks read in {:.1} s: {} damaged chunks, {} damaged group heads",
        report.packs, report.chunks, report.seconds, report.damaged_chunks, report.heads
    );
    let repair = &report.repair;
    if repair.copies + repair.rewritten + repair.directories > 0 {
        text.push_str(&format!(
            "\nrepaired: {} chunks have another copy, {} objects refer to it now, {} directories were made again",
            repair.copies, repair.rewritten, repair.directories
        ));
    }
    repair.failures.iter().for_each(|failure| text.push_str(&format!("\nnot repaired: {failure}")));
    text.push_str(&show_damage(&report.damage));
    text
}

fn show_damage(damage: &[DamageInfo]) -> String {
    if damage.is_empty() {
        return "\nno damage is known".to_owned();
    }
    let rows = damage.iter().map(|damage| {
        let chunk = damage.chunk.map_or_else(|| "all".to_owned(), |chunk| chunk.to_string());
        let more = damage.needed_by.saturating_sub(damage.objects.len() as u64);
        let mut objects = damage.objects.join("\n");
        if more > 0 {
            objects.push_str(&format!("\nand {more} more"));
        }
        vec![damage.pack.to_string(), chunk, damage.found.to_string(), damage.what.clone(), objects]
    });
    format!("\n{}", output::table(&["pack", "chunk", "found", "damage", "needed by"], rows.collect()))
}

fn show_rebuild(report: &RebuildReport) -> String {
    let mut text = format!(
        "{} packs compared with the index: {} rows written, {} removed; {} packs taken into the list again",
        report.packs,
        report.rows_written,
        report.rows_removed,
        report.adopted.len()
    );
    for failure in &report.failures {
        let pack = failure.pack.map(|pack| pack.to_string()).unwrap_or_default();
        text.push_str(&format!("\npack {pack}: {}", failure.what));
    }
    text
}
