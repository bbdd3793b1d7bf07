//! JSON lines with the redundancy of real text: words follow Zipf's law and one another, sentences recur, and each
//! document carries the same fields. The second copy has the same documents in shuffled runs and shards of another size.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;

use super::numbers::Numbers;

/// Words of the language.
const WORDS: usize = 40_000;
/// Words that like to follow a given word.
const FOLLOWERS: usize = 24;
/// Sentences that recur.
const STOCK: usize = 2_000;
/// Sites that the documents come from.
const SITES: usize = 5_000;
/// Bytes of a run of documents that stays together when the shards are shuffled.
const RUN: usize = 1 << 20;

/// Writes about `bytes` bytes of shards to `first`, and the same documents sharded anew to `second`.
pub fn write(first: &Path, second: &Path, bytes: u64, seed: u64) -> Result<()> {
    let language = Language::new(seed);
    let runs = (bytes / RUN as u64).max(2);
    let order: Vec<u64> = (0..runs).collect();
    shards(first, &language, &order, (runs / 12).max(1))?;
    let mut shuffled = order;
    let mut numbers = Numbers::new(seed ^ 0x5a5a);
    for at in (1..shuffled.len()).rev() {
        shuffled.swap(at, numbers.below(at as u64 + 1) as usize);
    }
    shards(second, &language, &shuffled, (runs / 17).max(1))
}

/// Writes about `bytes` bytes of lines to one file.
pub fn one_file(folder: &Path, bytes: u64, seed: u64) -> Result<()> {
    let order: Vec<u64> = (0..(bytes / RUN as u64).max(1)).collect();
    shards(folder, &Language::new(seed), &order, order.len() as u64)
}

/// Writes the runs in this order, so many to a shard.
fn shards(folder: &Path, language: &Language, order: &[u64], runs: u64) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for (shard, group) in order.chunks(runs as usize).enumerate() {
        let file = std::fs::File::create(folder.join(format!("part-{shard:05}.jsonl")))?;
        let mut out = BufWriter::new(file);
        for run in group {
            out.write_all(&language.run(*run)?)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// What the documents are made of.
struct Language {
    seed: u64,
    words: Vec<String>,
    /// Sums of Zipf's weights, for drawing a word by its rank.
    weights: Vec<u64>,
    stock: Vec<String>,
    sites: Vec<String>,
}

impl Language {
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let words: Vec<String> = (0..WORDS).map(|rank| word(&mut numbers, rank)).collect();
        let mut sum = 0;
        let weights = (0..WORDS as u64)
            .map(|rank| {
                sum += (1 << 40) / (rank * 10 + 27);
                sum
            })
            .collect();
        let mut language = Self { seed, words, weights, stock: Vec::new(), sites: Vec::new() };
        language.stock = (0..STOCK)
            .map(|_| {
                let mut text = String::new();
                language.sentence(&mut numbers, &mut text);
                text
            })
            .collect();
        language.sites = (0..SITES)
            .map(|_| {
                let (first, second) = (language.any(&mut numbers), language.any(&mut numbers));
                let end = ["com", "org", "net", "io", "de", "co.uk"][numbers.below(6) as usize];
                format!("https://www.{}{}.{end}", language.words[first], language.words[second])
            })
            .collect();
        language
    }

    /// One run of documents; the same for the same number.
    fn run(&self, run: u64) -> Result<Vec<u8>> {
        let mut numbers = Numbers::new(self.seed.wrapping_mul(31).wrapping_add(run));
        let mut out = Vec::with_capacity(RUN + 8192);
        let mut text = String::new();
        while out.len() < RUN {
            let sentences = 2 + numbers.below(8) * numbers.below(6);
            text.clear();
            for _ in 0..sentences {
                if numbers.below(100) < 6 {
                    let at = numbers.below(STOCK as u64).min(numbers.below(STOCK as u64)) as usize;
                    text.push_str(&self.stock[at]);
                } else {
                    self.sentence(&mut numbers, &mut text);
                }
                text.push_str(if numbers.below(6) == 0 { "\\n" } else { " " });
            }
            let site = &self.sites[numbers.below(SITES as u64).min(numbers.below(SITES as u64)) as usize];
            let (id, slug) = (numbers.next(), [self.any(&mut numbers), self.any(&mut numbers)]);
            let (day, second) = (numbers.below(365), numbers.below(86_400));
            writeln!(
                out,
                "{{\"id\":\"{id:016x}\",\"url\":\"{site}/{}-{}\",\"timestamp\":\"2024-{:02}-{:02}T{:02}:{:02}:{:02}Z\",\
                 \"language\":\"en\",\"quality\":0.{:04},\"tokens\":{},\"text\":\"{}\"}}",
                self.words[slug[0]],
                self.words[slug[1]],
                1 + day / 31,
                1 + day % 31,
                second / 3600,
                second / 60 % 60,
                second % 60,
                numbers.below(10_000),
                text.len() / 4,
                text.trim_end()
            )?;
        }
        Ok(out)
    }

    fn sentence(&self, numbers: &mut Numbers, text: &mut String) {
        let length = 5 + numbers.below(9) + numbers.below(9);
        let mut before = self.any(numbers);
        for at in 0..length {
            let word = &self.words[before];
            if at == 0 {
                text.extend(word.chars().take(1).map(|first| first.to_ascii_uppercase()));
                text.push_str(&word[1..]);
            } else {
                text.push_str(if numbers.below(12) == 0 { ", " } else { " " });
                text.push_str(word);
            }
            before = if numbers.below(100) < 60 { self.follower(numbers, before) } else { self.any(numbers) };
        }
        text.push('.');
    }

    /// Any word, the common ones more often.
    fn any(&self, numbers: &mut Numbers) -> usize {
        let total = *self.weights.last().expect("a language has words");
        let drawn = numbers.below(total);
        self.weights.partition_point(|sum| *sum <= drawn)
    }

    /// A word that likes to follow `word`: the favourites are the same each time, and the first of them come most often.
    fn follower(&self, numbers: &mut Numbers, word: usize) -> usize {
        let favourite = numbers.below(FOLLOWERS as u64) * numbers.below(FOLLOWERS as u64) / FOLLOWERS as u64;
        let mut fixed = Numbers::new(self.seed ^ ((word as u64) << 8 | favourite));
        self.any(&mut fixed)
    }
}

/// A word of syllables; common ones are short.
fn word(numbers: &mut Numbers, rank: usize) -> String {
    const STARTS: [&str; 20] =
        ["b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "th", "pr", "ch", ""];
    const MIDDLES: [&str; 10] = ["a", "e", "i", "o", "u", "ea", "ou", "io", "ee", "ai"];
    const ENDS: [&str; 12] = ["", "", "", "n", "r", "s", "t", "l", "d", "ng", "m", "ck"];
    let syllables = 1 + numbers.below(2) + u64::from(rank > 200) * numbers.below(2) + u64::from(rank > 5_000);
    let mut text = String::new();
    for _ in 0..syllables {
        for part in [&STARTS[..], &MIDDLES[..], &ENDS[..]] {
            text.push_str(part[numbers.below(part.len() as u64) as usize]);
        }
    }
    text
}
