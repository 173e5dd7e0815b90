//! The table itself: entries in a pool, two indexes over it, the queues of the eviction policy. Runs no Python code.
//!
//! Nothing here lets go of an object: what an entry held is put on `Dead`, for the caller to release when the table is
//! whole again, since a destructor may come back into it.
//!
//! Entries 0 and 1 of the pool are the heads of the two queues, which are rings linked through the entries. The policy
//! is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023), or exact
//! LRU, which only uses the main queue.

use crate::events::{Event, Events};
use crate::ghosts::Ghosts;
use crate::index::{First, Index};
use crate::key;
use crate::mixed::Map;
use crate::py::{Owned, Ptr};
use crate::values::{Mode, Renew};

pub const NEVER: i64 = i64::MAX;
pub const SMALL: u32 = 0;
pub const MAIN: u32 = 1;
const FIRST: u32 = 2; // the first number that an entry may have
const HAND: usize = 4; // entries that the expiry hand looks at per insertion
const MOST: u32 = 1 << 30; // entries

// What an entry is like
pub const SINGLE: u16 = 1; // the key is the only argument itself, not a tuple
pub const DETACHED: u16 = 1 << 1; // lives apart from the proofs that changes are heard of
pub const NEGATIVE: u16 = 1 << 2;
pub const OBJECTS: u16 = 1 << 3; // its key is compared by Python code
const IN_MAIN: u16 = 1 << 4;
const LIVE: u16 = 1 << 5;
// `fresh_until` is when to refresh it, and not its end
pub const EARLY: u16 = 1 << 7;
const OPAQUE: u16 = 1 << 6;
// ... of which a hit must know:
pub const COPY: u16 = 1 << 8;
pub const TAGGED: u16 = 1 << 9;
pub const MORE: u16 = 1 << 10; // something of it lies in `extras`
pub const ASIDE: u16 = 1 << 11; // memos leave it to the table
pub const RARE: u16 = COPY | TAGGED | ASIDE;

/// 64 bytes.
#[repr(C)]
pub struct Entry {
    pub value: Ptr,
    pub key: Ptr,
    pub fresh_until: i64,
    /// Its ticket, and in the lower 16 bits how many ms its load took.
    born: u64,
    pub khash: u64,
    hash: u32,
    slot: u32,
    prev: u32,
    next: u32,
    weight: u32,
    pub flags: u16,
    /// Hits that the policy has not taken into account, at most 3; below 0 it was passed over for its small weight.
    pub counter: i8,
    pub renew: Renew,
}

impl Entry {
    fn blank(number: u32) -> Entry {
        Entry {
            value: std::ptr::null_mut(),
            key: std::ptr::null_mut(),
            fresh_until: 0,
            born: 0,
            khash: 0,
            hash: 0,
            slot: 0,
            prev: number,
            next: number,
            weight: 0,
            flags: 0,
            counter: 0,
            renew: Renew::Itself,
        }
    }

    pub fn ticket(&self) -> u64 {
        self.born >> 16
    }

    pub fn mode(&self) -> Mode {
        match self.flags & (COPY | OPAQUE) {
            0 => Mode::Share,
            COPY => Mode::Copy,
            _ => Mode::Opaque,
        }
    }
}

/// The items of a tuple where they lie.
#[inline(always)]
pub unsafe fn tuple_items<'a>(tuple: Ptr) -> &'a [Ptr] {
    let object = tuple.cast::<crate::py::PyTupleObject>();
    std::slice::from_raw_parts((*object).ob_item.as_ptr(), (*object).ob_base.ob_size as usize)
}

/// What few entries have.
pub struct Extra {
    pub keep_until: i64,
    pub load_ms: u64,
    weight: u64,
    tags: Box<[Event]>,
    names: Option<Owned>, // a tuple
}

/// The entries of one function and what happened to them.
#[derive(Default)]
pub struct Slot {
    pub number: u64,
    pub hits: u64,
    pub misses: u64,
    pub puts: u64,
    pub refused: u64,
    pub entries: u64,
    pub weight: u64,
    /// Of the entries, how many have keys that are compared by Python code.
    pub objects: u64,
    pub evictions: [u64; 3],
    /// Runs of the function that `load` made and nobody has taken into account yet, and how long the last of them took.
    pub loads: u64,
    pub seconds: Vec<f32>,
}

impl Slot {
    /// As many durations as anybody will look at.
    pub fn loaded(&mut self, ns: i64) {
        self.loads += 1;
        if self.seconds.len() < 4096 {
            self.seconds.push(ns as f32 / 1e9);
        }
    }

    pub fn add(&mut self, other: &Slot) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.puts += other.puts;
        self.refused += other.refused;
        self.entries += other.entries;
        self.weight += other.weight;
        for (sum, count) in self.evictions.iter_mut().zip(other.evictions) {
            *sum += count;
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Reason {
    Capacity = 0,
    Expired = 1,
    Invalidated = 2,
    Replaced,
}

/// What entries held that are gone. Dropped by whoever called, when the table may be used again.
#[derive(Default)]
pub struct Dead {
    few: [Option<Owned>; 4], // what one insertion usually drives out, without an allocation
    count: usize,
    more: Vec<Owned>,
}

/// An entry to be.
pub struct New {
    pub slot: u32,
    pub hash: u32,
    pub key: Owned,
    pub value: Owned,
    pub fresh_until: i64,
    pub keep_until: i64,
    pub ticket: u64,
    pub khash: u64,
    pub weight: u64,
    pub load_ms: u64,
    pub flags: u16,
    pub mode: Mode,
    pub renew: Renew,
    pub tags: Box<[Event]>,
    pub names: Option<Owned>,
}

#[derive(Default)]
struct Queue {
    entries: u64,
    weight: u64,
}

pub struct Core {
    pub entries: Vec<Entry>,
    #[allow(clippy::vec_box)] // memos keep pointers to them
    pub slots: Vec<Box<Slot>>,
    /// Changes whenever an entry comes or goes.
    pub generation: u64,
    pub max_bytes: u64,
    max_entries: u64,
    pub lru: bool,
    region: Event,
    keys: Index,
    khashes: Index, // of the entries that are kept `apart`
    extras: Map<Box<Extra>>,
    queues: [Queue; 2],
    ghosts: Ghosts,
    hand: u32,
    free: u32, // the first of those numbers that are not in use; 0: none
}

impl Core {
    pub fn new(max_entries: u64, max_bytes: u64, lru: bool, region: Event) -> Core {
        Core {
            entries: vec![Entry::blank(SMALL), Entry::blank(MAIN)],
            slots: vec![Box::default()],
            generation: 0,
            max_bytes,
            max_entries: max_entries.min(u64::from(MOST)),
            lru,
            region,
            keys: Index::new(),
            khashes: Index::new(),
            extras: Map::default(),
            queues: Default::default(),
            ghosts: Ghosts::default(),
            hand: SMALL,
            free: 0,
        }
    }

    pub fn len(&self) -> u64 {
        self.queues[0].entries + self.queues[1].entries
    }

    pub fn weight(&self) -> u64 {
        self.queues[0].weight + self.queues[1].weight
    }

    #[inline(always)]
    pub fn at(&self, number: u32) -> &Entry {
        debug_assert!((number as usize) < self.entries.len());
        // Numbers come from the index and the rings alone.
        unsafe { self.entries.get_unchecked(number as usize) }
    }

    #[inline(always)]
    pub fn at_mut(&mut self, number: u32) -> &mut Entry {
        debug_assert!((number as usize) < self.entries.len());
        unsafe { self.entries.get_unchecked_mut(number as usize) }
    }

    // ------------------------------------------------------------------------------------------------------- looking

    /// The entry of arguments that are all plain.
    #[inline(always)]
    pub unsafe fn find(&mut self, slot: u32, hash: u32, args: &[Ptr]) -> Option<*mut Entry> {
        let entries = self.entries.as_mut_ptr();
        let number = self.keys.find(hash, |number| {
            let entry = &*entries.add(number as usize);
            entry.hash == hash && entry.slot == slot && same(entry, args)
        });
        number.map(|number| entries.add(number as usize))
    }

    /// As `find`, of one argument; null if there is none.
    #[inline(always)]
    pub unsafe fn find_one(&mut self, slot: u32, hash: u32, arg: Ptr) -> *mut Entry {
        match self.keys.first(hash) {
            First::Nothing => return std::ptr::null_mut(),
            First::Likely(number) => {
                let entry = self.entries.as_mut_ptr().add(number as usize);
                if is_one(&*entry, slot, arg) {
                    return entry; // nearly always; so all that a walk has to remember is out of line
                }
            }
            First::Other => {}
        }
        self.find_one_further(slot, hash, arg)
    }

    #[inline(never)]
    unsafe fn find_one_further(&mut self, slot: u32, hash: u32, arg: Ptr) -> *mut Entry {
        let entries = self.entries.as_mut_ptr();
        let number = self.keys.find(hash, |number| is_one(&*entries.add(number as usize), slot, arg));
        number.map_or(std::ptr::null_mut(), |number| entries.add(number as usize))
    }

    /// The number of an entry that was found.
    pub unsafe fn number_of(&self, entry: *const Entry) -> u32 {
        entry.offset_from(self.entries.as_ptr()) as u32
    }

    /// The first of those entries that may have these arguments, if Python code has to compare them.
    pub fn candidate(&self, slot: u32, hash: u32, wanted: impl Fn(&Entry) -> bool) -> Option<u32> {
        self.keys.find(hash, |number| {
            let entry = self.at(number);
            entry.hash == hash && entry.slot == slot && wanted(entry)
        })
    }

    /// Whether one of its tags was invalidated after its ticket.
    pub fn outdated(&self, number: u32) -> bool {
        let entry = self.at(number);
        entry.flags & TAGGED != 0
            && self.extra(number).is_some_and(|extra| extra.tags.iter().any(|tag| tag.get() > entry.ticket()))
    }

    pub fn extra(&self, number: u32) -> Option<&Extra> {
        if self.at(number).flags & MORE == 0 {
            return None;
        }
        self.extras.get(&number).map(|extra| &**extra)
    }

    pub fn keep_until(&self, number: u32) -> i64 {
        self.extra(number).map_or(self.at(number).fresh_until, |extra| extra.keep_until)
    }

    pub fn load_ms(&self, number: u32) -> u64 {
        self.extra(number).map_or(self.at(number).born & 0xFFFF, |extra| extra.load_ms)
    }

    /// The names of its tags, a tuple.
    pub fn names(&self, number: u32) -> Option<Owned> {
        self.extra(number).and_then(|extra| extra.names.clone())
    }

    pub fn slot_of(&self, number: u32) -> u32 {
        self.at(number).slot
    }

    /// Whether something is kept of these arguments, all plain, that memos do not answer: stale, early or aside.
    ///
    /// All such entries have an extra, and usually no entry has one, so that this costs nothing.
    #[inline(always)]
    pub unsafe fn keeps(&mut self, slot: u32, hash: u32, args: &[Ptr], now: i64) -> bool {
        !self.extras.is_empty() && self.keeps_extra(slot, hash, args, now)
    }

    #[cold]
    unsafe fn keeps_extra(&mut self, slot: u32, hash: u32, args: &[Ptr], now: i64) -> bool {
        let Some(entry) = self.find(slot, hash, args) else { return false };
        let number = self.number_of(entry);
        self.extra(number).is_some_and(|extra| now < extra.keep_until) && !self.outdated(number)
    }

    fn weight_of(&self, number: u32) -> u64 {
        self.extra(number).map_or(u64::from(self.at(number).weight), |extra| extra.weight)
    }

    /// Count a hit, for the slot and for the policy.
    #[inline(always)]
    pub fn touch(&mut self, number: u32) {
        let entry = self.at_mut(number);
        entry.counter = (entry.counter + 1).min(3);
        if self.lru {
            self.move_to(number, MAIN);
        }
    }

    /// The youngest, with LRU.
    #[cold]
    pub unsafe fn used(&mut self, entry: *const Entry) {
        self.move_to(self.number_of(entry), MAIN);
    }

    // ----------------------------------------------------------------------------------------------------- inserting

    /// Put a new entry in the place of `old`, the entry of the same arguments if there is one. False: refused.
    pub fn put(&mut self, events: &Events, new: New, old: Option<u32>, now: i64, dead: &mut Dead) -> bool {
        let slot = self.slots[new.slot as usize].number;
        if !events.allow(new.ticket, new.khash, &new.tags, slot, &self.region) {
            self.slots[new.slot as usize].refused += 1;
            dead.take(new);
            return false;
        }
        let mut queue = if self.lru { MAIN } else { SMALL };
        if let Some(old) = old {
            queue = self.queue_of(old); // the key keeps its queue, with a fresh counter
            self.remove(old, Reason::Replaced, dead);
        }
        if new.weight > self.max_bytes {
            self.slots[new.slot as usize].refused += 1;
            dead.take(new);
            return false;
        }
        self.expire(HAND, now, dead);
        self.make_room(new.weight, dead);
        if self.ghosts.take(new.hash) {
            queue = MAIN;
        }
        self.slots[new.slot as usize].puts += 1;
        self.link(new, queue);
        true
    }

    fn link(&mut self, new: New, queue: u32) {
        let number = self.allocate();
        let slot = &mut self.slots[new.slot as usize];
        slot.entries += 1;
        slot.weight += new.weight;
        slot.objects += u64::from(new.flags & OBJECTS != 0);
        let mut flags = new.flags
            | LIVE
            | match new.mode {
                Mode::Share => 0,
                Mode::Copy => COPY,
                Mode::Opaque => OPAQUE,
            };
        if !new.tags.is_empty() {
            flags |= TAGGED;
        }
        let few = new.keep_until == new.fresh_until && new.load_ms < 1 << 16 && new.weight <= u64::from(u32::MAX);
        if new.names.is_some() || flags & ASIDE != 0 || !few {
            flags |= MORE;
            let extra = Extra {
                keep_until: new.keep_until,
                load_ms: new.load_ms,
                weight: new.weight,
                tags: new.tags,
                names: new.names,
            };
            self.extras.insert(number, Box::new(extra));
        }
        *self.at_mut(number) = Entry {
            value: new.value.give(),
            key: new.key.give(),
            fresh_until: new.fresh_until,
            born: new.ticket << 16 | (new.load_ms & 0xFFFF),
            khash: new.khash,
            hash: new.hash,
            slot: new.slot,
            prev: 0,
            next: 0,
            weight: new.weight.min(u64::from(u32::MAX)) as u32,
            flags,
            counter: 0,
            renew: new.renew,
        };
        self.append(number, queue);
        let entries = &self.entries;
        self.keys.insert(new.hash, number, |number| entries[number as usize].hash);
        if apart(new.hash, new.khash) {
            self.khashes.insert(spread(new.khash), number, |number| spread(entries[number as usize].khash));
        }
        self.generation += 1;
    }

    fn allocate(&mut self) -> u32 {
        if self.free != 0 {
            let number = self.free;
            self.free = self.at(number).next;
            return number;
        }
        self.entries.push(Entry::blank(0));
        self.entries.len() as u32 - 1
    }

    // ----------------------------------------------------------------------------------------------------- freshness

    /// Take an early entry for fresh until then, since somebody refreshes it. False: somebody did, or nobody should.
    pub fn refreshed(&mut self, number: u32, fresh_until: i64, now: i64) -> bool {
        let keep_until = self.keep_until(number);
        if self.at(number).flags & EARLY == 0 || now >= keep_until || self.outdated(number) {
            return false;
        }
        self.set_fresh(number, fresh_until.min(keep_until));
        true
    }

    /// Let every entry of this hash be stale. How many there were.
    pub fn mark_stale(&mut self, khash: u64, now: i64) -> u64 {
        let same = self.of_khash(khash);
        for &number in &same {
            self.set_fresh(number, self.at(number).fresh_until.min(now));
        }
        same.len() as u64
    }

    /// Move the end of freshness, which is not early any more. What the entry is kept for stays as it was.
    fn set_fresh(&mut self, number: u32, fresh_until: i64) {
        if self.keep_until(number) != fresh_until {
            self.add_extra(number);
        }
        let entry = self.at_mut(number);
        entry.fresh_until = fresh_until;
        entry.flags &= !EARLY;
    }

    /// From now on `keep_until` is told apart from `fresh_until`.
    fn add_extra(&mut self, number: u32) {
        if self.at(number).flags & MORE != 0 {
            return;
        }
        let extra = Extra {
            keep_until: self.keep_until(number),
            load_ms: self.load_ms(number),
            weight: self.weight_of(number),
            tags: Box::default(),
            names: None,
        };
        self.at_mut(number).flags |= MORE;
        self.extras.insert(number, Box::new(extra));
    }

    // ------------------------------------------------------------------------------------------------------ evicting

    fn make_room(&mut self, weight: u64, dead: &mut Dead) {
        loop {
            let crowded = self.len() >= self.max_entries;
            if !crowded && self.weight() + weight <= self.max_bytes {
                return;
            }
            let Some(victim) = self.victim(!crowded) else {
                return;
            };
            self.remove(victim, Reason::Capacity, dead);
        }
    }

    /// The entry that S3-FIFO gives up: what was wanted at most once leaves before it can crowd the main queue.
    ///
    /// Where bytes are what is short, `by_weight`, a light entry is worth some hits and a heavy one owes some. With LRU
    /// only the main queue is used and its order is that of use.
    fn victim(&mut self, by_weight: bool) -> Option<u32> {
        while self.len() > 0 {
            let small = &self.queues[SMALL as usize];
            let full = small.entries * 10 >= self.max_entries || small.weight.saturating_mul(10) >= self.max_bytes;
            let number;
            if small.entries > 0 && (full || self.queues[MAIN as usize].entries == 0) {
                number = self.at(SMALL).next;
                let light = if by_weight { self.lightness(number) } else { 0 };
                if self.at(number).counter < (2 - light).min(3) {
                    self.remember(number);
                    return Some(number);
                }
                self.at_mut(number).counter = 0;
            } else {
                number = self.at(MAIN).next;
                let light = if by_weight && !self.lru { self.lightness(number) } else { 0 };
                if self.at(number).counter + light < 1 || self.lru {
                    return Some(number);
                }
                self.at_mut(number).counter -= 1;
            }
            self.move_to(number, MAIN);
        }
        None
    }

    /// By how many powers of two an entry is lighter than the mean, at most two either way.
    fn lightness(&self, number: u32) -> i8 {
        let (part, all) = (u128::from(self.weight_of(number)) * u128::from(self.len()), u128::from(self.weight()));
        if part * 4 <= all {
            2
        } else if part * 2 <= all {
            1
        } else if part >= all * 4 {
            -2
        } else if part >= all * 2 {
            -1
        } else {
            0
        }
    }

    /// A key that comes back soon goes straight to the main queue.
    fn remember(&mut self, number: u32) {
        let most = self.len() * 9 / 10;
        self.ghosts.add(self.at(number).hash, most);
    }

    /// Let the hand look at the next entries, round both queues, and remove those that nobody can use any more.
    pub fn expire(&mut self, limit: usize, now: i64, dead: &mut Dead) -> u64 {
        let mut removed = 0;
        for _ in 0..limit.min(self.len() as usize) {
            let Some(number) = self.advance() else { break };
            let entry = self.at(number);
            if now >= entry.fresh_until && now >= self.keep_until(number) {
                self.remove(number, Reason::Expired, dead);
                removed += 1;
            } else if self.outdated(number) {
                self.remove(number, Reason::Invalidated, dead);
                removed += 1;
            }
        }
        removed
    }

    /// Move the hand to the next entry.
    fn advance(&mut self) -> Option<u32> {
        let mut hand = self.at(self.hand).next;
        if hand < FIRST {
            hand = self.at(1 - hand).next; // the end of one queue: on to the other, or round this one again
            if hand < FIRST {
                hand = self.at(1 - hand).next;
            }
        }
        self.hand = hand;
        (hand >= FIRST).then_some(hand)
    }

    // --------------------------------------------------------------------------------------------------------- rings

    fn queue_of(&self, number: u32) -> u32 {
        u32::from(self.at(number).flags & IN_MAIN != 0)
    }

    /// Make the entry the youngest of a queue.
    pub fn move_to(&mut self, number: u32, queue: u32) {
        self.unlink(number);
        self.append(number, queue);
    }

    fn append(&mut self, number: u32, queue: u32) {
        let last = self.at(queue).prev;
        let weight = self.weight_of(number);
        let entry = self.at_mut(number);
        entry.prev = last;
        entry.next = queue;
        entry.flags = entry.flags & !IN_MAIN | if queue == MAIN { IN_MAIN } else { 0 };
        self.at_mut(last).next = number;
        self.at_mut(queue).prev = number;
        let queue = &mut self.queues[queue as usize];
        queue.entries += 1;
        queue.weight += weight;
    }

    /// Out of its ring; the hand steps back from it.
    fn unlink(&mut self, number: u32) {
        let (before, after) = (self.at(number).prev, self.at(number).next);
        if self.hand == number {
            self.hand = before;
        }
        self.at_mut(before).next = after;
        self.at_mut(after).prev = before;
        let weight = self.weight_of(number);
        let queue = self.queue_of(number) as usize;
        self.queues[queue].entries -= 1;
        self.queues[queue].weight -= weight;
    }

    // ------------------------------------------------------------------------------------------------------ removing

    /// Take an entry out of everything.
    pub fn remove(&mut self, number: u32, reason: Reason, dead: &mut Dead) {
        self.unlink(number);
        let weight = self.weight_of(number);
        let entry = &self.entries[number as usize];
        debug_assert!(entry.flags & LIVE != 0);
        let slot = &mut self.slots[entry.slot as usize];
        slot.entries -= 1;
        slot.weight -= weight;
        slot.objects -= u64::from(entry.flags & OBJECTS != 0);
        if reason != Reason::Replaced {
            slot.evictions[reason as usize] += 1;
        }
        let entries = &self.entries;
        let mut known = self.keys.remove(entry.hash, number, |number| entries[number as usize].hash);
        if apart(entry.hash, entry.khash) {
            let hash_of = |number: u32| spread(entries[number as usize].khash);
            known &= self.khashes.remove(spread(entry.khash), number, hash_of);
        }
        debug_assert!(known, "entry {number} is not in the indexes");
        if entry.flags & MORE != 0 {
            if let Some(extra) = self.extras.remove(&number) {
                extra.names.into_iter().for_each(|names| dead.hold(names));
            }
        }
        let free = self.free;
        let entry = self.at_mut(number);
        dead.release(entry.value);
        dead.release(entry.key);
        *entry = Entry::blank(free);
        self.free = number;
        self.generation += 1;
    }

    /// Remove every entry of this hash. How many there were.
    pub fn drop_key(&mut self, khash: u64, dead: &mut Dead) -> u64 {
        let same = self.of_khash(khash);
        for &number in &same {
            self.remove(number, Reason::Invalidated, dead);
        }
        same.len() as u64
    }

    fn of_khash(&self, khash: u64) -> Vec<u32> {
        let mut same = self.khashes.all(spread(khash), |number| self.at(number).khash == khash);
        let hash = key::end(khash);
        same.extend(self.keys.all(hash, |number| self.at(number).hash == hash && self.at(number).khash == khash));
        same
    }

    /// Remove every entry of a slot, or of all. How many there were.
    pub fn drop_slot(&mut self, slot: Option<u32>, dead: &mut Dead) -> u64 {
        let mut removed = 0;
        for number in FIRST..self.entries.len() as u32 {
            let entry = self.at(number);
            if entry.flags & LIVE != 0 && slot.is_none_or(|slot| slot == entry.slot) {
                self.remove(number, Reason::Invalidated, dead);
                removed += 1;
            }
        }
        removed
    }

    /// Empty, and nothing has happened yet.
    pub fn reset(&mut self, dead: &mut Dead) {
        self.drop_slot(None, dead);
        self.ghosts = Ghosts::default();
        self.hand = SMALL;
        for slot in &mut self.slots {
            **slot = Slot { number: slot.number, ..Slot::default() };
        }
    }

    /// Every object that the table holds.
    pub fn held(&self) -> impl Iterator<Item = Ptr> + '_ {
        let entries = self.entries.iter().filter(|entry| entry.flags & LIVE != 0);
        let names = self.extras.values().filter_map(|extra| extra.names.as_ref().map(Owned::ptr));
        entries.flat_map(|entry| [entry.value, entry.key]).chain(names)
    }
}

impl Dead {
    #[cfg(all(test, not(feature = "extension-module")))]
    fn all(&self) -> impl Iterator<Item = &Owned> {
        self.few.iter().flatten().chain(&self.more)
    }

    fn hold(&mut self, object: Owned) {
        match self.few.get_mut(self.count) {
            Some(place) => *place = Some(object),
            None => self.more.push(object),
        }
        self.count += 1;
    }

    fn release(&mut self, object: Ptr) {
        if let Some(object) = unsafe { Owned::take(object) } {
            self.hold(object);
        }
    }

    fn take(&mut self, new: New) {
        self.hold(new.key);
        self.hold(new.value);
        new.names.into_iter().for_each(|names| self.hold(names));
    }
}

/// Whether this is the entry of one plain argument.
#[inline(always)]
unsafe fn is_one(entry: &Entry, slot: u32, arg: Ptr) -> bool {
    entry.slot == slot && entry.flags & SINGLE != 0 && key::same(entry.key, arg)
}

#[inline(always)]
unsafe fn same(entry: &Entry, args: &[Ptr]) -> bool {
    if entry.flags & SINGLE != 0 {
        return args.len() == 1 && key::same(entry.key, args[0]);
    }
    let stored = tuple_items(entry.key);
    stored.len() == args.len() && stored.iter().zip(args).all(|(&a, &b)| key::same(a, b))
}

/// Whether an entry is found by its khash in an index of its own. Where nobody but this process names the key, its khash
/// is that of its arguments (`key::hash`), of which `hash` is a part: there the index of the arguments will do.
#[inline(always)]
fn apart(hash: u32, khash: u64) -> bool {
    key::end(khash) != hash
}

/// The lower bits of a hash that a caller chose are not to be relied upon.
fn spread(khash: u64) -> u32 {
    (khash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(all(test, not(feature = "extension-module")))]
mod tests {
    use super::*;
    use crate::py::*;
    use std::collections::{HashMap, HashSet};

    /// Everything that must be true of the structures at any time.
    fn check(core: &Core) {
        let mut linked = HashSet::new();
        for queue in [SMALL, MAIN] {
            let (mut at, mut weight, mut count) = (queue, 0, 0);
            loop {
                let next = core.at(at).next;
                assert_eq!(core.at(next).prev, at);
                if next == queue {
                    break;
                }
                assert_ne!(core.at(next).flags & LIVE, 0);
                assert_eq!(core.queue_of(next), queue);
                assert!(linked.insert(next));
                weight += core.weight_of(next);
                count += 1;
                at = next;
            }
            assert_eq!((core.queues[queue as usize].entries, core.queues[queue as usize].weight), (count, weight));
        }
        let mut free = HashSet::new();
        let mut at = core.free;
        while at != 0 {
            assert_eq!(core.at(at).flags, 0);
            assert!(core.at(at).value.is_null() && free.insert(at));
            at = core.at(at).next;
        }
        assert_eq!(linked.len() + free.len() + FIRST as usize, core.entries.len());
        assert!(core.hand < FIRST || linked.contains(&core.hand));
        let mut slots: Vec<(u64, u64, u64)> = core.slots.iter().map(|_| (0, 0, 0)).collect();
        for &number in &linked {
            let entry = core.at(number);
            assert_eq!(core.keys.find(entry.hash, |found| found == number), Some(number));
            let found = core.khashes.find(spread(entry.khash), |found| found == number);
            assert_eq!(found.is_some(), apart(entry.hash, entry.khash));
            assert_eq!(entry.flags & MORE != 0, core.extras.contains_key(&number));
            assert!(entry.flags & ASIDE == 0 || entry.flags & MORE != 0);
            assert!(core.keep_until(number) >= entry.fresh_until);
            assert_eq!(entry.flags & TAGGED != 0, core.extra(number).is_some_and(|extra| !extra.tags.is_empty()));
            assert!((-2..=3).contains(&entry.counter));
            let slot = &mut slots[entry.slot as usize];
            *slot = (slot.0 + 1, slot.1 + core.weight_of(number), slot.2 + u64::from(entry.flags & OBJECTS != 0));
        }
        for (slot, sum) in core.slots.iter().zip(slots) {
            assert_eq!((slot.entries, slot.weight, slot.objects), sum);
            assert!(slot.puts >= slot.entries + slot.evictions.iter().sum::<u64>());
        }
        let apart = linked.iter().filter(|&&number| apart(core.at(number).hash, core.at(number).khash)).count();
        assert_eq!((core.keys.len(), core.khashes.len()), (linked.len(), apart));
        assert!(core.extras.len() <= linked.len());
        assert!(core.len() <= core.max_entries && core.weight() <= core.max_bytes);
    }

    struct Known {
        number: u64, // of its value
        fresh: i64,
        until: i64,
        early: bool,
        aside: bool,
        khash: u64,
        ticket: u64,
        tag: Option<u64>,
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    unsafe fn int(number: u64) -> Owned {
        Owned::take(PyLong_FromUnsignedLongLong(number)).expect("memory")
    }

    /// Random steps beside a map that is told what was given up.
    unsafe fn run(seed: u64, steps: usize, spread: fn(u64) -> u32) {
        const VALUES: u64 = 1 << 40; // the smallest value, larger than any key
        let mut random = Random(seed);
        let (max_entries, max_bytes) = (1 + random.below(30), [60, 400, 1 << 40][random.below(3) as usize]);
        let mut events = Events::new();
        let mut core = Core::new(max_entries, max_bytes, random.below(2) == 0, events.region("r"));
        for _ in 0..2 {
            let number = events.new_slot();
            core.slots.push(Box::new(Slot { number, ..Slot::default() }));
        }
        let mut model: HashMap<(u32, u64), Known> = HashMap::new();
        let (mut now, mut numbers) = (0, VALUES);
        let keys = 1 + random.below(80);
        for _ in 0..steps {
            let (slot, key) = (random.below(3) as u32, random.below(keys));
            let hash = spread(key).wrapping_add(slot * 77);
            let object = int(key);
            let own = if key % 3 == 0 { u64::from(hash) } else { key % 7 * 1_000_003 }; // with the first none is apart
            let found = core.find(slot, hash, &[object.ptr()]).map(|entry| core.number_of(entry));
            let known = model.get(&(slot, key));
            assert_eq!(found.is_some(), known.is_some());
            if let (Some(found), Some(known)) = (found, known) {
                assert_eq!(PyLong_AsUnsignedLongLong(core.at(found).value), known.number);
                assert_eq!((core.at(found).khash, core.at(found).ticket()), (known.khash, known.ticket));
                let outdated = known.tag.is_some_and(|tag| events.tag_event(&format!("t{tag}")) > known.ticket);
                assert_eq!(core.outdated(found), outdated);
                assert_eq!((core.at(found).fresh_until, core.keep_until(found)), (known.fresh, known.until));
                assert_eq!(core.at(found).flags & EARLY != 0, known.early);
                assert_eq!(core.at(found).flags & ASIDE != 0, known.aside);
                let kept = core.keeps(slot, hash, &[object.ptr()], now);
                assert_eq!(kept, core.extra(found).is_some() && now < known.until && !outdated);
                assert!(kept || outdated || now >= known.until || (now < known.fresh && !known.aside));
            }
            let mut dead = Dead::default();
            match random.below(42) {
                0..=17 => {
                    numbers += 1;
                    let tag = (random.below(4) == 0).then(|| random.below(3));
                    let ticket = events.last - random.below(3).min(events.last);
                    let until = if random.below(2) == 0 { NEVER } else { now + random.below(20) as i64 };
                    let khash = own;
                    let tags: Box<[Event]> = tag.iter().map(|tag| events.tag(&format!("t{tag}"))).collect();
                    let new = New {
                        slot,
                        hash,
                        key: object.clone(),
                        value: int(numbers),
                        fresh_until: until,
                        keep_until: until.saturating_add(random.below(5) as i64),
                        ticket,
                        khash,
                        weight: random.below(90),
                        load_ms: random.below(2) * 70_000,
                        flags: SINGLE | [0, 0, 0, OBJECTS, EARLY, EARLY | ASIDE, ASIDE][random.below(7) as usize],
                        mode: Mode::Opaque,
                        renew: Renew::Itself,
                        names: tag.map(|_| Owned::take(PyTuple_New(0)).expect("memory")),
                        tags,
                    };
                    let (keep, early, aside) = (new.keep_until, new.flags & EARLY != 0, new.flags & ASIDE != 0);
                    let heavy = new.weight > max_bytes;
                    let slot_number = core.slots[slot as usize].number;
                    let region = events.region("r");
                    let allowed = events.allow(ticket, khash, &new.tags, slot_number, &region);
                    assert_eq!(core.put(&events, new, found, now, &mut dead), allowed && !heavy);
                    if allowed {
                        model.remove(&(slot, key));
                    }
                    if allowed && !heavy {
                        let known =
                            Known { number: numbers, fresh: until, until: keep, early, aside, khash, ticket, tag };
                        model.insert((slot, key), known);
                    }
                }
                18..=27 => {
                    if let Some(found) = found {
                        core.touch(found);
                    }
                }
                28 => {
                    if let Some(found) = found {
                        core.remove(found, Reason::Invalidated, &mut dead);
                    }
                }
                29 => {
                    let count = model.values().filter(|known| known.khash == own).count();
                    assert_eq!(core.drop_key(own, &mut dead), count as u64);
                }
                30 => {
                    let usable = |known: &Known| now < known.until;
                    let before = model.values().filter(|known| usable(known)).count();
                    core.expire(random.below(40) as usize, now, &mut dead);
                    assert!(core.len() >= before as u64 || model.values().any(|known| known.tag.is_some()));
                }
                31 if random.below(8) == 0 => {
                    assert!(core.drop_slot(Some(slot), &mut dead) <= core.slots[slot as usize].puts)
                }
                32 if random.below(16) == 0 => assert_eq!(core.drop_slot(None, &mut dead), model.len() as u64),
                33 if random.below(16) == 0 => {
                    core.reset(&mut dead);
                    assert_eq!((core.len(), core.weight(), core.hand), (0, 0, SMALL));
                }
                34 => events.bump_key(own),
                35 => events.bump_tags(&[&format!("t{}", key % 3)]),
                40 => {
                    let (khash, mut count) = (own, 0);
                    for known in model.values_mut().filter(|known| known.khash == khash) {
                        (known.fresh, known.early) = (known.fresh.min(now), false);
                        count += 1;
                    }
                    assert_eq!(core.mark_stale(khash, now), count);
                }
                41 => {
                    if let (Some(found), Some(known)) = (found, model.get_mut(&(slot, key))) {
                        let fresh = now + random.below(20) as i64;
                        let may = known.early && now < known.until && !core.outdated(found);
                        assert_eq!(core.refreshed(found, fresh, now), may);
                        if may {
                            (known.fresh, known.early) = (fresh.min(known.until), false);
                        }
                    }
                }
                36 if random.below(8) == 0 => events.bump_slot(core.slots[slot as usize].number),
                _ => now += random.below(6) as i64,
            }
            let gone: HashSet<u64> = dead
                .all()
                .filter(|object| Py_TYPE(object.ptr()) == &raw mut PyLong_Type)
                .map(|object| PyLong_AsUnsignedLongLong(object.ptr()))
                .filter(|&number| number > VALUES)
                .collect();
            model.retain(|_, known| !gone.contains(&known.number));
            assert_eq!(core.len(), model.len() as u64);
            assert_eq!(
                core.held().count(),
                2 * model.len() + core.extras.values().filter(|e| e.names.is_some()).count()
            );
            check(&core);
        }
        let mut dead = Dead::default();
        core.drop_slot(None, &mut dead);
        for object in dead.all() {
            if Py_TYPE(object.ptr()) == &raw mut PyLong_Type && PyLong_AsUnsignedLongLong(object.ptr()) > VALUES {
                assert_eq!(Py_REFCNT(object.ptr()), 1, "held once");
            }
        }
        check(&core);
    }

    #[test]
    fn whatever_is_done_all_structures_agree() {
        unsafe {
            if Py_IsInitialized() == 0 {
                Py_InitializeEx(0);
            }
            let spreads: [fn(u64) -> u32; 4] =
                [|key| (key as u32).wrapping_mul(0x9e37_79b9), |key| key as u32, |key| (key % 5) as u32, |_| u32::MAX];
            for seed in 0..200 {
                run(seed, 1_000, spreads[seed as usize % 4]);
            }
        }
    }
}
