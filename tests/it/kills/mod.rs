//! A real `bedplate serve`, killed with SIGKILL at instants that nobody chose, again and again. BEDPLATE_KILLS says how often.

mod rack;
mod store;

/// Kills of a plain `cargo test`.
const KILLS: u64 = 5;

fn kills() -> u64 {
    std::env::var("BEDPLATE_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

/// Numbers that differ from run to run: no two runs kill at the same instants.
fn chance(below: u64) -> u64 {
    u64::from_le_bytes(bedplate::sys::entropy::fresh_id()[8..].try_into().unwrap()) % below
}
