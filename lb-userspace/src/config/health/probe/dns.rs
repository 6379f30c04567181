use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    config::{
        health::text,
        report::{Report, Wrong},
        table::{Table, shortened},
        values,
    },
    domain::{Dns, Rcode, RecordType},
};

pub(super) fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Dns> {
    let name = table.require("name", report).and_then(|item| item.parse(report, text::domain_name));
    let records = values::choice(&RecordType::ALL, RecordType::as_str);
    let record = table.text_or("record", RecordType::A, report, records);
    let codes = values::choice(&Rcode::ALL, Rcode::as_str);
    let rcode = table.text_or("expect_rcode", Rcode::NoError, report, codes);
    let item = table.get("expect_addresses");
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
