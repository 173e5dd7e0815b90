//! Hashes of the keys that left the small queue unwanted, in the order in which they left.

use crate::mixed::Map;
use std::collections::hash_map::Entry;
use std::collections::VecDeque;

/// A key that left is known by the number of the time when it did: who came back and left again is remembered by the
/// later one, and the earlier one says nothing when its turn comes to be forgotten.
#[derive(Default)]
pub struct Ghosts {
    order: VecDeque<(u32, u32)>,
    times: Map<u32>,
    time: u32,
}

impl Ghosts {
    /// Remember a hash; forget the oldest if there are more than `most`.
    pub fn add(&mut self, hash: u32, most: u64) {
        if let Entry::Vacant(place) = self.times.entry(hash) {
            self.time = self.time.wrapping_add(1);
            place.insert(self.time);
            self.order.push_back((hash, self.time));
        }
        while self.times.len() as u64 > most {
            let Some((hash, time)) = self.order.pop_front() else {
                break;
            };
            if let Entry::Occupied(place) = self.times.entry(hash) {
                if *place.get() == time {
                    place.remove();
                }
            }
        }
        if self.order.len() > 2 * self.times.len() + 64 {
            self.order.retain(|(hash, time)| self.times.get(hash) == Some(time));
        }
    }

    /// Forget a hash. Whether it was known.
    pub fn take(&mut self, hash: u32) -> bool {
        self.times.remove(&hash).is_some()
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
            assert_eq!(ghosts.times.len(), model.len());
            assert!(ghosts.order.len() <= 2 * model.len() + 65, "what was taken is forgotten some time");
        }
        for hash in 0..60 {
            assert_eq!(ghosts.take(hash), model.contains(&hash));
        }
    }
}
