//! What was invalidated when: `cachekit.l1.versions` in native code. Runs no Python code.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

pub const STRIPES: usize = 1024;
pub const MAX_TAGS: usize = 16_384;

/// The number of the last event that touched something; shared with the entries that hang on it.
pub type Event = Rc<Cell<u64>>;

pub struct Events {
    pub last: u64,
    all: u64,
    /// The number of every tag that is not in `tags`.
    floor: u64,
    /// Several keys share a number: a collision only refuses a put.
    keys: Box<[u64; STRIPES]>,
    slots: Vec<u64>,
    tags: HashMap<Box<str>, Event>,
    regions: HashMap<Box<str>, Event>,
    /// So many tags may be known before those that nobody holds are looked for.
    room: usize,
}

impl Events {
    pub fn new() -> Events {
        Events {
            last: 0,
            all: 0,
            floor: 0,
            keys: Box::new([0; STRIPES]),
            slots: vec![0],
            tags: HashMap::new(),
            regions: HashMap::new(),
            room: MAX_TAGS,
        }
    }

    pub fn new_slot(&mut self) -> u64 {
        self.slots.push(0);
        self.slots.len() as u64 - 1
    }

    pub fn bump_key(&mut self, khash: u64) {
        self.last += 1;
        self.keys[khash as usize % STRIPES] = self.last;
    }

    pub fn bump_slot(&mut self, slot: u64) {
        self.last += 1;
        // No table has a slot that was not given out.
        if let Some(number) = self.slots.get_mut(slot as usize) {
            *number = self.last;
        }
    }

    pub fn bump_region(&mut self, region: &str) {
        self.last += 1;
        self.region(region).set(self.last);
    }

    pub fn bump_all(&mut self) {
        self.last += 1;
        self.all = self.last;
    }

    /// One event for all of these tags.
    pub fn bump_tags(&mut self, tags: &[&str]) {
        self.last += 1;
        for tag in tags {
            self.tag(tag).set(self.last);
        }
    }

    /// The cell of a region; it is kept, there are few.
    pub fn region(&mut self, region: &str) -> Event {
        self.regions.entry(region.into()).or_default().clone()
    }

    /// The cell of a tag. While somebody holds it, it is not forgotten.
    pub fn tag(&mut self, tag: &str) -> Event {
        if let Some(event) = self.tags.get(tag) {
            return event.clone();
        }
        if self.tags.len() >= self.room {
            self.forget_tags();
        }
        let event = Rc::new(Cell::new(self.floor));
        self.tags.insert(tag.into(), event.clone());
        event
    }

    /// Drop those that no entry hangs on. Every tag without a number then counts as cleared when the last of them was.
    fn forget_tags(&mut self) {
        let mut floor = self.floor;
        self.tags.retain(|_, event| {
            let held = Rc::strong_count(event) > 1;
            if !held {
                floor = floor.max(event.get());
            }
            held
        });
        self.floor = floor;
        self.room = MAX_TAGS.max(2 * self.tags.len());
    }

    pub fn tag_event(&self, tag: &str) -> u64 {
        self.tags.get(tag).map_or(self.floor, |event| event.get())
    }

    /// Whether nothing that covers a key was invalidated after the ticket.
    pub fn allow(&self, ticket: u64, khash: u64, tags: &[Event], slot: u64, region: &Cell<u64>) -> bool {
        ticket >= self.all
            && ticket >= self.keys[khash as usize % STRIPES]
            && ticket >= self.slots.get(slot as usize).copied().unwrap_or(0)
            && ticket >= region.get()
            && tags.iter().all(|tag| ticket >= tag.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_tags_forgets_no_clear_of_a_tag_that_is_held() {
        let mut events = Events::new();
        events.bump_tags(&["held"]);
        let held = events.tag("held");
        for number in 0..3 * MAX_TAGS {
            events.bump_tags(&[&number.to_string()]);
        }
        assert_eq!(held.get(), 1);
        assert_eq!(events.tag_event("held"), 1);
        assert!(events.tags.len() <= MAX_TAGS + 1);
        assert!(events.tag_event("0") >= 2, "its number was dropped: at least as late as it was");
        assert!(events.tag_event("never seen") <= events.last);
    }

    #[test]
    fn a_ticket_from_before_an_event_is_refused_by_what_it_covers_only() {
        let mut events = Events::new();
        let (slot, other) = (events.new_slot(), events.new_slot());
        let (region, elsewhere) = (events.region("r"), events.region("s"));
        let ticket = events.last;
        events.bump_slot(slot);
        assert!(!events.allow(ticket, 1, &[], slot, &region));
        assert!(events.allow(ticket, 1, &[], other, &region));
        events.bump_region("r");
        assert!(!events.allow(ticket, 1, &[], other, &region));
        assert!(events.allow(ticket, 1, &[], other, &elsewhere));
        events.bump_key(1);
        assert!(!events.allow(ticket, 1 + STRIPES as u64, &[], other, &elsewhere), "they share a stripe");
        assert!(events.allow(events.last, 1, &[], slot, &region));
        events.bump_all();
        assert!(!events.allow(ticket, 2, &[], other, &elsewhere));
    }
}
