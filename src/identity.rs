//! Identities: BLAKE3 hashes of many short messages at once.
//!
//! BLAKE3 is fast because it hashes several chunks side by side, but a record is a chunk or two, and
//! hashing one after another would cost more than everything else that is done to a record. So the
//! chunks of equally many messages are hashed side by side, with the crate's own kernels, which it
//! chooses at run time. They take whole blocks, which is why a message is filled up with zeros to
//! whole blocks; as messages are MessagePack, no two become one by that. The crate's interface to the
//! kernels is not promised to stay: it is pinned, and the test below compares every length with what
//! it promises.

use blake3::IncrementCounter;
use blake3::platform::Platform;

/// What a hash takes in at a time.
const BLOCK_BYTES: usize = 64;
/// What a chunk is. Longer messages are trees of chunks.
const CHUNK_BYTES: usize = 1024;
/// The crate hashes the chunks of longer messages side by side itself.
const PAIR_BYTES: usize = 2 * CHUNK_BYTES;
const BLOCKS_MAX: usize = CHUNK_BYTES / BLOCK_BYTES;
/// What a whole hash is; an identity is half of one.
const HASH_BYTES: usize = 32;
/// The widest kernel, on AVX-512, takes so many.
const LANES: usize = 16;
/// From BLAKE3's specification.
const IV: [u32; HASH_BYTES / 4] = [
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
        let mut hasher = blake3::Hasher::new();
        hasher.update(message).update(&[0; BLOCK_BYTES][..filling(message.len())]);
        Self::from_hash(hasher.finalize().as_bytes())
    }

    /// The id as 32 hexadecimal digits.
    #[must_use]
    pub fn hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        std::array::from_fn(|i| DIGITS[(self.0 >> (124 - 4 * i)) as usize & 0xf])
    }

    /// The first half of a hash.
    fn from_hash(hash: &Hash) -> Self {
        Self(hash.first_chunk().map_or(0, |half| u128::from_be_bytes(*half)))
    }
}

/// What the hash of a message or of a part of it comes to.
type Hash = [u8; HASH_BYTES];

/// How many zeros make whole blocks of a message of that length.
fn filling(length: usize) -> usize {
    length.max(1).next_multiple_of(BLOCK_BYTES) - length
}

/// Takes messages and gives their ids together.
#[derive(Default)]
pub struct Hasher {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
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
        let end = self.bytes.len();
        self.bytes.resize(end + filling(end - start), 0);
        self.ends.push(self.bytes.len());
        self.ends.len() - 1
    }

    /// The ids of all messages since the last call, in their order.
    pub fn finish(&mut self) -> Vec<Id> {
        let mut chunks = Chunks::default();
        for message in self.messages() {
            if message.len() <= CHUNK_BYTES {
                chunks.push(message, Role::Whole);
            } else if message.len() <= PAIR_BYTES {
                let (left, right) = message.split_at(CHUNK_BYTES);
                chunks.push(left, Role::Left);
                chunks.push(right, Role::Right);
            }
        }
        let mut hashes = chunks.hash().into_iter();
        let mut next = || hashes.next().unwrap_or_default();
        let id = |message: &[u8]| {
            if message.len() <= CHUNK_BYTES {
                Id::from_hash(&next())
            } else if message.len() <= PAIR_BYTES {
                Id::from_hash(&parent(next(), next()))
            } else {
                Id::of(message)
            }
        };
        let ids = self.messages().map(id).collect();
        self.bytes.clear();
        self.ends.clear();
        ids
    }

    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

/// What a chunk is to its message.
#[derive(Clone, Copy)]
enum Role {
    /// All of it.
    Whole,
    /// The first of two.
    Left,
    /// The second of two.
    Right,
}

impl Role {
    const ALL: [Self; 3] = [Self::Whole, Self::Left, Self::Right];

    /// What the hash of such a chunk's last block is told.
    fn flags_end(self) -> u8 {
        match self {
            Self::Whole => CHUNK_END | ROOT,
            Self::Left | Self::Right => CHUNK_END,
        }
    }

    /// Which chunk of its message it is.
    fn counter(self) -> u64 {
        match self {
            Self::Whole | Self::Left => 0,
            Self::Right => 1,
        }
    }
}

/// Chunks to be hashed side by side.
#[derive(Default)]
struct Chunks<'a> {
    chunks: Vec<&'a [u8]>,
    /// By their role and their number of blocks, less one.
    alike: [[Vec<usize>; BLOCKS_MAX]; Role::ALL.len()],
}

impl<'a> Chunks<'a> {
    /// Takes a chunk of whole blocks, of which there is at least one.
    fn push(&mut self, chunk: &'a [u8], role: Role) {
        self.alike[role as usize][chunk.len() / BLOCK_BYTES - 1].push(self.chunks.len());
        self.chunks.push(chunk);
    }

    /// What the chunks come to, in their order.
    fn hash(&self) -> Vec<Hash> {
        let mut hashes = vec![Hash::default(); self.chunks.len()];
        for role in Role::ALL {
            for (alike, hash) in self.alike[role as usize].iter().zip(HASHES) {
                for lanes in alike.chunks(LANES) {
                    let chunks = lanes.iter().map(|&i| self.chunks[i]).collect();
                    let found = side_by_side(hash, role, chunks);
                    lanes.iter().zip(found).for_each(|(&i, hash)| hashes[i] = hash);
                }
            }
        }
        hashes
    }
}

/// Hashes chunks of one number of blocks, lane by lane.
type HashMany = fn(Platform, Role, &[&[u8]], &mut [u8]);

/// By the number of blocks, less one.
const HASHES: [HashMany; BLOCKS_MAX] = [
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
    hash_many::<1024>,
];

fn hash_many<const N: usize>(platform: Platform, role: Role, chunks: &[&[u8]], out: &mut [u8]) {
    let chunks: Vec<&[u8; N]> = chunks.iter().filter_map(|bytes| bytes.first_chunk()).collect();
    let (counter, end) = (role.counter(), role.flags_end());
    platform.hash_many(&chunks, &IV, counter, IncrementCounter::No, 0, CHUNK_START, end, out);
}

/// What chunks of one length come to, of which there are as many as lanes at most.
fn side_by_side(hash: HashMany, role: Role, mut chunks: Vec<&[u8]>) -> [Hash; LANES] {
    let platform = Platform::detect();
    let width = platform.simd_degree();
    if chunks.len() % width >= WORTH_ALL_LANES {
        chunks.resize(chunks.len().next_multiple_of(width), chunks[0]);
    }
    let mut out = [0; HASH_BYTES * LANES];
    hash(platform, role, &chunks, &mut out);
    let hashes = out.as_chunks().0;
    std::array::from_fn(|lane| hashes[lane])
}

/// What a message of two chunks comes to.
fn parent(left: Hash, right: Hash) -> Hash {
    let mut block = [0; BLOCK_BYTES];
    block[..HASH_BYTES].copy_from_slice(&left);
    block[HASH_BYTES..].copy_from_slice(&right);
    let mut out = Hash::default();
    let flags = PARENT | ROOT;
    Platform::detect().hash_many(&[&block], &IV, 0, IncrementCounter::No, flags, 0, 0, &mut out);
    out
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
        for message in ["", "x"] {
            let filled = [message, &"\0".repeat(BLOCK_BYTES - message.len())].concat();
            let hash = blake3::hash(filled.as_bytes()).to_hex();
            assert_eq!(Id::of(message.as_bytes()).hex(), hash.as_bytes()[..32]);
        }
    }
}
