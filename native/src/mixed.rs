//! A map from numbers whose choice no user has, without the costs of a keyed hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub type Map<T> = HashMap<u32, T, BuildHasherDefault<Mixed>>;

#[derive(Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
