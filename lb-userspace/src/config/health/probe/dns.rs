use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    config::{
        health::text,
        key::{Key, List, OneOf, Text},
        reference::Section,
        report::{Report, Wrong},
        table::{Table, shortened},
    },
    domain::{Dns, Rcode, RecordType},
};

pub(super) fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Dns> {
    let name = table.required(&NAME, report);
    let record = table.read_or(&RECORD, RecordType::A, report);
    let rcode = table.read_or(&EXPECT_RCODE, Rcode::NoError, report);
    let item = table.get(&EXPECT_ADDRESSES);
    let (record, rcode) = (record?.value, rcode?.value);
    let mut answers = BTreeSet::new();
    if let Some(item) = item {
        if rcode != Rcode::NoError || !matches!(record, RecordType::A | RecordType::Aaaa) {
            let message = "`expect_addresses` means nothing to this question";
            let label = "only for record = \"A\" or \"AAAA\" and expect_rcode = \"noerror\"";
            report.error(item.place, Wrong::new(message, label));
            return None;
        }
        let mut right = item.is_array();
        for element in item.array("such as [\"192.0.2.1\"]", report) {
            match element.parse(report, |key, text| address(record, key, text)) {
                Some(address) => right &= answers.insert(address.value),
                None => right = false,
            }
        }
        if !right {
            return None;
        }
    }
    Some(Dns { name: name?.value, record, rcode, answers })
}

fn address(record: RecordType, key: &str, text: &str) -> Result<IpAddr, Wrong> {
    let fits = |address: &IpAddr| address.is_ipv4() == (record == RecordType::A);
    text.parse().ok().filter(fits).ok_or_else(|| {
        let family = if record == RecordType::A { "an IPv4" } else { "an IPv6" };
        let message = format!("`{key}` can't hold \"{}\"", shortened(text));
        Wrong::new(message, format!("{family} address, as a record of type {} has", record.as_str()))
    })
}

pub(in crate::config) const DNS: Section =
    Section { heading: "### `dns`", says: "", keys: &[&NAME, &RECORD, &EXPECT_RCODE, &EXPECT_ADDRESSES] };

const NAME: Key<Text<String>> = Key {
    name: "name",
    takes: Text("a name in the DNS", text::domain_name),
    default: "required",
    means: "what is asked for",
};
const RECORD: Key<OneOf<RecordType>> = Key {
    name: "record",
    takes: OneOf(&RecordType::ALL, RecordType::as_str),
    default: "`\"A\"`",
    means: "of which type",
};
const EXPECT_RCODE: Key<OneOf<Rcode>> = Key {
    name: "expect_rcode",
    takes: OneOf(&Rcode::ALL, Rcode::as_str),
    default: "`\"noerror\"`",
    means: "the code that has to be answered. With `\"noerror\"` there has to be a record of the type",
};
const EXPECT_ADDRESSES: Key<List> = Key {
    name: "expect_addresses",
    takes: List("addresses"),
    default: "`[]`",
    means: "with `A` and `AAAA`: addresses that have to be among the answers",
};
