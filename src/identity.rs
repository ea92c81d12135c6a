//! Identities: BLAKE3 hashes of many short messages at once.
//!
//! BLAKE3 is fast because it hashes several chunks side by side, but a record is a chunk or two, and
//! hashing one after another would cost more than everything else that is done to a record. So the
//! heads of chunks of alike length are hashed side by side, with the crate's own kernels, which it
//! chooses at run time. Its interface to them is not promised to stay: the crate is pinned, and the
//! test below compares every length with what it promises.

use std::ops::Range;

use blake3::IncrementCounter;
use blake3::platform::Platform;

/// What a hash takes in at a time.
const BLOCK_BYTES: usize = 64;
/// What a chunk is. Longer messages are trees of chunks.
const CHUNK_BYTES: usize = 1024;
/// The crate hashes the chunks of longer messages side by side itself.
const PAIR_BYTES: usize = 2 * CHUNK_BYTES;
const BLOCKS_MAX: usize = CHUNK_BYTES / BLOCK_BYTES;
/// The widest kernel, on AVX-512, takes so many.
const LANES: usize = 16;
/// From BLAKE3's specification.
const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
/// From so many messages on, a kernel takes less time for all its lanes than for each message alone.
const WORTH_ALL_LANES: usize = 3;

/// A record's identity: 128 bits of a BLAKE3 hash.
///
/// It is cryptographic because the sender of a mail chooses much of its record, and must not be able
/// to make two records look like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u128);

impl Id {
    /// The id of one message.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        let hash = blake3::hash(message);
        let (words, _) = hash.as_bytes().as_chunks::<4>();
        Self::from_words(std::array::from_fn(|i| u32::from_le_bytes(words[i])))
    }

    /// The id as 32 hexadecimal digits.
    #[must_use]
    pub fn hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        std::array::from_fn(|i| DIGITS[(self.0 >> (124 - 4 * i)) as usize & 0xf])
    }

    /// The first half of a hash; its bytes are the words' from the lowest on.
    fn from_words(words: [u32; 8]) -> Self {
        Self(words[..4].iter().fold(0, |id, word| id << 32 | u128::from(word.swap_bytes())))
    }
}

/// Takes messages and gives their ids together.
#[derive(Default)]
pub struct Hasher {
    bytes: Vec<u8>,
    /// Where each message lies.
    messages: Vec<Range<usize>>,
}

impl Hasher {
    /// Makes room for messages of so many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Takes the message that `write` appends; returns its index among the ids.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.messages.push(start..self.bytes.len());
        self.messages.len() - 1
    }

    /// The ids of all messages since the last call, in their order.
    pub fn finish(&mut self) -> Vec<Id> {
        let mut chunks = Chunks::default();
        for message in self.messages.iter().map(|range| &self.bytes[range.clone()]) {
            if message.len() <= CHUNK_BYTES {
                chunks.push(message, 0, ROOT);
            } else if message.len() <= PAIR_BYTES {
                let (left, right) = message.split_at(CHUNK_BYTES);
                chunks.push(left, 0, 0);
                chunks.push(right, 1, 0);
            }
        }
        let mut values = chunks.hash().into_iter();
        let mut next = || values.next().unwrap_or(IV);
        let id = |message: &Range<usize>| {
            if message.len() <= CHUNK_BYTES {
                Id::from_words(next())
            } else if message.len() <= PAIR_BYTES {
                Id::from_words(parent(next(), next()))
            } else {
                Id::of(&self.bytes[message.clone()])
            }
        };
        let ids = self.messages.iter().map(id).collect();
        self.bytes.clear();
        self.messages.clear();
        ids
    }
}

/// Chunks to be hashed side by side.
#[derive(Default)]
struct Chunks<'a> {
    chunks: Vec<Chunk<'a>>,
    /// By their place in the message, and by the number of blocks before their last.
    alike: [[Vec<usize>; BLOCKS_MAX]; 2],
}

struct Chunk<'a> {
    bytes: &'a [u8],
    /// What the last block is told beside the usual.
    flags: u8,
}

impl<'a> Chunks<'a> {
    /// Takes the first (0) or second (1) chunk of a message.
    fn push(&mut self, bytes: &'a [u8], place: usize, flags: u8) {
        let blocks = bytes.len().saturating_sub(1) / BLOCK_BYTES;
        self.alike[place][blocks].push(self.chunks.len());
        self.chunks.push(Chunk { bytes, flags });
    }

    /// What the chunks come to, in their order.
    fn hash(&self) -> Vec<[u32; 8]> {
        let mut values = vec![IV; self.chunks.len()];
        for (place, alike) in self.alike.iter().enumerate() {
            for (blocks, indexes) in alike.iter().enumerate() {
                for lanes in indexes.chunks(LANES) {
                    self.hash_alike(place as u64, blocks, lanes, &mut values);
                }
            }
        }
        values
    }

    /// Hashes the chunks of these indexes, which have so many blocks before their last.
    fn hash_alike(&self, place: u64, blocks: usize, lanes: &[usize], values: &mut [[u32; 8]]) {
        let platform = Platform::detect();
        let chunks = lanes.iter().map(|&i| &self.chunks[i]);
        let heads = hash_heads(platform, place, blocks, chunks.clone().map(|chunk| chunk.bytes));
        let start = if blocks == 0 { CHUNK_START } else { 0 };
        for ((&i, chunk), mut value) in lanes.iter().zip(chunks).zip(heads) {
            let last = &chunk.bytes[blocks * BLOCK_BYTES..];
            let mut block = [0; BLOCK_BYTES];
            block[..last.len()].copy_from_slice(last);
            let flags = start | CHUNK_END | chunk.flags;
            platform.compress_in_place(&mut value, &block, last.len() as u8, place, flags);
            values[i] = value;
        }
    }
}

/// What a message of two chunks comes to.
fn parent(left: [u32; 8], right: [u32; 8]) -> [u32; 8] {
    let mut block = [0; BLOCK_BYTES];
    let words = left.iter().chain(&right);
    for (bytes, word) in block.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    let mut value = IV;
    let flags = PARENT | ROOT;
    Platform::detect().compress_in_place(&mut value, &block, BLOCK_BYTES as u8, 0, flags);
    value
}

/// Hashes messages of one number of blocks, lane by lane.
type HashMany = fn(Platform, u64, &[&[u8]], &mut [u8]);

/// The chaining values of chunks after their first blocks.
fn hash_heads<'a>(
    platform: Platform,
    place: u64,
    blocks: usize,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> [[u32; 8]; LANES] {
    /// By the number of blocks.
    const HASHES: [HashMany; BLOCKS_MAX - 1] = [
        hash_many::<64>,
        hash_many::<128>,
        hash_many::<192>,
        hash_many::<256>,
        hash_many::<320>,
        hash_many::<384>,
        hash_many::<448>,
        hash_many::<512>,
        hash_many::<576>,
        hash_many::<640>,
        hash_many::<704>,
        hash_many::<768>,
        hash_many::<832>,
        hash_many::<896>,
        hash_many::<960>,
    ];
    let Some(hash) = blocks.checked_sub(1).map(|i| HASHES[i]) else { return [IV; LANES] };
    let mut chunks: Vec<&[u8]> = chunks.collect();
    let width = platform.simd_degree();
    if chunks.len() % width >= WORTH_ALL_LANES {
        chunks.resize(chunks.len().next_multiple_of(width), chunks[0]);
    }
    let mut out = [0; 32 * LANES];
    hash(platform, place, &chunks, &mut out);
    let words = out.as_chunks::<4>().0;
    std::array::from_fn(|lane| std::array::from_fn(|i| u32::from_le_bytes(words[8 * lane + i])))
}

fn hash_many<const N: usize>(platform: Platform, place: u64, chunks: &[&[u8]], out: &mut [u8]) {
    let heads: Vec<&[u8; N]> = chunks.iter().filter_map(|bytes| bytes.first_chunk()).collect();
    platform.hash_many(&heads, &IV, place, IncrementCounter::No, 0, CHUNK_START, 0, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_or_alone_a_message_has_the_same_id() {
        let mut hasher = Hasher::default();
        for round in 0..2 {
            // Some lengths once, some so often that they fill the lanes and begin anew.
            let lengths = (0..=PAIR_BYTES + 70).flat_map(|length| vec![length; 1 + length % 19]);
            let messages: Vec<Vec<u8>> = lengths
                .enumerate()
                .map(|(i, length)| (0..length).map(|at| (i * 31 + at * 7 + round) as u8).collect())
                .collect();
            for (i, message) in messages.iter().enumerate() {
                assert_eq!(hasher.push(|out| out.extend_from_slice(message)), i);
            }
            let expected: Vec<Id> = messages.iter().map(|message| Id::of(message)).collect();
            assert!(hasher.finish() == expected);
        }
        let empty = blake3::hash(b"").to_hex();
        assert_eq!(Id::of(b"").hex(), empty.as_bytes()[..32]);
    }
}
