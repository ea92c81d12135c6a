//! A small seeded generator, so that the same seed gives the same records on every platform
//! and in every version of the dependencies.

/// Splitmix64: one word of state, cheap to create, so each record can have its own generator.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// A generator for one thing among many, named by its keys.
    pub(crate) fn keyed(seed: u64, keys: &[u64]) -> Self {
        let mut state = mix(seed ^ GOLDEN);
        for key in keys {
            state = mix(state ^ mix(key.wrapping_add(GOLDEN)));
        }
        Self(state)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number in `0..limit`; 0 when the limit is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product is uniform enough for limits far below 2^64.
        ((u128::from(self.next_u64()) * u128::from(limit)) >> 64) as u64
    }

    /// True once in `n` draws.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < p * (1u64 << 53) as f64
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// The splitmix64 finaliser. It is a bijection, which is what makes identifiers unique.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A UUID that holds the whole identity, around the digits that the format prescribes.
pub(crate) fn uuid(id: u64) -> String {
    let noise = mix(id ^ 0x5555);
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:08x}{:04x}",
        id >> 32,
        id >> 16 & 0xffff,
        noise & 0xfff,
        0x8000 | (noise >> 12 & 0x3fff),
        noise >> 32,
        id & 0xffff,
    )
}
