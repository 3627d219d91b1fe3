//! Where in the text each list of the document is.

use super::{
    cursor::{Cursor, NotPlain, Plain},
    fields::Fields,
};
use crate::state::{model::Kind, yaml::At};

/// A list of the document.
#[derive(Debug)]
struct Section<'t> {
    kind: Kind,
    /// Behind the colon of its key; the text ends where the list does.
    value: Cursor<'t>,
}

/// The lists of a document, none of them read yet: each can be read when what it refers to is known, wherever it stands.
#[derive(Debug)]
pub(in crate::state) struct Sections<'t> {
    sections: Vec<Section<'t>>,
}

const KINDS: [Kind; 8] =
    [Kind::Host, Kind::Vpc, Kind::Subnet, Kind::Port, Kind::Group, Kind::Vip, Kind::Eip, Kind::Peering];

impl<'t> Sections<'t> {
    /// Finds the lists.
    pub(in crate::state) fn find(text: &'t str) -> Result<Self, NotPlain> {
        let json = text.trim_start_matches([' ', '\t', '\n']).starts_with('{');
        let mut found = Self { sections: Vec::new() };
        if json {
            found.in_flow(Cursor::new(text, true))?;
        } else {
            found.in_block(text)?;
        }
        Ok(found)
    }

    /// Whether a list is there.
    pub(in crate::state) fn has(&self, kind: Kind) -> bool {
        self.sections.iter().any(|section| section.kind == kind)
    }

    fn add(&mut self, key: &str, value: Cursor<'t>) -> Plain<()> {
        let kind = KINDS.into_iter().find(|kind| kind.list() == key).ok_or(NotPlain)?;
        if self.has(kind) {
            return Err(NotPlain);
        }
        self.sections.push(Section { kind, value });
        Ok(())
    }

    fn in_flow(&mut self, mut cursor: Cursor<'t>) -> Plain<()> {
        cursor.skip_flow()?;
        cursor.expect(b'{')?;
        loop {
            cursor.skip_flow()?;
            let key = cursor.key(true)?;
            cursor.skip_flow()?;
            let value = cursor.clone();
            cursor.skip_value()?;
            self.add(key, value.up_to(cursor.at())?)?;
            cursor.skip_flow()?;
            match cursor.peek() {
                Some(b',') => cursor.step(),
                Some(b'}') => break,
                _ => return Err(NotPlain),
            }
        }
        cursor.step();
        cursor.skip_flow()?;
        if cursor.is_at_end() { Ok(()) } else { Err(NotPlain) }
    }

    /// Every line that begins without a space begins a list, goes on with one, or is a comment.
    fn in_block(&mut self, text: &'t str) -> Plain<()> {
        let mut cursor = Cursor::new(text, false);
        cursor.skip_empty_lines()?;
        while !cursor.is_at_end() {
            let key = cursor.key(false)?;
            let value = cursor.clone();
            cursor.skip_to_key();
            self.add(key, value.up_to(cursor.at())?)?;
        }
        Ok(())
    }

    /// Reads the objects of one kind, in their order.
    pub(in crate::state) fn each<T: Fields<'t>>(
        &self,
        kind: Kind,
        mut take: impl FnMut(At<T>),
    ) -> Result<(), NotPlain> {
        let Some(section) = self.sections.iter().find(|section| section.kind == kind) else { return Ok(()) };
        let mut cursor = section.value.clone();
        if cursor.is_json() {
            flow_objects(&mut cursor, &mut take)?;
        } else {
            block_objects(&mut cursor, &mut take)?;
        }
        if cursor.is_at_end() { Ok(()) } else { Err(NotPlain) }
    }
}

fn flow_objects<'t, T: Fields<'t>>(cursor: &mut Cursor<'t>, take: &mut impl FnMut(At<T>)) -> Plain<()> {
    cursor.each_in_brackets(|cursor| {
        take(T::in_braces(cursor)?);
        Ok(())
    })
}

fn block_objects<'t, T: Fields<'t>>(cursor: &mut Cursor<'t>, take: &mut impl FnMut(At<T>)) -> Plain<()> {
    if cursor.on_this_line() {
        cursor.set_margin(0);
        flow_objects(cursor, take)?;
        return cursor.end_line();
    }
    cursor.end_line()?;
    if cursor.is_at_end() {
        return Err(NotPlain);
    }
    let dash = cursor.indentation();
    while !cursor.is_at_end() {
        if cursor.indentation() != dash {
            return Err(NotPlain);
        }
        cursor.indent(dash);
        if !cursor.is_dash() {
            return Err(NotPlain);
        }
        cursor.step();
        let column = dash + 1 + cursor.indentation();
        cursor.indent(column - dash - 1);
        if cursor.peek() == Some(b'{') {
            cursor.set_margin(dash);
            take(T::in_braces(cursor)?);
            cursor.end_line()?;
        } else {
            take(T::in_lines(cursor, dash, column)?);
        }
    }
    Ok(())
}
