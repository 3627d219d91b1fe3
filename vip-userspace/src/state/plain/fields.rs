//! Objects of the document from their fields.

use std::borrow::Cow;

use super::cursor::{Cursor, NotPlain, Plain};
use crate::{
    state::{
        document::{Eip, Group, Host, Peering, Port, Subnet, Vip, Vpc, Word},
        yaml::At,
    },
    vlan::Tags,
};

/// Where the keys of an object of block style stand: columns before them.
#[derive(Debug, Clone, Copy)]
struct Column(usize);

/// No object has more keys.
const MOST_KEYS: usize = 12;

/// The keys of one object so far.
#[derive(Debug, Default)]
struct Keys<'t> {
    keys: [&'t str; MOST_KEYS],
    count: usize,
}

impl<'t> Keys<'t> {
    /// Each key may stand once.
    fn add(&mut self, key: &'t str) -> Plain<()> {
        let (before, free) = self.keys.split_at_mut_checked(self.count).ok_or(NotPlain)?;
        if before.contains(&key) {
            return Err(NotPlain);
        }
        *free.first_mut().ok_or(NotPlain)? = key;
        self.count += 1;
        Ok(())
    }

    fn have(&self, required: &[&str]) -> bool {
        required.iter().all(|key| self.keys.contains(key))
    }
}

/// The value of a field, not read yet.
#[derive(Debug)]
pub(in crate::state) struct Value<'c, 't> {
    cursor: &'c mut Cursor<'t>,
    /// None between brackets.
    column: Option<Column>,
}

impl<'t> Value<'_, 't> {
    fn flow(&self) -> bool {
        self.column.is_none()
    }

    fn word(&mut self, field: &mut Word<'t>) -> Plain<()> {
        *field = self.cursor.word(self.flow())?;
        Ok(())
    }

    fn word_if_any(&mut self, field: &mut Option<Word<'t>>) -> Plain<()> {
        if !self.is_null() {
            *field = Some(self.cursor.word(self.flow())?);
        }
        Ok(())
    }

    /// A word whose line does not matter.
    fn label(&mut self, field: &mut Option<Cow<'t, str>>) -> Plain<()> {
        if !self.is_null() {
            *field = Some(self.cursor.word(self.flow())?.value);
        }
        Ok(())
    }

    fn number(&mut self, field: &mut At<u64>) -> Plain<()> {
        *field = self.cursor.number(self.flow())?;
        Ok(())
    }

    fn boolean(&mut self, field: &mut Option<bool>) -> Plain<()> {
        if !self.is_null() {
            *field = Some(self.cursor.boolean(self.flow())?);
        }
        Ok(())
    }

    fn words(&mut self, field: &mut Vec<Word<'t>>) -> Plain<()> {
        *field = self.list(Cursor::word)?;
        Ok(())
    }

    fn words_if_any(&mut self, field: &mut Option<Vec<Word<'t>>>) -> Plain<()> {
        if !self.is_null() {
            *field = Some(self.list(Cursor::word)?);
        }
        Ok(())
    }

    fn numbers_if_any(&mut self, field: &mut Option<Vec<At<u64>>>) -> Plain<()> {
        if !self.is_null() {
            *field = Some(self.list(Cursor::number)?);
        }
        Ok(())
    }

    /// A number, or a list of them on the key's line.
    fn tags_if_any(&mut self, field: &mut Option<At<Tags>>) -> Plain<()> {
        if self.is_null() {
            return Ok(());
        }
        let (flow, line) = (self.flow(), self.cursor.line());
        if self.cursor.peek() != Some(b'[') {
            let At { value, line } = self.cursor.number(flow)?;
            *field = Some(At { value: Tags::One(value), line });
            return Ok(());
        }
        let numbers = self.list(Cursor::number)?;
        let numbers = numbers.into_iter().map(|number| number.value).collect();
        *field = Some(At { value: Tags::List(numbers), line });
        Ok(())
    }

    fn is_null(&mut self) -> bool {
        let flow = self.flow();
        self.cursor.null(flow)
    }

    fn list<T>(&mut self, one: impl Fn(&mut Cursor<'t>, bool) -> Plain<T>) -> Plain<Vec<T>> {
        let mut list = Vec::new();
        let cursor = &mut *self.cursor;
        match self.column {
            Some(Column(column)) if !cursor.on_this_line() => {
                cursor.end_line()?;
                let dash = cursor.indentation();
                // The dashes may stand just below their key.
                if dash < column {
                    return Err(NotPlain);
                }
                while !cursor.is_at_end() && cursor.indentation() == dash {
                    let mut ahead = cursor.clone();
                    ahead.indent(dash);
                    if !ahead.is_dash() {
                        break;
                    }
                    ahead.step();
                    ahead.indent(ahead.indentation());
                    list.push(one(&mut ahead, false)?);
                    ahead.end_line()?;
                    *cursor = ahead;
                }
                if list.is_empty() { Err(NotPlain) } else { Ok(list) }
            }
            _ => {
                cursor.each_in_brackets(|cursor| {
                    list.push(one(cursor, true)?);
                    Ok(())
                })?;
                Ok(list)
            }
        }
    }
}

/// An object that is read field by field.
pub(in crate::state) trait Fields<'t>: Default {
    /// The fields that must be there.
    const REQUIRED: &'static [&'static str];

    /// Reads the value of one field.
    fn read(&mut self, key: &str, value: Value<'_, 't>) -> Result<(), NotPlain>;

    /// Reads an object of flow style.
    fn in_braces(cursor: &mut Cursor<'t>) -> Result<At<Self>, NotPlain> {
        let line = cursor.line();
        let (mut object, mut keys) = (Self::default(), Keys::default());
        cursor.expect(b'{')?;
        loop {
            cursor.skip_flow()?;
            let key = cursor.key(true)?;
            keys.add(key)?;
            cursor.skip_flow()?;
            object.read(key, Value { cursor, column: None })?;
            cursor.skip_flow()?;
            match cursor.peek() {
                Some(b',') => cursor.step(),
                Some(b'}') => break,
                _ => return Err(NotPlain),
            }
        }
        cursor.step();
        if keys.have(Self::REQUIRED) { Ok(At { value: object, line }) } else { Err(NotPlain) }
    }

    /// Reads an object of block style, from its first key on. Its keys begin in a column, its item's dash in another one; it
    /// ends before a line that is indented like the dash.
    fn in_lines(cursor: &mut Cursor<'t>, dash: usize, column: usize) -> Result<At<Self>, NotPlain> {
        let line = cursor.line();
        let (mut object, mut keys) = (Self::default(), Keys::default());
        loop {
            let key = cursor.key(false)?;
            keys.add(key)?;
            let multi_line = !cursor.on_this_line();
            cursor.set_margin(column);
            object.read(key, Value { cursor, column: Some(Column(column)) })?;
            if !multi_line {
                cursor.end_line()?;
            }
            if cursor.is_at_end() || cursor.indentation() == dash {
                break;
            }
            if cursor.indentation() != column {
                return Err(NotPlain);
            }
            cursor.indent(column);
        }
        if keys.have(Self::REQUIRED) { Ok(At { value: object, line }) } else { Err(NotPlain) }
    }
}

impl<'t> Fields<'t> for Host<'t> {
    const REQUIRED: &'static [&'static str] = &["id", "vtep"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "id" => value.word(&mut self.id),
            "vtep" => value.word(&mut self.vtep),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}

impl<'t> Fields<'t> for Vpc<'t> {
    const REQUIRED: &'static [&'static str] = &["id", "vni"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "id" => value.word(&mut self.id),
            "vni" => value.number(&mut self.vni),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}

impl<'t> Fields<'t> for Subnet<'t> {
    const REQUIRED: &'static [&'static str] = &["id", "vpc", "cidr", "gateway"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "id" => value.word(&mut self.id),
            "vpc" => value.word(&mut self.vpc),
            "cidr" => value.word(&mut self.cidr),
            "gateway" => value.word(&mut self.gateway),
            "router" => value.word_if_any(&mut self.router),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}

impl<'t> Fields<'t> for Port<'t> {
    const REQUIRED: &'static [&'static str] = &["id", "subnet", "address", "mac", "host", "interface"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "id" => value.word(&mut self.id),
            "subnet" => value.word(&mut self.subnet),
            "address" => value.word(&mut self.address),
            "mac" => value.word(&mut self.mac),
            "host" => value.word(&mut self.host),
            "interface" => value.word(&mut self.interface),
            "vlan" => value.tags_if_any(&mut self.vlan),
            "source_dest_check" => value.boolean(&mut self.source_dest_check),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}

impl<'t> Fields<'t> for Group<'t> {
    const REQUIRED: &'static [&'static str] = &["id", "members"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "id" => value.word(&mut self.id),
            "members" => value.words(&mut self.members),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}

impl<'t> Fields<'t> for Vip<'t> {
    const REQUIRED: &'static [&'static str] = &["id", "subnet", "address"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "id" => value.word(&mut self.id),
            "subnet" => value.word(&mut self.subnet),
            "address" => value.word(&mut self.address),
            "group" => value.word_if_any(&mut self.group),
            "ports" => value.words_if_any(&mut self.ports),
            "real_servers" => value.words_if_any(&mut self.real_servers),
            "vrids" => value.numbers_if_any(&mut self.vrids),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}

impl<'t> Fields<'t> for Eip<'t> {
    const REQUIRED: &'static [&'static str] = &["id", "address"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "id" => value.word(&mut self.id),
            "address" => value.word(&mut self.address),
            "vip" => value.word_if_any(&mut self.vip),
            "port" => value.word_if_any(&mut self.port),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}

impl<'t> Fields<'t> for Peering<'t> {
    const REQUIRED: &'static [&'static str] = &["vpcs"];

    fn read(&mut self, key: &str, mut value: Value<'_, 't>) -> Result<(), NotPlain> {
        match key {
            "vpcs" => value.words(&mut self.vpcs),
            "name" => value.label(&mut self.name),
            "remark" => value.label(&mut self.remark),
            _ => Err(NotPlain),
        }
    }
}
