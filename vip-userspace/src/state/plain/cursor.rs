//! A place in the text, and what can be read there.

use std::borrow::Cow;

use crate::state::yaml::At;

/// The text is not of the plain kind, or wrong: only the YAML library can tell.
#[derive(Debug)]
pub(in crate::state) struct NotPlain;

pub(super) type Plain<T> = Result<T, NotPlain>;

/// Where in the text something is read.
#[derive(Debug, Clone)]
pub(in crate::state) struct Cursor<'t> {
    text: &'t str,
    at: usize,
    /// Counted from 1.
    line: u32,
    /// Where the line begins.
    line_begins: usize,
    /// The text is one JSON value, in which tabs are white space and words may have JSON's escapes.
    json: bool,
    /// Columns that lines within brackets must leave free: those up to the dash of their item.
    margin: usize,
}

/// Words that YAML takes for nothing.
const NULLS: [&str; 5] = ["", "~", "null", "Null", "NULL"];

impl<'t> Cursor<'t> {
    /// The beginning of a text.
    pub(super) fn new(text: &'t str, json: bool) -> Self {
        Self { text, at: 0, line: 1, line_begins: 0, json, margin: 0 }
    }

    /// The same text up to a place, read on from here.
    pub(super) fn up_to(&self, end: usize) -> Plain<Self> {
        let text = self.text.get(..end).ok_or(NotPlain)?;
        Ok(Self { text, ..self.clone() })
    }

    /// The line, counted from 1.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next_is(&self, byte: u8) -> bool {
        self.text.as_bytes().get(self.at + 1) == Some(&byte)
    }

    /// Goes on behind a byte that is not the end of a line.
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    pub(super) fn expect(&mut self, byte: u8) -> Plain<()> {
        if self.peek() != Some(byte) {
            return Err(NotPlain);
        }
        self.step();
        Ok(())
    }

    /// Goes on behind the end of a line.
    fn new_line(&mut self) {
        self.at += 1;
        self.line += 1;
        self.line_begins = self.at;
    }

    fn column(&self) -> usize {
        self.at - self.line_begins
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ')) {
            self.step();
        }
    }

    /// Skips a comment, if one begins here: at the beginning of a line, or behind a space.
    fn skip_comment(&mut self) -> Plain<()> {
        if self.peek() != Some(b'#') {
            return Ok(());
        }
        let apart = self.column() == 0
            || self.at.checked_sub(1).and_then(|at| self.text.as_bytes().get(at)) == Some(&b' ');
        if !apart {
            return Err(NotPlain);
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.find('\n').unwrap_or(rest.len());
        if !rest.get(..length).is_some_and(|comment| comment.chars().all(is_plain)) {
            return Err(NotPlain);
        }
        self.at += length;
        Ok(())
    }

    /// Ends a line on which nothing more may stand than a comment, and skips empty lines.
    pub(super) fn end_line(&mut self) -> Plain<()> {
        self.skip_spaces();
        self.skip_comment()?;
        match self.peek() {
            Some(b'\n') => self.new_line(),
            None => return Ok(()),
            Some(_) => return Err(NotPlain),
        }
        self.skip_empty_lines()
    }

    /// From the beginning of a line to the next one with something on it.
    pub(super) fn skip_empty_lines(&mut self) -> Plain<()> {
        loop {
            let begin = self.at;
            self.skip_spaces();
            self.skip_comment()?;
            match self.peek() {
                Some(b'\n') => self.new_line(),
                None => return Ok(()),
                Some(_) => {
                    self.at = begin;
                    return Ok(());
                }
            }
        }
    }

    /// How far a line is indented, from its beginning on.
    pub(super) fn indentation(&self) -> usize {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        rest.iter().take_while(|byte| **byte == b' ').count()
    }

    /// Goes on behind so many spaces.
    pub(super) fn indent(&mut self, spaces: usize) {
        self.at += spaces;
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Whether an item of a block list begins here.
    pub(super) fn is_dash(&self) -> bool {
        self.peek() == Some(b'-') && (self.next_is(b' ') || self.next_is(b'\n'))
    }

    /// Lines of flow style that follow have to be indented further than this.
    pub(super) fn set_margin(&mut self, margin: usize) {
        self.margin = margin;
    }

    /// Skips spaces, and tells whether the value of a key begins on the key's own line.
    pub(super) fn on_this_line(&mut self) -> bool {
        self.skip_spaces();
        !matches!(self.peek(), Some(b'\n' | b'#') | None)
    }

    /// Skips lines up to the next one that begins with anything but a space, a dash or a comment.
    pub(super) fn skip_to_key(&mut self) {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(length) = rest.find('\n') else {
                self.at = self.text.len();
                return;
            };
            self.at += length;
            self.new_line();
            if !matches!(self.peek(), Some(b' ' | b'-' | b'#' | b'\n')) {
                return;
            }
        }
    }

    /// Reads a list of flow style, from its bracket on.
    pub(super) fn each_in_brackets(&mut self, mut one: impl FnMut(&mut Self) -> Plain<()>) -> Plain<()> {
        self.expect(b'[')?;
        self.skip_flow()?;
        if self.peek() == Some(b']') {
            self.step();
            return Ok(());
        }
        loop {
            one(self)?;
            self.skip_flow()?;
            match self.peek() {
                Some(b',') => self.step(),
                Some(b']') => break,
                _ => return Err(NotPlain),
            }
            self.skip_flow()?;
        }
        self.step();
        Ok(())
    }

    /// Skips white space and comments between brackets.
    pub(super) fn skip_flow(&mut self) -> Plain<()> {
        loop {
            match self.peek() {
                Some(b' ') => self.step(),
                Some(b'\t') if self.json => self.step(),
                Some(b'\n') => {
                    self.new_line();
                    self.skip_spaces();
                    let blank = matches!(self.peek(), Some(b'\n' | b'\t' | b'#') | None);
                    if !self.json && !blank && self.column() <= self.margin {
                        return Err(NotPlain);
                    }
                }
                Some(b'#') if self.json => return Err(NotPlain),
                Some(b'#') => self.skip_comment()?,
                _ => return Ok(()),
            }
        }
    }

    /// Reads a key and the colon behind it; `flow`: between brackets. What follows is the value or white space.
    pub(super) fn key(&mut self, flow: bool) -> Plain<&'t str> {
        let quoted = self.peek() == Some(b'"');
        if quoted {
            self.step();
        }
        let begin = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'_')) {
            self.step();
        }
        let key = self.text.get(begin..self.at).filter(|key| !key.is_empty()).ok_or(NotPlain)?;
        if quoted {
            self.expect(b'"')?;
            if flow {
                self.skip_flow()?;
            }
        }
        self.expect(b':')?;
        let apart = matches!(self.peek(), Some(b' ' | b'\n')) || self.json && self.peek() == Some(b'\t');
        if apart || (quoted && flow) { Ok(key) } else { Err(NotPlain) }
    }

    /// Reads a word, quoted or not.
    pub(super) fn word(&mut self, flow: bool) -> Plain<At<Cow<'t, str>>> {
        let line = self.line;
        let value = if let Some(quote @ (b'"' | b'\'')) = self.peek() {
            self.quoted(quote)?
        } else {
            let word = self.plain(flow)?;
            if NULLS.contains(&word) {
                return Err(NotPlain);
            }
            Cow::Borrowed(word)
        };
        Ok(At { value, line })
    }

    /// Reads a whole number in the one form that all readers agree on.
    pub(super) fn number(&mut self, flow: bool) -> Plain<At<u64>> {
        let line = self.line;
        let word = self.plain(flow)?;
        let decimal =
            word.bytes().all(|byte| byte.is_ascii_digit()) && !(word.len() > 1 && word.starts_with('0'));
        let value = word.parse().ok().filter(|_| decimal).ok_or(NotPlain)?;
        Ok(At { value, line })
    }

    /// Reads the word that says that an optional field has no value, if it stands here.
    pub(super) fn null(&mut self, flow: bool) -> bool {
        let begin = self.at;
        let is_null = self.peek() == Some(b'n') && self.plain(flow).is_ok_and(|word| word == "null");
        if !is_null {
            self.at = begin;
        }
        is_null
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self, flow: bool) -> Plain<bool> {
        match self.plain(flow)? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(NotPlain),
        }
    }

    /// Reads a word without quotes, up to the comment, bracket, comma or line end behind it.
    fn plain(&mut self, flow: bool) -> Plain<&'t str> {
        let begin = self.at;
        let rest = self.text.get(begin..).ok_or(NotPlain)?;
        let bytes = rest.as_bytes();
        if !bytes
            .first()
            .is_some_and(|first| first.is_ascii_alphanumeric() || b"_/".contains(first) || !first.is_ascii())
        {
            return Err(NotPlain);
        }
        let mut length = 0;
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                b' ' => continue,
                b'\n' => break,
                b',' | b']' | b'}' if flow => break,
                b'[' | b'{' if flow => return Err(NotPlain),
                b'#' if bytes.get(index.wrapping_sub(1)) == Some(&b' ') => break,
                b'!'..=b'~' | 0x80.. => {}
                _ => return Err(NotPlain),
            }
            // A colon before white space, or before the end of a value between brackets, would make the word a key.
            let then = bytes.get(index + 1);
            if *byte == b':' && matches!(then, None | Some(b' ' | b'\n' | b',' | b'[' | b']' | b'{' | b'}')) {
                return Err(NotPlain);
            }
            length = index + 1;
        }
        let word = rest.get(..length).ok_or(NotPlain)?;
        if !word.is_ascii() && !word.chars().all(is_plain) {
            return Err(NotPlain);
        }
        self.at += length;
        Ok(word)
    }

    fn quoted(&mut self, quote: u8) -> Plain<Cow<'t, str>> {
        let begin = self.at;
        self.step();
        let mut escapes = false;
        loop {
            match self.peek() {
                Some(byte) if byte == quote => break,
                Some(b'\\') if quote == b'"' && self.json => {
                    escapes = true;
                    self.step();
                    if self.peek().is_none_or(|byte| byte < b' ') {
                        return Err(NotPlain);
                    }
                }
                Some(b'\\') if quote == b'"' => return Err(NotPlain),
                Some(0..b' ' | 0x7f) | None => return Err(NotPlain),
                Some(_) => {}
            }
            self.step();
        }
        let word = self.text.get(begin + 1..self.at).ok_or(NotPlain)?;
        self.step();
        // Two single quotes stand for one.
        if quote == b'\'' && self.peek() == Some(quote) {
            return Err(NotPlain);
        }
        if !word.is_ascii() && !word.chars().all(is_plain) {
            return Err(NotPlain);
        }
        if !escapes {
            return Ok(Cow::Borrowed(word));
        }
        let token = self.text.get(begin..self.at).ok_or(NotPlain)?;
        serde_json::from_str(token).map(Cow::Owned).map_err(|_| NotPlain)
    }

    /// Skips a value of JSON in haste: whoever reads it later judges it.
    pub(super) fn skip_value(&mut self) -> Plain<()> {
        let mut depth = 0_u32;
        loop {
            match self.peek().ok_or(NotPlain)? {
                b'"' => {
                    self.step();
                    loop {
                        match self.peek().ok_or(NotPlain)? {
                            b'"' => break,
                            b'\\' => self.at += 2,
                            b'\n' => return Err(NotPlain),
                            _ => self.step(),
                        }
                    }
                    self.step();
                }
                b'[' | b'{' => {
                    depth += 1;
                    self.step();
                }
                b']' | b'}' => {
                    depth = depth.checked_sub(1).ok_or(NotPlain)?;
                    self.step();
                }
                b'\n' => self.new_line(),
                _ if depth == 0 => return Err(NotPlain),
                _ => self.step(),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// Whether a character is one that YAML lets stand everywhere and reads as itself: no control, no line end of Unicode, no byte order
/// mark, no non-character.
fn is_plain(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        c => c >= '\u{a0}',
    }
}
