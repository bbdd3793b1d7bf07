//! A breadth-first search of everything that a model can do. States are packed into a few words, so that some millions of
//! them fit; the first bad state comes with the shortest way to it.

use std::collections::BTreeMap;

/// A packed state.
pub(super) type Packed = [u64; 3];

/// What is searched.
pub(super) trait Model {
    /// A state, unpacked.
    type State: Copy;
    /// Where it begins.
    fn start(&self) -> Self::State;
    /// Hands every step that can be taken, with its name, to `take`.
    fn steps(&self, state: &Self::State, take: &mut dyn FnMut(Step, Self::State));
    /// What is wrong with a state.
    fn wrong(&self, state: &Self::State) -> Option<&'static str>;
    /// The state in words of its own; equal only if nothing that can follow differs.
    fn pack(&self, state: &Self::State) -> Packed;
    /// The state out of its words.
    fn unpack(&self, packed: &Packed) -> Self::State;
    /// One line about a state.
    fn show(&self, state: &Self::State) -> String;
}

/// A step's name: who, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step(pub(super) &'static str, pub(super) &'static str);

/// What a search came to.
pub(super) struct Found {
    /// States that can be reached.
    pub(super) states: Vec<Packed>,
    /// Steps between them.
    pub(super) steps: usize,
    /// How often each step was taken: a model in which something never happens proves nothing about it.
    pub(super) taken: BTreeMap<Step, usize>,
    /// The first bad state: what is wrong, and the way there.
    pub(super) bad: Option<(&'static str, Vec<String>)>,
}

/// States by number, and a table that finds their numbers.
struct Table {
    states: Vec<Packed>,
    parents: Vec<u32>,
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Table {
    fn new() -> Self {
        Self { states: Vec::new(), parents: Vec::new(), slots: vec![EMPTY; 1 << 16] }
    }

    fn hash(packed: &Packed) -> u64 {
        let mut hash = 0u64;
        for word in packed {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        hash
    }

    /// Adds a state; whether it is new.
    fn add(&mut self, packed: Packed, parent: u32) -> bool {
        if self.states.len() * 2 > self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = Self::hash(&packed) as usize & mask;
        while self.slots[at] != EMPTY {
            if self.states[self.slots[at] as usize] == packed {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = self.states.len() as u32;
        self.states.push(packed);
        self.parents.push(parent);
        true
    }

    fn grow(&mut self) {
        let mut slots = vec![EMPTY; self.slots.len() * 4];
        let mask = slots.len() - 1;
        for (number, packed) in self.states.iter().enumerate() {
            let mut at = Self::hash(packed) as usize & mask;
            while slots[at] != EMPTY {
                at = (at + 1) & mask;
            }
            slots[at] = number as u32;
        }
        self.slots = slots;
    }
}

/// Searches until nothing new is found, or something bad is.
pub(super) fn search<M: Model>(model: &M) -> Found {
    let mut table = Table::new();
    let mut found = Found { states: Vec::new(), steps: 0, taken: BTreeMap::new(), bad: None };
    table.add(model.pack(&model.start()), EMPTY);
    let mut next: Vec<(Step, M::State)> = Vec::new();
    let mut at = 0;
    while at < table.states.len() && found.bad.is_none() {
        let state = model.unpack(&table.states[at]);
        next.clear();
        model.steps(&state, &mut |step, state| next.push((step, state)));
        found.steps += next.len();
        for (step, state) in &next {
            *found.taken.entry(*step).or_insert(0) += 1;
            if !table.add(model.pack(state), at as u32) {
                continue;
            }
            if let Some(what) = model.wrong(state) {
                found.bad = Some((what, trace(model, &table)));
                break;
            }
        }
        at += 1;
    }
    found.states = table.states;
    found
}

/// The way to the state that was added last.
fn trace<M: Model>(model: &M, table: &Table) -> Vec<String> {
    let mut numbers = vec![table.states.len() - 1];
    while let Some(parent) = numbers.last().map(|last| table.parents[*last]).filter(|parent| *parent != EMPTY) {
        numbers.push(parent as usize);
    }
    numbers.reverse();
    let mut lines = vec![model.show(&model.unpack(&table.states[0]))];
    for pair in numbers.windows(2) {
        let mut line = String::new();
        model.steps(&model.unpack(&table.states[pair[0]]), &mut |step, state| {
            if line.is_empty() && model.pack(&state) == table.states[pair[1]] {
                line = format!("{:>9}: {:<36} {}", step.0, step.1, model.show(&state));
            }
        });
        lines.push(line);
    }
    lines
}
