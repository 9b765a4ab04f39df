//! Values as JSON, in which what cannot be seen is escaped: JSON itself asks that of C0 alone.
//!
//! A report of hundreds of devices is by far the longest text that a boot makes, and `serde_json` writes
//! it a byte at a time.

use std::fmt;

use serde::ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::escape::is_hidden;

/// A value of a kind that is in no report: bytes, floating-point numbers, variants with values.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error(message.to_string())
    }
}

/// The JSON of a value.
///
/// # Errors
/// When it has a value of a kind that this does not write.
pub fn json(value: &impl Serialize) -> Result<String, Error> {
    let mut text = Vec::new();
    value.serialize(Writer(&mut text))?;
    // It is made of texts.
    Ok(String::from_utf8(text).unwrap_or_default())
}

/// Writes behind what is there.
struct Writer<'t>(&'t mut Vec<u8>);

impl Writer<'_> {
    fn put(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn quoted(&mut self, text: &str) {
        let is_plain = |byte: u8| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\';
        self.0.push(b'"');
        if text.bytes().all(is_plain) {
            self.put(text);
        } else {
            text.chars().for_each(|c| self.escaped(c));
        }
        self.0.push(b'"');
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' => self.put("\\\""),
            '\\' => self.put("\\\\"),
            '\n' => self.put("\\n"),
            '\r' => self.put("\\r"),
            '\t' => self.put("\\t"),
            c if is_hidden(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    self.put(&format!("\\u{unit:04x}"));
                }
            }
            c => self.put(c.encode_utf8(&mut [0; 4])),
        }
    }

    fn number(&mut self, number: u64) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.0.push(b'0' + (number % 10) as u8);
    }
}

/// A list or a structure, and whether something is in it.
struct Several<'t> {
    text: &'t mut Vec<u8>,
    is_empty: bool,
    end: u8,
}

impl<'t> Several<'t> {
    fn new(text: &'t mut Vec<u8>, start: u8, end: u8) -> Self {
        text.push(start);
        Several { text, is_empty: true, end }
    }

    fn next(&mut self) -> Writer<'_> {
        if !self.is_empty {
            self.text.push(b',');
        }
        self.is_empty = false;
        Writer(self.text)
    }
}

impl SerializeSeq for Several<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(self.next())
    }

    fn end(self) -> Result<(), Error> {
        self.text.push(self.end);
        Ok(())
    }
}

impl SerializeStruct for Several<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        // The name of a field has nothing to be escaped.
        let mut writer = self.next();
        writer.put("\"");
        writer.put(name);
        writer.put("\":");
        value.serialize(writer)
    }

    fn end(self) -> Result<(), Error> {
        SerializeSeq::end(self)
    }
}

/// What was read as JSON has its structures as maps.
impl SerializeMap for Several<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        key.serialize(self.next())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.text.push(b':');
        value.serialize(Writer(self.text))
    }

    fn end(self) -> Result<(), Error> {
        SerializeSeq::end(self)
    }
}

macro_rules! numbers {
    ($($name:ident $type:ty),+) => {$(
        fn $name(mut self, value: $type) -> Result<(), Error> {
            self.number(value.into());
            Ok(())
        }
    )+};
}

macro_rules! unknown {
    ($($name:ident($($type:ty),*) -> $result:ty;)+) => {$(
        fn $name(self, $(_: $type),*) -> Result<$result, Error> {
            Err(Error::custom(concat!("no JSON is written by ", stringify!($name))))
        }
    )+};
}

impl<'t> Serializer for Writer<'t> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Several<'t>;
    type SerializeStruct = Several<'t>;
    type SerializeMap = Several<'t>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_bool(mut self, value: bool) -> Result<(), Error> {
        self.put(if value { "true" } else { "false" });
        Ok(())
    }

    numbers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64);

    fn serialize_str(mut self, text: &str) -> Result<(), Error> {
        self.quoted(text);
        Ok(())
    }

    fn serialize_none(mut self) -> Result<(), Error> {
        self.put("null");
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.quoted(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        Err(Error::custom(name))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Several<'t>, Error> {
        Ok(Several::new(self.0, b'[', b']'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Several<'t>, Error> {
        Ok(Several::new(self.0, b'{', b'}'))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Several<'t>, Error> {
        Ok(Several::new(self.0, b'{', b'}'))
    }

    unknown! {
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[derive(Serialize)]
    struct All<'t> {
        text: &'t str,
        texts: Vec<String>,
        none: Option<u8>,
        some: Option<&'t All<'t>>,
        yes: bool,
        numbers: Vec<u64>,
        number: u64,
        #[serde(rename = "kind-of")]
        kind: Kind,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        OfTwoWords,
    }

    fn all(text: &str) -> All<'_> {
        All {
            text,
            texts: vec![text.to_owned(), String::new()],
            none: None,
            some: None,
            yes: true,
            numbers: vec![0, 7, 1 << 40],
            number: 0,
            kind: Kind::OfTwoWords,
        }
    }

    #[test]
    fn it_is_what_serde_json_takes_it_for() {
        for text in ["", "plain", "\"\\/\n\r\t\0\u{1b}\u{7f}", "ü €\u{202e}\u{e0041}\u{10ffff}"]
        {
            let inner = All { number: u64::MAX, yes: false, ..all(text) };
            let value = All { some: Some(&inner), number: 1024, ..all(text) };
            let written = json(&value).unwrap();
            let read: Value =
                serde_json::from_str(&written).unwrap_or_else(|why| panic!("{why}: {written}"));
            assert_eq!(read, serde_json::to_value(&value).unwrap(), "{written}");
            assert!(!written.contains(is_hidden), "{written:?}");
            let again = json(&read).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), read, "{again}");
        }
        assert_eq!(json(&1.5).unwrap_err().to_string(), "no JSON is written by serialize_f64");
    }
}
