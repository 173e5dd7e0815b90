//! An index over the pool of entries: open addressing, four bytes per place.
//!
//! A place holds the number of an entry in its lower bits and the upper bits of the entry's hash above them, so that
//! nearly every wrong entry is told without a look at it. Removal shifts back what follows: there are no tombstones.

const LEAST: usize = 8;

pub struct Index {
    cells: Vec<u32>, // 0: empty; no entry has the number 0
    mask: u32,
    count: usize,
}

impl Index {
    pub fn new() -> Index {
        Index { cells: vec![0; LEAST], mask: LEAST as u32 - 1, count: 0 }
    }

    /// The first entry of this hash that is the right one.
    #[inline(always)]
    pub fn find(&self, hash: u32, mut right: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut place = hash & self.mask;
        loop {
            let cell = self.cell(place);
            if cell == 0 {
                return None;
            }
            if (cell ^ hash) & !self.mask == 0 && right(cell & self.mask) {
                return Some(cell & self.mask);
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
        // At most four fifths full, and every number smaller than there are places.
        if (self.count + 1) * 5 > self.cells.len() * 4 || number as usize >= self.cells.len() {
            self.grow(number, hash_of);
        }
        self.count += 1;
        self.place(hash, number);
    }

    /// Remove an entry.
    pub fn remove(&mut self, hash: u32, number: u32, hash_of: impl Fn(u32) -> u32) {
        let mut hole = hash & self.mask;
        loop {
            match self.cell(hole) {
                0 => {
                    debug_assert!(false, "entry {number} is not in the index");
                    return;
                }
                cell if cell & self.mask == number => break,
                _ => hole = (hole + 1) & self.mask,
            }
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
                self.cells[hole as usize] = cell;
                hole = place;
            }
        }
        self.cells[hole as usize] = 0;
    }

    #[cfg(all(test, not(feature = "extension-module")))]
    pub fn len(&self) -> usize {
        self.count
    }

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
        self.cells[place as usize] = (hash & !self.mask) | number;
    }

    #[inline(always)]
    fn cell(&self, place: u32) -> u32 {
        debug_assert!((place as usize) < self.cells.len());
        unsafe { *self.cells.get_unchecked(place as usize) } // it is masked
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
