//! Pictures of a machine's displays: compared, read, kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// What a display showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Screenshot {
    /// Reads a picture that QEMU's `screendump` has written, as PNG.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::decode(file).with_context(|| format!("{} is no picture", path.display()))
    }

    fn decode(file: File) -> Result<Self> {
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info()?;
        let mut bytes = vec![0; reader.output_buffer_size().context("it is too large")?];
        let png::OutputInfo { width, height, color_type, bit_depth, .. } =
            reader.next_frame(&mut bytes)?;
        let kind = (color_type, bit_depth);
        ensure!(kind == (png::ColorType::Rgb, png::BitDepth::Eight), "it is {kind:?}");
        let pixels = bytes.as_chunks::<3>().0.to_vec();
        Ok(Self { width: usize::try_from(width)?, height: usize::try_from(height)?, pixels })
    }

    /// In how many pixels they differ; pictures of different sizes in all.
    #[must_use]
    pub fn differing(&self, other: &Self) -> usize {
        if (self.width, self.height) != (other.width, other.height) {
            return self.pixels.len().max(other.pixels.len());
        }
        self.pixels.iter().zip(&other.pixels).filter(|(one, other)| one != other).count()
    }

    /// Without the dark part on the right and at the bottom, less a margin.
    #[must_use]
    pub fn cropped(&self) -> Self {
        const MARGIN: usize = 16;
        let lit = |index: &usize| self.pixels[*index] != [0; 3];
        let lit: Vec<usize> = (0..self.pixels.len()).filter(lit).collect();
        let right = lit.iter().map(|index| index % self.width).max().unwrap_or(0);
        let bottom = lit.last().map_or(0, |index| index / self.width);
        let width = self.width.min(right + 1 + MARGIN);
        let height = self.height.min(bottom + 1 + MARGIN);
        let rows = self.pixels.chunks(self.width).take(height);
        Self { width, height, pixels: rows.flat_map(|row| &row[..width]).copied().collect() }
    }

    /// Writes it as a PNG with as many bits a pixel as its colours need.
    ///
    /// # Errors
    /// When it has more than 256 colours, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut palette: Vec<[u8; 3]> = self.pixels.clone();
        palette.sort_unstable();
        palette.dedup();
        let depth = match palette.len() {
            0..=2 => png::BitDepth::One,
            3..=4 => png::BitDepth::Two,
            5..=16 => png::BitDepth::Four,
            _ => png::BitDepth::Eight,
        };
        let bits = depth as usize;
        let mut rows = Vec::new();
        for row in self.pixels.chunks(self.width) {
            for part in row.chunks(8 / bits) {
                let mut byte = 0;
                for (place, pixel) in part.iter().enumerate() {
                    let index = palette.binary_search(pixel).unwrap_or_default();
                    let index = u8::try_from(index).context("it has more than 256 colours")?;
                    byte |= index << (8 - bits * (place + 1));
                }
                rows.push(byte);
            }
        }
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (width, height) = (u32::try_from(self.width)?, u32::try_from(self.height)?);
        let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(depth);
        encoder.set_palette(palette.concat());
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&rows)?;
        writer.finish()?;
        Ok(())
    }

    /// Columns from one character to the next: VGA's text mode puts a dark one between them.
    fn pitch(&self) -> usize {
        if (self.width, self.height) == (720, 400) { GLYPH.0 + 1 } else { GLYPH.0 }
    }

    /// Whether each pixel of a character is lit, in rows.
    fn glyph(&self, row: usize, column: usize) -> Vec<bool> {
        let (width, height) = GLYPH;
        let pixel = |y: usize, x: usize| {
            let index = (row * height + y) * self.width + column * self.pitch() + x;
            self.pixels[index] != [0; 3]
        };
        (0..height).flat_map(|y| (0..width).map(move |x| pixel(y, x))).collect()
    }
}

/// Width and height of a character.
const GLYPH: (usize, usize) = (8, 16);

/// How the console draws characters, learnt from a picture of them all.
#[derive(Debug, Clone)]
pub struct Font {
    glyphs: HashMap<Vec<bool>, char>,
}

impl Font {
    /// What is to stand in two rows of the screen for [`Font::learn`].
    pub const CHARACTERS: [&str; 2] = [
        "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNO",
        "PQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~",
    ];

    /// From a picture in which the characters stand in two rows, not necessarily the first: the
    /// kernel prints when it likes.
    ///
    /// # Errors
    /// When they do not.
    pub fn learn(picture: &Screenshot) -> Result<Self> {
        let rows = picture.height / GLYPH.1;
        (0..rows.saturating_sub(1))
            .find_map(|row| Self::learn_at(picture, row).ok())
            .context("the characters are not in the picture")
    }

    fn learn_at(picture: &Screenshot, top: usize) -> Result<Self> {
        let mut glyphs = HashMap::new();
        for (row, text) in Self::CHARACTERS.into_iter().enumerate() {
            for (column, character) in text.chars().enumerate() {
                let glyph = picture.glyph(top + row, column);
                ensure!(glyph.contains(&true), "there is no {character:?} in the picture");
                if let Some(other) = glyphs.insert(glyph, character) {
                    anyhow::bail!("{character:?} looks like {other:?}");
                }
            }
        }
        Ok(Self { glyphs })
    }

    /// Reads what either draws.
    pub fn extend(&mut self, other: Self) {
        self.glyphs.extend(other.glyphs);
    }

    /// The text in a picture of the same console on any display, a line a row; what is no
    /// character is a `\u{fffd}`.
    #[must_use]
    pub fn text(&self, picture: &Screenshot) -> String {
        let mut text = String::new();
        for row in 0..picture.height / GLYPH.1 {
            let characters = (0..picture.width / picture.pitch()).map(|column| {
                let glyph = picture.glyph(row, column);
                let blank = !glyph.contains(&true);
                if blank { ' ' } else { self.glyphs.get(&glyph).copied().unwrap_or('\u{fffd}') }
            });
            let line: String = characters.collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, lit: impl Fn(usize, usize) -> bool) -> Screenshot {
        let pixel = |index: usize| [if lit(index % width, index / width) { 170 } else { 0 }; 3];
        Screenshot { width, height, pixels: (0..width * height).map(pixel).collect() }
    }

    #[test]
    fn a_picture_is_read_and_compared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let mut encoder = png::Encoder::new(File::create(&path).unwrap(), 2, 1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&[0, 0, 0, 170, 170, 170]).unwrap();
        let read = Screenshot::read(&path).unwrap();
        assert_eq!(read, picture(2, 1, |x, _| x == 1));
        assert_eq!(read.differing(&picture(2, 1, |_, _| false)), 1);
        assert_eq!(read.differing(&read), 0);
        read.save(&path).unwrap();
        assert!(format!("{:#}", Screenshot::read(&path).unwrap_err()).contains("Indexed"));
    }

    #[test]
    fn the_dark_part_is_cropped() {
        let cropped = picture(100, 60, |x, y| x < 10 && y == 5).cropped();
        assert_eq!((cropped.width, cropped.height), (26, 22));
        assert_eq!(cropped, picture(26, 22, |x, y| x < 10 && y == 5));
        let all = picture(20, 20, |_, _| true);
        assert_eq!(all.cropped(), all);
    }

    #[test]
    fn a_font_that_was_learnt_reads_the_same_characters_elsewhere() {
        // Each character draws its own number, in bits, into the first row of its cell.
        let [first, _] = Font::CHARACTERS;
        let number = |x: usize, y: usize| match (y / 16, x / 8) {
            (row @ (0 | 1), column) if column < first.len() => row * first.len() + column + 1,
            (3, 2) => 1,
            _ => 0,
        };
        let all = picture(480, 64, |x, y| y % 16 == 0 && number(x, y) >> (x % 8) & 1 == 1);
        let font = Font::learn(&all).unwrap();
        let expected = format!("{}\n{}\n\n  !\n", Font::CHARACTERS[0], Font::CHARACTERS[1]);
        assert_eq!(font.text(&all), expected);
        assert!(Font::learn(&picture(480, 64, |_, _| false)).is_err());
    }

    #[test]
    fn a_png_has_the_bits_that_its_colours_need() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        picture(20, 3, |x, y| x == y).save(&path).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap()));
        let reader = decoder.read_info().unwrap();
        assert_eq!(reader.info().bit_depth, png::BitDepth::One);
        assert_eq!((reader.info().width, reader.info().height), (20, 3));
    }
}
