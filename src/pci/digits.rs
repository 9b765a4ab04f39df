//! Hexadecimal numbers of a known length, both ways. A machine of hundreds of devices is made of little
//! else, and `write!` and `from_str_radix` are made for more than that.

/// Numbers with marks between them.
#[derive(Default)]
pub struct Digits {
    text: [u8; Digits::LONGEST],
    length: usize,
}

impl Digits {
    /// `ffffffff:ff:1f.7`.
    const LONGEST: usize = 16;

    pub(super) fn mark(mut self, mark: u8) -> Self {
        self.text[self.length] = mark;
        self.length += 1;
        self
    }

    /// At least so many digits of a number.
    #[must_use]
    pub fn hex(mut self, number: u32, digits: u32) -> Self {
        let mut left = digits;
        while left < 8 && number >> (4 * left) != 0 {
            left += 1;
        }
        while left > 0 {
            left -= 1;
            self.text[self.length] = b"0123456789abcdef"[(number >> (4 * left) & 0xf) as usize];
            self.length += 1;
        }
        self
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

/// The number that some digits make, at most eight of them, in either case; `None` where one is none.
#[must_use]
pub fn number(digits: &[u8]) -> Option<u32> {
    let mut number = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        number = number << 4 | u32::from(value);
    }
    Some(number)
}
