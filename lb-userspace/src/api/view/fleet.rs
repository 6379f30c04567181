use crate::{
    api::v1,
    domain::Name,
    fleet::{Leave, Link, View, Views, book::Refused, marks::Mark, member::Record, permit::limit},
};

/// What a member knows of its fleet.
pub(in crate::api) fn fleet(views: &Views) -> v1::Fleet {
    let view = views.now();
    let (endpoint, since) = match &view.link {
        Link::Connected { endpoint, since } => (Some(endpoint.clone()), *since),
        Link::CutOff { since, .. } => (None, *since),
    };
    let marks = view.marks();
    let member =
        |name: &Name, record: &Record| member(name, record, marks.get(name).map_or(&[], Vec::as_slice));
    v1::Fleet {
        member: views.member.to_string(),
        connected: view.is_connected(),
        endpoint,
        since_seconds: since.elapsed().as_secs(),
        silence_seconds: view.silence().as_secs(),
        prefix: views.rules.keys.all(),
        revision: view.book.revision(),
        live_revision: view.live,
        trouble: trouble(&view),
        unheard: view.unheard.clone(),
        refused: view.refused(&views.rules).into_iter().map(refused).collect(),
        withdrawals: withdrawals(views, &view),
        members: view.members.iter().map(|(name, of)| member(name, &of.record)).collect(),
    }
}

fn trouble(view: &View) -> Option<String> {
    let all: Vec<_> = view.cut_off().into_iter().chain(view.trouble.clone()).collect();
    (!all.is_empty()).then(|| all.join("\n"))
}

fn withdrawals(views: &Views, view: &View) -> v1::FleetWithdrawals {
    let wanted = views.wishes().borrow().permit;
    v1::FleetWithdrawals {
        limit: limit(view.announcing()),
        members: view.permits.keys().map(ToString::to_string).collect(),
        wanted,
        refused: match views.leave() {
            Leave::Refused(why) if wanted => Some(why),
            Leave::Refused(_) | Leave::Granted | Leave::Asked => None,
        },
    }
}

fn refused(Refused { key, revision, why, goes_on }: Refused) -> v1::RefusedDocument {
    v1::RefusedDocument { key, revision, why, goes_on }
}

fn member(name: &Name, record: &Record, marks: &[Mark]) -> v1::FleetMember {
    v1::FleetMember {
        name: name.to_string(),
        version: record.version.clone(),
        revision: record.revision,
        tables: record.tables.clone(),
        key: record.key.clone(),
        ready: record.ready,
        announces: record.announces,
        trouble: record.trouble.clone(),
        marks: marks.iter().map(|mark| mark.word().to_owned()).collect(),
        remark: marks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}
