//! Hashes of the keys that left the small queue unwanted, in the order in which they left.

use crate::index::Index;

/// A ring of hashes, and an index over it. A hash that is taken out leaves the index and stays in the ring, where its
/// turn to be forgotten comes in vain.
pub struct Ghosts {
    ring: Vec<u32>, // a power of two
    first: u32,     // of the places in use, counted on for ever
    next: u32,
    count: u64, // of the index
    index: Index,
}

impl Default for Ghosts {
    fn default() -> Ghosts {
        Ghosts { ring: vec![0; 8], first: 0, next: 0, count: 0, index: Index::new() }
    }
}

impl Ghosts {
    /// Remember a hash, unless it is; forget the oldest if there are more than `most`.
    pub fn add(&mut self, hash: u32, most: u64) {
        if self.next.wrapping_sub(self.first) as usize == self.ring.len() {
            self.renew();
        }
        self.push(hash);
        while self.count > most && self.first != self.next {
            self.forget_first();
        }
    }

    /// Forget a hash. Whether it was known.
    pub fn take(&mut self, hash: u32) -> bool {
        let found = self.find(hash);
        if let Some(number) = found {
            self.remove(hash, number);
        }
        found.is_some()
    }

    /// The number that the index has for a place: never 0.
    fn number(&self, place: u32) -> u32 {
        (place & (self.ring.len() as u32 - 1)) + 1
    }

    fn find(&self, hash: u32) -> Option<u32> {
        self.index.find(hash, |number| self.ring[number as usize - 1] == hash)
    }

    fn push(&mut self, hash: u32) {
        let number = self.number(self.next);
        let ring = &self.ring;
        let at = |number: u32| ring[number as usize - 1];
        if self.index.insert_new(hash, number, at, |known| at(known) == hash) {
            self.ring[number as usize - 1] = hash;
            self.count += 1;
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Take a hash out of the index, if it is there by this number.
    fn remove(&mut self, hash: u32, number: u32) {
        let ring = &self.ring;
        if self.index.remove(hash, number, |number| ring[number as usize - 1]) {
            self.count -= 1;
        }
    }

    /// If it was taken, or came again later, it leaves the ring alone.
    fn forget_first(&mut self) {
        let number = self.number(self.first);
        self.remove(self.ring[number as usize - 1], number);
        self.first = self.first.wrapping_add(1);
    }

    /// The ring is full, perhaps of hashes that were taken.
    fn renew(&mut self) {
        let places = (0..self.next.wrapping_sub(self.first)).map(|step| self.number(self.first.wrapping_add(step)));
        let live: Vec<u32> = places
            .map(|number| (number, self.ring[number as usize - 1]))
            .filter(|&(number, hash)| self.find(hash) == Some(number))
            .map(|(_, hash)| hash)
            .collect();
        let size = (2 * live.len()).next_power_of_two().max(8);
        *self = Ghosts { ring: vec![0; size], first: 0, next: 0, count: 0, index: Index::new() };
        for hash in live {
            self.push(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_a_queue_from_which_one_can_be_taken() {
        let (mut ghosts, mut model) = (Ghosts::default(), Vec::<u32>::new());
        let mut random = 7_u32;
        for step in 0..200_000_u64 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hash = (random >> 16) % 60;
            if random & 0x300 == 0 {
                let known = model.iter().position(|&other| other == hash);
                assert_eq!(ghosts.take(hash), known.is_some());
                known.map(|at| model.remove(at));
            } else {
                let most = 20 + step / 1000 % 20;
                ghosts.add(hash, most);
                if !model.contains(&hash) {
                    model.push(hash);
                }
                model.drain(..model.len().saturating_sub(most as usize));
            }
            assert_eq!(ghosts.count, model.len() as u64);
            assert!(ghosts.ring.len() <= 128, "what was taken is forgotten some time");
        }
        for hash in 0..60 {
            assert_eq!(ghosts.take(hash), model.contains(&hash));
        }
    }
}
