//! From the JSON of a record to MessagePack, in one pass.

use crate::error::Result;
use crate::json::{Kind, Reader};
use crate::msgpack;
use crate::outline::{Outline, Prefix};

/// Nesting that is kept as structure. What lies deeper is kept as its JSON text, because hosts and
/// receivers walk records recursively.
pub const DEPTH_MAX: usize = 64;

/// Writes a record and notes where its members lie.
pub struct Writer<'a> {
    /// Where it is appended.
    pub out: &'a mut Vec<u8>,
    /// Cleared for it.
    pub outline: &'a mut Outline,
}

impl Writer<'_> {
    /// Writes the next JSON value as a map: an event's body must be one, or the host drops the rest
    /// of its chunk.
    ///
    /// # Errors
    /// When the JSON is malformed.
    pub fn record(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if reader.peek()? == Kind::Object {
            return self.value(reader, DEPTH_MAX);
        }
        let (map, start) = (self.outline.open(), self.out.len());
        msgpack::map(self.out, 1);
        let key = self.out.len();
        msgpack::string(self.out, "value");
        let prefix = Prefix::of(&self.out[key..], self.out.len() - key);
        self.member(reader, key, prefix, DEPTH_MAX)?;
        self.outline.close(map, start..key, self.out);
        Ok(())
    }

    /// Writes the next JSON value; `depth` is the nesting that is still allowed.
    fn value(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<()> {
        match reader.peek()? {
            Kind::Object | Kind::Array if depth == 0 => msgpack::string(self.out, reader.skip()?),
            Kind::Object => self.object(reader, depth - 1)?,
            Kind::Array => self.array(reader, depth - 1)?,
            Kind::String => self.string(reader)?,
            Kind::Number => match reader.short_number() {
                Some(number) => msgpack::unsigned(self.out, number),
                None => msgpack::number(self.out, reader.number()?),
            },
            Kind::True => {
                reader.word("true")?;
                msgpack::boolean(self.out, true);
            }
            Kind::False => {
                reader.word("false")?;
                msgpack::boolean(self.out, false);
            }
            Kind::Null => {
                reader.word("null")?;
                msgpack::nil(self.out);
            }
        }
        Ok(())
    }

    fn object(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<()> {
        let map = self.outline.open();
        let reserved = msgpack::open_map(self.out, self.outline.expects_large());
        let mut count = 0;
        reader.members(|reader| {
            let (key, prefix) = self.key(reader)?;
            count += 1;
            self.member(reader, key, prefix, depth)
        })?;
        let header = msgpack::fit_map(self.out, reserved.clone(), count);
        if header != reserved {
            self.outline.shift(map, header.len() as isize - reserved.len() as isize);
        }
        self.outline.close(map, header, self.out);
        Ok(())
    }

    /// Writes a key and passes its colon; returns where it lies.
    #[inline(always)]
    fn key(&mut self, reader: &mut Reader<'_>) -> Result<(usize, Prefix)> {
        let key = self.out.len();
        let prefix = match reader.short_string() {
            Some((block, length)) => {
                msgpack::short_text(self.out, block, length);
                Prefix::of_short_text(block.first_chunk().copied().unwrap_or_default(), length)
            }
            None => {
                self.string(reader)?;
                Prefix::of(&self.out[key..], self.out.len() - key)
            }
        };
        reader.colon()?;
        Ok((key, prefix))
    }

    /// Writes the value of a member whose key lies at `key`.
    #[inline(always)]
    fn member(
        &mut self,
        reader: &mut Reader<'_>,
        key: usize,
        prefix: Prefix,
        depth: usize,
    ) -> Result<()> {
        let (value, before) = (self.out.len(), self.outline.mark());
        if !self.short_string(reader) {
            self.value(reader, depth)?;
        }
        self.outline.member(self.out, prefix, key, value, before);
        Ok(())
    }

    fn array(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<()> {
        let inside = self.outline.mark();
        let at = msgpack::open(self.out);
        let mut count = 0;
        reader.array(|reader| {
            count += 1;
            if self.short_string(reader) { Ok(()) } else { self.value(reader, depth) }
        })?;
        let moved = msgpack::close_array(self.out, at, count);
        if moved > 0 {
            self.outline.shift(inside, moved as isize);
        }
        Ok(())
    }

    /// Writes what comes next if it is a short string, as most keys and values are.
    #[inline(always)]
    fn short_string(&mut self, reader: &mut Reader<'_>) -> bool {
        let Some((block, length)) = reader.short_string() else { return false };
        msgpack::short_text(self.out, block, length);
        true
    }

    fn string(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if let Some(text) = reader.plain_string()? {
            msgpack::text(self.out, text);
            return Ok(());
        }
        let at = msgpack::open(self.out);
        reader.string_onto(self.out)?;
        msgpack::close_string(self.out, at);
        Ok(())
    }
}
