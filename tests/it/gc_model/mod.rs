//! The protocol of garbage collection, searched exhaustively before it is trusted: writers, a reader, a collector, a packer
//! and crashes, in every order. It proves, for these sizes, that no pack is removed that an object refers to or a reader
//! reads, that no upload loses what it relies on, and that nothing stays that nobody needs. docs/decisions/0004 has
//! the protocol and why; `store::gc`, `store::standing` and `store::commit` are the code.
//!
//! Each rule of the protocol can be broken, and a broken rule must be found out: so the model is not vacuous.

mod collector;
mod protocol;
mod search;
mod state;

use protocol::{Protocol, Rules, Size};
use search::{Found, search};
use state::{State, WORKS, Work};

/// Two writers and a reader: the collector condemns in one round and deletes in the next.
const CROWD: Size =
    Size { writers: 2, works: &WORKS, each: 1, reads: 1, deletes: 1, rounds: 2, repacks: 0, crashes: 1, packs: 3 };
/// A round more, and room for every pack that the writers may open.
const LONGER: Size = Size { reads: 0, rounds: 3, packs: 4, ..CROWD };
/// One writer beside a collector that moves chunks to new packs.
const REPACK: Size = Size { writers: 1, rounds: 3, repacks: 1, ..CROWD };
/// Two writers, both of which change what the collector rewrites.
const REPACK_CROWD: Size = Size { works: &[Work::Over, Work::Copy], reads: 0, repacks: 1, ..CROWD };

fn run(size: Size, rules: Rules) -> Found {
    search(&Protocol { rules, size, folded: true })
}

/// Searches with all rules in force, and wants each of the named steps to have been taken.
fn holds(size: Size, wanted: &[&str]) {
    let found = run(size, Rules::ALL);
    if let Some((what, way)) = found.bad {
        panic!("{what}:\n{}", way.join("\n"));
    }
    for wanted in wanted {
        assert!(found.taken.keys().any(|step| step.1 == *wanted), "no writer or collector ever {wanted}");
    }
    eprintln!("{} states, {} steps", found.states.len(), found.steps);
}

#[test]
fn two_writers_and_a_reader_lose_nothing() {
    holds(
        CROWD,
        &[
            "condemns a pack",
            "claims a pack",
            "removes a row",
            "removes an orphan",
            "resurrects what it finds",
            "resurrects a pack before its commit",
            "leaves a pack that was resurrected",
            "does not rely on a pack that goes",
            "cannot commit: the epoch is another",
            "finds the chunk in a pack seen live",
            "finds the chunk in the session",
            "gives up",
            "crashes and starts again",
        ],
    );
}

#[test]
fn two_writers_lose_nothing_over_three_rounds() {
    holds(LONGER, &["removes a row", "goes on with a pack that goes", "removes an orphan", "resurrects what it finds"]);
}

#[test]
fn repacking_loses_nothing() {
    holds(REPACK, &["rewrites an object", "leaves an object that was changed", "removes a row"]);
    holds(REPACK_CROWD, &["rewrites an object", "leaves an object that was changed", "resurrects what it finds"]);
}

/// Minutes: the crowd over three rounds.
#[test]
#[ignore = "takes minutes; run it after a change of the protocol"]
fn the_crowd_loses_nothing_over_three_rounds() {
    holds(Size { rounds: 3, ..CROWD }, &["removes a row"]);
    holds(Size { repacks: 1, reads: 0, ..CROWD }, &["removes a row"]);
}

#[test]
fn every_rule_is_needed() {
    type Break = fn(&mut Rules);
    let not_live = "an object refers to a pack that is neither open nor sealed";
    let lost = "an upload relied on a pack that has gone before its commit";
    let broken: [(&str, Break, &str); 14] = [
        ("touch", |rules| rules.touch = false, not_live),
        ("resurrect", |rules| rules.resurrect = false, not_live),
        ("expect_epoch", |rules| rules.expect_epoch = false, not_live),
        ("touch_again", |rules| rules.touch_again = false, not_live),
        ("check_row", |rules| rules.check_row = false, lost),
        ("sealing_keeps", |rules| rules.sealing_keeps = false, not_live),
        ("epoch_first", |rules| rules.epoch_first = false, not_live),
        ("spare_created", |rules| rules.spare_created = false, not_live),
        ("spare_referenced", |rules| rules.spare_referenced = false, not_live),
        ("wait", |rules| rules.wait = false, lost),
        ("claim", |rules| rules.claim = false, "an object refers to a pack whose file is gone"),
        ("index_first", |rules| rules.index_first = false, "an index row of a pack that is gone is never removed"),
        ("spare_own", |rules| rules.spare_own = false, lost),
        ("expect_object", |rules| rules.expect_object = false, "an object that was overwritten is back"),
    ];
    for (name, break_it, what) in broken {
        let mut rules = Rules::ALL;
        break_it(&mut rules);
        let found = run(REPACK, rules);
        assert_eq!(found.bad.map(|bad| bad.0), Some(what), "without {name}");
    }
    // Readers wait for nothing of their own: the collector waits for them.
    let rules = Rules { wait: false, ..Rules::ALL };
    let found = run(Size { writers: 0, ..REPACK }, rules);
    assert_eq!(found.bad.map(|bad| bad.0), Some("a reader's pack is gone"));
}

/// States that differ in nothing that matters are searched as one. Searched apart, they come to the same.
#[test]
fn folding_states_loses_none() {
    for size in [
        Size { writers: 1, repacks: 0, ..REPACK },
        Size { works: &[Work::Put], deletes: 0, reads: 0, crashes: 0, ..CROWD },
        Size { reads: 0, works: &[Work::Over], rounds: 2, ..REPACK },
    ] {
        let folded = Protocol { rules: Rules::ALL, size, folded: true };
        let raw = search(&Protocol { folded: false, ..folded });
        assert!(raw.bad.is_none());
        let mut apart: Vec<_> = raw.states.iter().map(|packed| folded.settled(&State::unpack(packed)).pack()).collect();
        apart.sort_unstable();
        apart.dedup();
        let mut together = search(&folded).states;
        together.sort_unstable();
        assert!(raw.states.len() > together.len());
        assert!(apart == together, "{} states apart, {} together", apart.len(), together.len());
    }
}
