//! An index over the pool of entries: open addressing, four bytes per place.
//!
//! A place holds the number of an entry in its lower bits and the upper bits of the entry's hash above them, so that
//! nearly every wrong entry is told without a look at it. Removal shifts back what follows: there are no tombstones.

const LEAST: usize = 8;
const LARGE: usize = 1 << 14;

pub struct Index {
    cells: Vec<u32>, // 0: empty; no entry has the number 0
    mask: u32,
    count: usize,
}

/// What `first` found.
pub enum First {
    /// So there is no entry of this hash.
    Nothing,
    /// An entry, which may be the right one.
    Likely(u32),
    /// An entry of another hash.
    Other,
}

impl Index {
    pub fn new() -> Index {
        Index { cells: vec![0; LEAST], mask: LEAST as u32 - 1, count: 0 }
    }

    /// What lies where an entry of this hash does if nothing is in its way.
    #[inline(always)]
    pub fn first(&self, hash: u32) -> First {
        match self.cell(hash & self.mask) {
            0 => First::Nothing,
            cell if (cell ^ hash) & !self.mask == 0 => First::Likely(cell & self.mask),
            _ => First::Other,
        }
    }

    /// The first entry of this hash that is the right one.
    #[inline(always)]
    pub fn find(&self, hash: u32, right: impl FnMut(u32) -> bool) -> Option<u32> {
        match self.walk(hash, right) {
            (_, 0) => None,
            (_, number) => Some(number),
        }
    }

    /// The place and the number of the first entry of this hash that is the right one; of the first empty place, and 0.
    #[inline(always)]
    fn walk(&self, hash: u32, mut right: impl FnMut(u32) -> bool) -> (u32, u32) {
        let mut place = hash & self.mask;
        loop {
            let cell = self.cell(place);
            let number = cell & self.mask;
            if cell == 0 || ((cell ^ hash) & !self.mask == 0 && right(number)) {
                return (place, number);
            }
            place = (place + 1) & self.mask;
        }
    }

    /// Every entry of this hash that is a right one.
    pub fn all(&self, hash: u32, right: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut found = Vec::new();
        self.find(hash, |number| {
            if right(number) {
                found.push(number);
            }
            false
        });
        found
    }

    /// Add an entry. ``hash_of`` tells the hashes of those that are in the index.
    pub fn insert(&mut self, hash: u32, number: u32, hash_of: impl Fn(u32) -> u32) {
        self.make_room(number, hash_of);
        self.count += 1;
        self.place(hash, number);
    }

    /// Add an entry, unless there is a right one of this hash. Whether it was added.
    pub fn insert_new(
        &mut self,
        hash: u32,
        number: u32,
        hash_of: impl Fn(u32) -> u32,
        right: impl FnMut(u32) -> bool,
    ) -> bool {
        self.make_room(number, hash_of);
        let (place, found) = self.walk(hash, right);
        if found == 0 {
            self.count += 1;
            self.set(place, (hash & !self.mask) | number);
        }
        found == 0
    }

    /// Remove an entry. Whether it was there.
    pub fn remove(&mut self, hash: u32, number: u32, hash_of: impl Fn(u32) -> u32) -> bool {
        let (mut hole, found) = self.walk(hash, |other| other == number);
        if found == 0 {
            return false;
        }
        self.count -= 1;
        let mut place = hole;
        loop {
            place = (place + 1) & self.mask;
            let cell = self.cell(place);
            if cell == 0 {
                break;
            }
            let home = hash_of(cell & self.mask) & self.mask;
            if place.wrapping_sub(home) & self.mask >= place.wrapping_sub(hole) & self.mask {
                self.set(hole, cell);
                hole = place;
            }
        }
        self.set(hole, 0);
        true
    }

    #[cfg(all(test, not(feature = "extension-module")))]
    pub fn len(&self) -> usize {
        self.count
    }

    /// For one more: at most two fifths full, or four where it is large, and every number smaller than there are places.
    ///
    /// What a walk costs is its end, which nothing foresees, unless it is nearly always at once. In a large index it is
    /// the memory.
    #[inline(always)]
    fn make_room(&mut self, number: u32, hash_of: impl Fn(u32) -> u32) {
        let size = self.cells.len();
        let most = if size < LARGE { size * 2 } else { size * 4 };
        if (self.count + 1) * 5 > most || number as usize >= size {
            self.grow(number, hash_of);
        }
    }

    #[cold]
    fn grow(&mut self, number: u32, hash_of: impl Fn(u32) -> u32) {
        let mut size = self.cells.len() * 2;
        while number as usize >= size {
            size *= 2;
        }
        let mask = self.mask;
        let old = std::mem::replace(&mut self.cells, vec![0; size]);
        self.mask = size as u32 - 1;
        for cell in old {
            if cell != 0 {
                self.place(hash_of(cell & mask), cell & mask);
            }
        }
    }

    fn place(&mut self, hash: u32, number: u32) {
        let mut place = hash & self.mask;
        while self.cell(place) != 0 {
            place = (place + 1) & self.mask;
        }
        self.set(place, (hash & !self.mask) | number);
    }

    #[inline(always)]
    fn cell(&self, place: u32) -> u32 {
        debug_assert!((place as usize) < self.cells.len());
        unsafe { *self.cells.get_unchecked(place as usize) } // it is masked
    }

    #[inline(always)]
    fn set(&mut self, place: u32, cell: u32) {
        debug_assert!((place as usize) < self.cells.len());
        unsafe { *self.cells.get_unchecked_mut(place as usize) = cell } // as above
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_does_what_a_dictionary_does_whatever_the_hashes() {
        for spread in [1_u32, 7, 0x9e37_79b9, 0] {
            let mut index = Index::new();
            let mut model: HashMap<u32, u32> = HashMap::new(); // number -> hash
            let mut random = 1_u32;
            for _ in 0..20_000 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let number = 2 + (random >> 16) % 500;
                let hash = number.wrapping_mul(spread);
                if model.remove(&number).is_some() {
                    index.remove(hash, number, |number| number.wrapping_mul(spread));
                } else {
                    index.insert(hash, number, |number| number.wrapping_mul(spread));
                    model.insert(number, hash);
                }
                assert_eq!(index.count, model.len());
            }
            for number in 2..502_u32 {
                let found = index.find(number.wrapping_mul(spread), |found| found == number);
                assert_eq!(found.is_some(), model.contains_key(&number));
            }
        }
    }
}
