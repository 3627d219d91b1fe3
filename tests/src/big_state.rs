//! A state of any size: what a large cloud would write into one file.

use std::{
    io::{self, Write},
    net::Ipv4Addr,
};

/// Ports of one VPC, and so of its only subnet; the last one has the rest as well.
const PORTS_PER_VPC: u32 = 10_000;

/// First address of the pool that the EIPs come from, one after the other: shared address space (RFC 6598).
const FIRST_EIP: u32 = u32::from_be_bytes([100, 64, 0, 0]);

/// The subnet of every VPC: its ports stand in the lower half, its VIPs in the upper.
const SUBNET: u32 = u32::from_be_bytes([10, 0, 0, 0]);
const FIRST_PORT: u32 = SUBNET + 2;
const FIRST_VIP: u32 = SUBNET + (1 << 15);

/// How many of what. The first `vips` EIPs lead to VIPs, one each, the others to ports, one each.
#[derive(Clone, Copy, Debug)]
pub struct BigState {
    /// Hosts. Host 0, `hv0`, has all ports.
    pub hosts: u32,
    /// Ports: at least `eips` less `vips`, and at least one for each VIP or ten.
    pub ports: u32,
    /// VIPs, each bound to two or three ports.
    pub vips: u32,
    /// EIPs: at least `vips`.
    pub eips: u32,
}

/// How the file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// YAML with one object per line, in braces.
    Lines,
    /// YAML as most libraries write it: one field per line.
    Block,
    /// JSON with one object per line.
    Json,
}

/// A value of a field.
enum Value {
    Word(String),
    Number(u32),
    Words(Vec<String>),
}

type Object = Vec<(&'static str, Value)>;

fn word(text: impl Into<String>) -> Value {
    Value::Word(text.into())
}

impl BigState {
    /// This many EIPs, a tenth of them to VIPs and the rest to fixed addresses.
    pub fn of_eips(eips: u32) -> Self {
        let vips = eips / 10;
        Self { hosts: 4, ports: (eips - vips).max(1), vips, eips }
    }

    /// Id of the host that has the ports.
    pub const HOST: &str = "hv0";

    /// VPCs, each with one subnet.
    pub fn vpcs(&self) -> u32 {
        (self.ports / PORTS_PER_VPC).max(1)
    }

    /// Address of an EIP, counted from 0.
    pub fn eip(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(FIRST_EIP + number)
    }

    fn host_object(number: u32) -> Object {
        vec![
            ("id", word(format!("hv{number}"))),
            ("vtep", word(Ipv4Addr::from(0xac1f_0001 + number).to_string())),
        ]
    }

    fn vpc_object(number: u32) -> Object {
        vec![("id", word(format!("vpc-{number:05}"))), ("vni", Value::Number(4000 + number))]
    }

    fn subnet_object(number: u32) -> Object {
        vec![
            ("id", word(format!("net-{number:05}"))),
            ("vpc", word(format!("vpc-{number:05}"))),
            ("cidr", word(format!("{}/16", Ipv4Addr::from(SUBNET)))),
            ("gateway", word(Ipv4Addr::from(SUBNET + 1).to_string())),
        ]
    }

    fn port_object(&self, number: u32) -> Object {
        let [_, b, c, d] = number.to_be_bytes();
        let vpc = (number / PORTS_PER_VPC).min(self.vpcs() - 1);
        vec![
            ("id", word(port_id(number))),
            ("subnet", word(format!("net-{vpc:05}"))),
            ("address", word(Ipv4Addr::from(FIRST_PORT + number - vpc * PORTS_PER_VPC).to_string())),
            ("mac", word(format!("02:00:00:{b:02x}:{c:02x}:{d:02x}"))),
            ("host", word(Self::HOST)),
            ("interface", word(format!("tap{number:07}"))),
        ]
    }

    fn vip_object(&self, number: u32) -> Object {
        let vpcs = self.vpcs();
        let (vpc, within) = (number % vpcs, number / vpcs);
        let first = vpc * PORTS_PER_VPC;
        let there = if vpc + 1 == vpcs { self.ports - first } else { PORTS_PER_VPC };
        let wanted = 2 + number % 2;
        let ports = (0..wanted.min(there)).map(|member| port_id(first + (within * 3 + member) % there));
        vec![
            ("id", word(vip_id(number))),
            ("subnet", word(format!("net-{vpc:05}"))),
            ("address", word(Ipv4Addr::from(FIRST_VIP + within).to_string())),
            ("ports", Value::Words(ports.collect())),
        ]
    }

    fn eip_object(&self, number: u32) -> Object {
        let target = match number.checked_sub(self.vips) {
            None => ("vip", word(vip_id(number))),
            Some(port) => ("port", word(port_id(port))),
        };
        vec![("id", word(eip_id(number))), ("address", word(Self::eip(number).to_string())), target]
    }

    /// Writes the file.
    pub fn write(&self, form: Form, to: &mut impl Write) -> io::Result<()> {
        let mut writer = Writer { form, to, lists: 0 };
        writer.begin()?;
        writer.list("hosts", self.hosts, Self::host_object)?;
        writer.list("vpcs", self.vpcs(), Self::vpc_object)?;
        writer.list("subnets", self.vpcs(), Self::subnet_object)?;
        writer.list("ports", self.ports, |number| self.port_object(number))?;
        writer.list("vips", self.vips, |number| self.vip_object(number))?;
        writer.list("eips", self.eips, |number| self.eip_object(number))?;
        writer.end()
    }
}

/// Id of an EIP, counted from 0.
pub fn eip_id(number: u32) -> String {
    format!("eip-{number:07}")
}

/// Id of a port, counted from 0.
pub fn port_id(number: u32) -> String {
    format!("port-{number:07}")
}

fn vip_id(number: u32) -> String {
    format!("vip-{number:07}")
}

struct Writer<'w, W> {
    form: Form,
    to: &'w mut W,
    lists: u32,
}

impl<W: Write> Writer<'_, W> {
    fn begin(&mut self) -> io::Result<()> {
        if self.form == Form::Json { self.to.write_all(b"{\n") } else { Ok(()) }
    }

    fn end(&mut self) -> io::Result<()> {
        if self.form == Form::Json { self.to.write_all(b"\n}\n") } else { Ok(()) }
    }

    fn list(&mut self, name: &str, count: u32, object: impl Fn(u32) -> Object) -> io::Result<()> {
        self.lists += 1;
        match self.form {
            Form::Json if self.lists > 1 => write!(self.to, ",\n\"{name}\": [")?,
            Form::Json => write!(self.to, "\"{name}\": [")?,
            Form::Lines | Form::Block if count == 0 => return writeln!(self.to, "{name}: []"),
            Form::Lines | Form::Block => writeln!(self.to, "{name}:")?,
        }
        for number in 0..count {
            let object = object(number);
            match self.form {
                Form::Json => {
                    self.to.write_all(if number == 0 { b"\n  " } else { b",\n  " })?;
                    self.braces(&object)?;
                }
                Form::Lines => {
                    self.to.write_all(b"  - ")?;
                    self.braces(&object)?;
                    self.to.write_all(b"\n")?;
                }
                Form::Block => self.block(&object)?,
            }
        }
        if self.form == Form::Json { self.to.write_all(b"\n]") } else { Ok(()) }
    }

    fn braces(&mut self, object: &Object) -> io::Result<()> {
        let quote = if self.form == Form::Json { "\"" } else { "" };
        for (index, (field, value)) in object.iter().enumerate() {
            let before = if index == 0 { "{ " } else { ", " };
            write!(self.to, "{before}{quote}{field}{quote}: ")?;
            match value {
                Value::Number(number) => write!(self.to, "{number}")?,
                Value::Word(text) => self.word(field, text)?,
                Value::Words(texts) => {
                    for (index, text) in texts.iter().enumerate() {
                        self.to.write_all(if index == 0 { b"[" } else { b", " })?;
                        self.word(field, text)?;
                    }
                    self.to.write_all(if texts.is_empty() { b"[]" } else { b"]" })?;
                }
            }
        }
        self.to.write_all(b" }")
    }

    fn block(&mut self, object: &Object) -> io::Result<()> {
        for (index, (field, value)) in object.iter().enumerate() {
            write!(self.to, "{}{field}:", if index == 0 { "- " } else { "  " })?;
            match value {
                Value::Number(number) => writeln!(self.to, " {number}")?,
                Value::Word(text) => {
                    self.to.write_all(b" ")?;
                    self.word(field, text)?;
                    self.to.write_all(b"\n")?;
                }
                Value::Words(texts) => {
                    self.to.write_all(b"\n")?;
                    texts.iter().try_for_each(|text| writeln!(self.to, "  - {text}"))?;
                }
            }
        }
        Ok(())
    }

    fn word(&mut self, field: &str, text: &str) -> io::Result<()> {
        if self.form == Form::Json || field == "mac" {
            write!(self.to, "\"{text}\"")
        } else {
            self.to.write_all(text.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form) -> String {
        let mut text = Vec::new();
        BigState { hosts: 1, ports: 20_001, vips: 3, eips: 10 }.write(form, &mut text).expect("memory");
        String::from_utf8(text).expect("ASCII")
    }

    #[test]
    fn each_form_has_every_object() {
        for form in [Form::Lines, Form::Block, Form::Json] {
            let text = written(form);
            assert_eq!(text.matches("vpc-00001").count(), 2, "{form:?}");
            assert_eq!(text.matches("tap").count(), 20_001, "{form:?}");
            assert_eq!(text.matches("100.64.0.").count(), 10, "{form:?}");
        }
    }

    #[test]
    fn json_is_json() {
        let value: serde_json::Value = serde_json::from_str(&written(Form::Json)).expect("JSON");
        assert_eq!(value.pointer("/vips/2/ports/1"), Some(&"port-0000004".into()));
    }
}
