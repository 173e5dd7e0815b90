//! Scalars from their bytes, for the decoder of `cachekit/codec/serializers.py`: the usual ones here, others in the twin.

use std::ptr::null_mut;

use crate::class::*;
use crate::codes::*;
use crate::py::*;
use crate::values::new_tuple;

/// scalar(code, data): the value of an ext; raises whatever it likes for one that is none
pub unsafe extern "C" fn scalar(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| read(args, count, known()?, false))())
}

/// scalar_or_marker(code, data): the same, or the head of an array that stands for a container
pub unsafe extern "C" fn scalar_or_marker(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| read(args, count, known()?, true))())
}

unsafe fn read(args: *mut Ptr, count: Py_ssize_t, known: &Known, markers: bool) -> Option<Owned> {
    counted("scalar", count, 2)?;
    let (code, data) = (*args, *args.add(1));
    if PyBytes_CheckExact(data) != 0 {
        let bytes = std::slice::from_raw_parts(PyBytes_AS_STRING(data).cast(), Py_SIZE(data) as usize);
        let number = u8::try_from(PyLong_AsLong(code)).unwrap_or(u8::MAX);
        match (number, bytes) {
            (UNSET | TUPLE..=DEQUE | NAMEDTUPLE..=MODEL, _) if markers => {
                return new_tuple(known.marker.cast(), &[code, data]);
            }
            (DECIMAL, text) => return decimal(known, text),
            (UUID, &[..]) if bytes.len() == 16 => return uuid(known, bytes),
            (DATETIME, [fields @ .., b'U']) if bytes.len() == 13 => {
                return datetime(fields, (*PyDateTimeAPI()).TimeZone_UTC);
            }
            (DATETIME, fields) if bytes.len() == 12 => return datetime(fields, Py_None()),
            (DATE, &[high, low, month, day]) => {
                let api = &*PyDateTimeAPI();
                let year = u16::from_be_bytes([high, low]).into();
                return Owned::take((api.Date_FromDate)(year, month.into(), day.into(), api.DateType));
            }
            _ if !PyErr_Occurred().is_null() => return None,
            _ => {}
        }
    }
    let otherwise = if markers { known.read_marker } else { known.read };
    Owned::take(PyObject_CallFunctionObjArgs(otherwise, code, data, null_mut::<PyObject>()))
}

unsafe fn decimal(known: &Known, text: &[u8]) -> Option<Owned> {
    let text = Owned::take(PyUnicode_DecodeASCII(text.as_ptr().cast(), text.len() as isize, null_mut()))?;
    Owned::take(PyObject_CallOneArg(known.decimal, text.ptr()))
}

/// As uuid itself does it, without the checks of a text: attributes are set behind the back of `UUID.__setattr__`.
unsafe fn uuid(known: &Known, bytes: &[u8]) -> Option<Owned> {
    let new = PyBaseObject_Type.tp_new?;
    let uuid = Owned::take(new(known.uuid.cast(), known.nothing, null_mut()))?;
    let number = unsigned(bytes)?;
    if PyObject_GenericSetAttr(uuid.ptr(), known.int, number.ptr()) < 0
        || PyObject_GenericSetAttr(uuid.ptr(), known.is_safe, known.unknown) < 0
    {
        return None;
    }
    Some(uuid)
}

/// The interpreter checks every field.
unsafe fn datetime(fields: &[u8], zone: Ptr) -> Option<Owned> {
    let api = &*PyDateTimeAPI();
    let &[high, low, month, day, hour, minute, second, m1, m2, m3, m4, fold] = fields else {
        return raise(PyExc_ValueError, c"length of a datetime");
    };
    Owned::take((api.DateTime_FromDateAndTimeAndFold)(
        u16::from_be_bytes([high, low]).into(),
        month.into(),
        day.into(),
        hour.into(),
        minute.into(),
        second.into(),
        i32::from_be_bytes([m1, m2, m3, m4]),
        zone,
        fold.into(),
        api.DateTimeType,
    ))
}
