//! Values as msgpack, straight to bytes: the native twin of `Encoder` in `cachekit/codec/serializers.py`.
//!
//! It writes what the twin would write, or nothing at all: whatever is unusual (an int beyond 64 bits, a lone surrogate,
//! a value that is too deep or too long, that changes meanwhile or cannot be stored) is left to the twin, which finds the
//! words for it. Every class is compared exactly, so nothing is taken for something else.

use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;

use crate::class::*;
use crate::codes::*;
use crate::py::*;
use crate::values::forget_error;

/// The value is left to the twin. An exception may be set.
struct Unusual;

type Written = Result<(), Unusual>;

trait OrUnusual<T> {
    fn or_unusual(self) -> Result<T, Unusual>;
}

impl<T> OrUnusual<T> for Option<T> {
    #[inline]
    fn or_unusual(self) -> Result<T, Unusual> {
        self.ok_or(Unusual)
    }
}

/// encode(value, limit): codec and bytes of a value, or None if the twin must do it
pub unsafe extern "C" fn encode(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("encode", count, 2)?;
        let limit = u64_of(*args.add(1))? as usize;
        let mut writer = Writer { known: known()?, calls: 0, out: Vec::with_capacity(256), limit, marked: false };
        if writer.value(*args, 0).is_err() || writer.out.len() > limit {
            if !PyErr_Occurred().is_null() {
                forget_error();
            }
            return Some(Owned::of(Py_None()));
        }
        let codec = Owned::take(PyLong_FromLong(if writer.marked { MARKED } else { TREE }))?;
        let bytes = Owned::take(PyBytes_FromStringAndSize(writer.out.as_ptr().cast(), writer.out.len() as isize))?;
        Owned::take(PyTuple_Pack(2, codec.ptr(), bytes.ptr()))
    })())
}

/// Which keys a dictionary has, and in which order.
#[derive(Default, PartialEq)]
struct Keys {
    count: isize,
    hash: u64,
}

impl Keys {
    unsafe fn of(dict: Ptr) -> Keys {
        let mut keys = Keys::default();
        let (mut place, mut key) = (0, null_mut());
        while PyDict_Next(dict, &mut place, &mut key, null_mut()) != 0 {
            keys.add(key);
        }
        keys
    }

    #[inline]
    fn add(&mut self, key: Ptr) {
        self.count += 1;
        self.hash = (self.hash ^ key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

struct Writer {
    known: &'static Known,
    calls: usize, // of the twin, in which other threads may have run
    out: Vec<u8>,
    limit: usize,
    marked: bool,
}

impl Writer {
    unsafe fn value(&mut self, value: Ptr, depth: usize) -> Written {
        if self.out.len() > self.limit {
            return Err(Unusual); // also bounds what a small web of shared containers can grow to
        }
        let class = Py_TYPE(value);
        if class == &raw mut PyUnicode_Type {
            self.text(value)
        } else if class == &raw mut PyLong_Type {
            self.int(value)
        } else if value == Py_None() {
            self.byte(0xc0)
        } else if class == &raw mut PyBool_Type {
            self.byte(if value == Py_True() { 0xc3 } else { 0xc2 })
        } else if class == &raw mut PyFloat_Type {
            self.byte(0xcb)?;
            self.put(&PyFloat_AS_DOUBLE(value).to_be_bytes())
        } else if class == &raw mut PyDict_Type {
            self.dict(value, depth)
        } else if class == &raw mut PyList_Type {
            self.array(PyList_GET_SIZE(value))?;
            self.items(value, depth, false)
        } else if class == &raw mut PyBytes_Type {
            let bytes = bytes_of(value);
            self.sized(bytes.len(), &[(0xff, 0xc4), (0xffff, 0xc5), (0xffff_ffff, 0xc6)])?;
            self.put(bytes)
        } else if class == &raw mut PyTuple_Type {
            self.marked(TUPLE, PyTuple_GET_SIZE(value))?;
            self.items(value, depth, false)
        } else {
            self.other(value, class, depth)
        }
    }

    unsafe fn other(&mut self, value: Ptr, class: *mut PyTypeObject, depth: usize) -> Written {
        let known = self.known;
        let calendar = &*PyDateTimeAPI();
        if class == calendar.DateTimeType {
            self.datetime(value, depth)
        } else if class.cast() == known.decimal {
            let text = Owned::take(PyObject_Str(value)).or_unusual()?;
            self.ext(DECIMAL, ascii(text.ptr()).or_unusual()?)
        } else if class.cast() == known.uuid {
            self.uuid(value, depth)
        } else if class == calendar.DateType {
            self.ext(DATE, &date_fields(value))
        } else if class == calendar.DeltaType {
            let fields = [
                PyDateTime_DELTA_GET_DAYS(value),
                PyDateTime_DELTA_GET_SECONDS(value),
                PyDateTime_DELTA_GET_MICROSECONDS(value),
            ];
            self.ext(TIMEDELTA, fields.map(c_int::to_be_bytes).as_flattened())
        } else if class == &raw mut PyByteArray_Type {
            self.ext(BYTEARRAY, slice(PyByteArray_AsString(value).cast(), PyByteArray_Size(value) as usize))
        } else if class == &raw mut PySet_Type || class == &raw mut PyFrozenSet_Type {
            let members = Owned::take(PySequence_List(value)).or_unusual()?;
            self.marked(if class == &raw mut PySet_Type { SET } else { FROZENSET }, PyList_GET_SIZE(members.ptr()))?;
            self.items(members.ptr(), depth, false)
        } else {
            let layout = PyDict_GetItemWithError(known.layouts, class.cast());
            if !layout.is_null() {
                let layout = Owned::of(layout);
                if self.instance(value, &Layout::of(layout.ptr()), depth)? {
                    return Ok(());
                }
            } else if !PyErr_Occurred().is_null() {
                return Err(Unusual); // the hash of a metaclass
            }
            self.taken_apart(value, depth)
        }
    }

    // -------------------------------------------------------------------------------------------------------- scalars

    unsafe fn text(&mut self, value: Ptr) -> Written {
        if let Some(text) = ascii(value) {
            self.text_head(text.len())?;
            return self.put(text);
        }
        // The interpreter's own encoder would keep what it made, in memory that the application did not ask for.
        let (start, length) = (PyUnicode_DATA(value), PyUnicode_GET_LENGTH(value) as usize);
        match PyUnicode_KIND(value) {
            1 => self.wide(slice::<u8>(start, length)),
            2 => self.wide(slice::<u16>(start, length)),
            _ => self.wide(slice::<u32>(start, length)),
        }
    }

    fn wide<T: Copy + Into<u32>>(&mut self, text: &[T]) -> Written {
        let width =
            |each: u32| 1 + usize::from(each >= 0x80) + usize::from(each >= 0x800) + usize::from(each >= 0x1_0000);
        let size = text.iter().map(|&each| width(each.into())).sum();
        self.text_head(size)?;
        self.out.reserve(size);
        for &each in text {
            match each.into() {
                each @ 0..0x80 => self.out.push(each as u8),
                each => {
                    let character = char::from_u32(each).or_unusual()?; // a lone surrogate is none
                    self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        Ok(())
    }

    fn text_head(&mut self, size: usize) -> Written {
        if size < 32 {
            return self.byte(0xa0 | size as u8);
        }
        self.sized(size, &[(0xff, 0xd9), (0xffff, 0xda), (0xffff_ffff, 0xdb)])
    }

    unsafe fn int(&mut self, value: Ptr) -> Written {
        let mut overflow: c_int = 0;
        let number = PyLong_AsLongLongAndOverflow(value, &mut overflow);
        match overflow {
            0 if number >= 0 => self.natural(number as u64),
            0 => self.negative(number),
            1 => {
                let number = PyLong_AsUnsignedLongLong(value);
                if PyErr_Occurred().is_null() {
                    self.natural(number)
                } else {
                    Err(Unusual)
                }
            }
            _ => Err(Unusual),
        }
    }

    fn natural(&mut self, number: u64) -> Written {
        match number {
            0..0x80 => self.byte(number as u8),
            0x80..0x100 => self.put(&[0xcc, number as u8]),
            0x100..0x1_0000 => self.headed(0xcd, &(number as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.headed(0xce, &(number as u32).to_be_bytes()),
            _ => self.headed(0xcf, &number.to_be_bytes()),
        }
    }

    fn negative(&mut self, number: i64) -> Written {
        match number {
            -0x20.. => self.byte(number as u8),
            -0x80.. => self.put(&[0xd0, number as u8]),
            -0x8000.. => self.headed(0xd1, &(number as i16).to_be_bytes()),
            -0x8000_0000.. => self.headed(0xd2, &(number as i32).to_be_bytes()),
            _ => self.headed(0xd3, &number.to_be_bytes()),
        }
    }

    unsafe fn datetime(&mut self, value: Ptr, depth: usize) -> Written {
        let zone = PyDateTime_DATE_GET_TZINFO(value);
        let utc = zone == (*PyDateTimeAPI()).TimeZone_UTC;
        if !utc && zone != Py_None() {
            return self.taken_apart(value, depth);
        }
        let mut fields = [0; 13];
        fields[..4].copy_from_slice(&date_fields(value));
        fields[4] = PyDateTime_DATE_GET_HOUR(value) as u8;
        fields[5] = PyDateTime_DATE_GET_MINUTE(value) as u8;
        fields[6] = PyDateTime_DATE_GET_SECOND(value) as u8;
        fields[7..11].copy_from_slice(&(PyDateTime_DATE_GET_MICROSECOND(value) as u32).to_be_bytes());
        fields[11] = PyDateTime_DATE_GET_FOLD(value) as u8;
        fields[12] = b'U';
        self.ext(DATETIME, if utc { &fields } else { &fields[..12] })
    }

    unsafe fn uuid(&mut self, value: Ptr, depth: usize) -> Written {
        let known = self.known;
        let safety = Owned::take(PyObject_GetAttr(value, known.is_safe)).or_unusual()?;
        if safety.ptr() != known.unknown {
            return self.taken_apart(value, depth);
        }
        let number = Owned::take(PyObject_GetAttr(value, known.int)).or_unusual()?;
        let high = Owned::take(PyNumber_Rshift(number.ptr(), known.sixty_four)).or_unusual()?;
        let halves = [PyLong_AsUnsignedLongLong(high.ptr()), PyLong_AsUnsignedLongLongMask(number.ptr())];
        if PyErr_Occurred().is_null() {
            self.ext(UUID, halves.map(u64::to_be_bytes).as_flattened())
        } else {
            Err(Unusual)
        }
    }

    // ----------------------------------------------------------------------------------------------------- containers

    /// Every item of a list or tuple; ``depth`` is that of the container.
    unsafe fn items(&mut self, items: Ptr, depth: usize, unset: bool) -> Written {
        self.enter(depth)?;
        let list = PyList_Check(items) != 0;
        let size = || if list { PyList_GET_SIZE(items) } else { PyTuple_GET_SIZE(items) };
        let count = size();
        for index in 0..count {
            if index >= size() {
                return Err(Unusual); // code of a class has changed it
            }
            let item = if list { PyList_GET_ITEM(items, index) } else { PyTuple_GET_ITEM(items, index) };
            if unset && item == self.known.unset {
                self.ext(UNSET, &[])?;
            } else {
                self.value(Owned::of(item).ptr(), depth + 1)?;
            }
        }
        if count == size() {
            Ok(())
        } else {
            Err(Unusual)
        }
    }

    unsafe fn dict(&mut self, dict: Ptr, depth: usize) -> Written {
        let count = PyDict_Size(dict);
        let (mut place, mut key, mut item) = (0, null_mut(), null_mut());
        let mut words = true;
        while words && PyDict_Next(dict, &mut place, &mut key, null_mut()) != 0 {
            words = Py_TYPE(key) == &raw mut PyUnicode_Type;
        }
        if words {
            self.map(count)?;
        } else {
            self.marked(DICT, 2 * count)?;
        }
        self.enter(depth)?;
        place = 0;
        let (calls, mut met) = (self.calls, Keys::default());
        while PyDict_Next(dict, &mut place, &mut key, &mut item) != 0 {
            let (key, item) = (Owned::of(key), Owned::of(item));
            met.add(key.ptr());
            if words && Py_TYPE(key.ptr()) != &raw mut PyUnicode_Type {
                return Err(Unusual); // code of a class has changed it
            }
            self.value(key.ptr(), depth + 1)?;
            self.value(item.ptr(), depth + 1)?;
        }
        // Where other code ran, a key may have been moved to where it was met again.
        if met.count == count && (self.calls == calls || met == Keys::of(dict)) {
            Ok(())
        } else {
            Err(Unusual)
        }
    }

    /// An instance whose layout is known: its fields, in the order of their names. False: it is not as simple as that.
    unsafe fn instance(&mut self, value: Ptr, layout: &Layout, depth: usize) -> Result<bool, Unusual> {
        if layout.kind == NAMEDTUPLE {
            if PyTuple_GET_SIZE(value) != layout.count {
                return Ok(false);
            }
            self.instance_head(layout)?;
            return self.items(value, depth, false).map(|()| true);
        }
        let Some(fields) = fields_of(value, layout).or_unusual()? else {
            return Ok(false);
        };
        self.instance_head(layout)?;
        self.enter(depth)?;
        for field in fields {
            match field {
                Some(field) => self.value(field.ptr(), depth + 1)?,
                None => self.ext(UNSET, &[])?,
            }
        }
        Ok(true)
    }

    unsafe fn instance_head(&mut self, layout: &Layout) -> Written {
        self.marked = true;
        self.array(1 + layout.count)?;
        self.ext(layout.kind, bytes_of(layout.marker))
    }

    /// What the twin knows to take apart: an ext, and for a container its items, which follow its marker in an array.
    unsafe fn taken_apart(&mut self, value: Ptr, depth: usize) -> Written {
        self.calls += 1;
        let parts = Owned::take(PyObject_CallOneArg(self.known.take, value)).or_unusual()?;
        let (code, data) = (PyTuple_GET_ITEM(parts.ptr(), 0), PyTuple_GET_ITEM(parts.ptr(), 1));
        let items = PyTuple_GET_ITEM(parts.ptr(), 2);
        let Ok(code @ 0..0x80) = u8::try_from(PyLong_AsLong(code)) else {
            return Err(Unusual);
        };
        if PyBytes_CheckExact(data) == 0 || (items != Py_None() && PyList_CheckExact(items) == 0) {
            return Err(Unusual);
        }
        if items == Py_None() {
            return self.ext(code, bytes_of(data));
        }
        self.marked = true;
        self.array(1 + PyList_GET_SIZE(items))?;
        self.ext(code, bytes_of(data))?;
        self.items(items, depth, true)
    }

    fn enter(&self, depth: usize) -> Written {
        if depth < self.known.max_depth {
            Ok(())
        } else {
            Err(Unusual)
        }
    }

    /// The head of an array that stands for a container of another kind.
    fn marked(&mut self, code: u8, count: isize) -> Written {
        self.marked = true;
        self.array(1 + count)?;
        self.ext(code, &[])
    }

    // ---------------------------------------------------------------------------------------------------------- bytes

    fn array(&mut self, count: isize) -> Written {
        if count < 16 {
            return self.byte(0x90 | count as u8);
        }
        self.sized(count as usize, &[(0xffff, 0xdc), (0xffff_ffff, 0xdd)])
    }

    fn map(&mut self, count: isize) -> Written {
        if count < 16 {
            return self.byte(0x80 | count as u8);
        }
        self.sized(count as usize, &[(0xffff, 0xde), (0xffff_ffff, 0xdf)])
    }

    fn ext(&mut self, code: u8, data: &[u8]) -> Written {
        match data.len() {
            1 => self.byte(0xd4)?,
            2 => self.byte(0xd5)?,
            4 => self.byte(0xd6)?,
            8 => self.byte(0xd7)?,
            16 => self.byte(0xd8)?,
            length => self.sized(length, &[(0xff, 0xc7), (0xffff, 0xc8), (0xffff_ffff, 0xc9)])?,
        }
        self.byte(code)?;
        self.put(data)
    }

    /// The first head of the list that has room for the size, and the size.
    fn sized(&mut self, size: usize, heads: &[(usize, u8)]) -> Written {
        let &(room, head) = heads.iter().find(|(room, _)| size <= *room).or_unusual()?;
        let bytes = (size as u64).to_be_bytes();
        let width = room.trailing_ones() as usize / 8;
        self.headed(head, &bytes[8 - width..])
    }

    fn headed(&mut self, head: u8, rest: &[u8]) -> Written {
        self.byte(head)?;
        self.put(rest)
    }

    #[inline]
    fn byte(&mut self, byte: u8) -> Written {
        self.out.push(byte);
        Ok(())
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Written {
        if bytes.len() > self.limit {
            return Err(Unusual);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

/// The fields of an instance; `Some(None)` if it carries more than these.
unsafe fn fields_of(value: Ptr, layout: &Layout) -> Option<Option<Vec<Option<Owned>>>> {
    let attributes =
        if layout.has_dict { Some(Owned::take(PyObject_GenericGetDict(value, null_mut()))?) } else { None };
    let mut fields = Vec::with_capacity(layout.count as usize);
    let mut of_dict = 0;
    for at in 0..layout.count {
        let (name, slot) = layout.field(at);
        let field = if slot != Py_None() {
            slot_of(value, slot)?
        } else if let Some(attributes) = &attributes {
            let field = PyDict_GetItemWithError(attributes.ptr(), name);
            of_dict += isize::from(!field.is_null());
            (!field.is_null()).then(|| Owned::of(field))
        } else {
            None
        };
        fields.push(field);
    }
    match attributes {
        Some(attributes) if PyDict_Size(attributes.ptr()) != of_dict => Some(None),
        _ if !PyErr_Occurred().is_null() => None,
        _ => Some(Some(fields)),
    }
}

/// What a slot holds; `Some(None)` if it was never set.
unsafe fn slot_of(value: Ptr, slot: Ptr) -> Option<Option<Owned>> {
    let get = (*Py_TYPE(slot)).tp_descr_get?;
    let held = Owned::take(get(slot, value, Py_TYPE(value).cast()));
    if held.is_none() {
        if PyErr_ExceptionMatches(PyExc_AttributeError) == 0 {
            return None;
        }
        PyErr_Clear();
    }
    Some(held)
}

unsafe fn date_fields(value: Ptr) -> [u8; 4] {
    let [high, low] = (PyDateTime_GET_YEAR(value) as u16).to_be_bytes();
    [high, low, PyDateTime_GET_MONTH(value) as u8, PyDateTime_GET_DAY(value) as u8]
}

/// The characters of a str that has only ASCII.
#[inline]
unsafe fn ascii<'a>(text: Ptr) -> Option<&'a [u8]> {
    (PyUnicode_IS_COMPACT_ASCII(text) != 0).then(|| slice(PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text) as usize))
}

unsafe fn bytes_of<'a>(bytes: Ptr) -> &'a [u8] {
    slice(PyBytes_AS_STRING(bytes).cast(), Py_SIZE(bytes) as usize)
}

unsafe fn slice<'a, T>(start: *const c_void, length: usize) -> &'a [T] {
    std::slice::from_raw_parts(start.cast(), length)
}
