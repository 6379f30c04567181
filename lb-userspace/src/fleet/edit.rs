//! What a change over the API does to the fleet's documents. Pure.

use std::collections::BTreeMap;

use super::book::{Book, Declared, Revision};
use crate::{
    config::{document::Document, shape::of_origin},
    control::{Edit, LeftOut, Rejected, Snapshot},
    domain::{Backend, Found, Kept, Name, Origin, Override, Service, Source},
};

/// One document that becomes another, appears or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) service: Name,
    /// Of what it is made from; 0: there is nothing.
    pub(super) before: Revision,
    /// `None`: it goes.
    pub(super) after: Option<Document>,
}

/// What members found by themselves, which an edit may be about.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundHere {
    found: BTreeMap<Name, BTreeMap<Source, Found>>,
    left_out: BTreeMap<Name, Vec<LeftOut>>,
}

impl FoundHere {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut here = Self::default();
        for view in snapshot.services.iter().filter(|view| !view.sources.is_empty()) {
            let sources = view.sources.iter().map(|of| (of.source.clone(), of.backends.clone()));
            here.found.insert(view.service.name.clone(), sources.collect());
            here.left_out.insert(view.service.name.clone(), view.left_out.clone());
        }
        here
    }
}

/// What `edit` makes of the documents; `None` where it changes nothing.
///
/// # Errors
///
/// It can't be made.
pub(super) fn change(edit: &Edit, book: &Book, here: &FoundHere) -> Result<Option<Change>, Rejected> {
    // Of what is no service's each host decides for itself.
    let Some(service) = edit.service() else { return Ok(None) };
    let page = book.page(service.as_str());
    if let Some(wrong) = page.and_then(|page| page.wrong.as_deref()) {
        let message = format!(
            "the document of service {service} in etcd makes no sense, and what went before goes on: {wrong}\n\
             mend it in etcd, or put another in its place with `ballast fleet import --replace FILE`"
        );
        return Err(Rejected::Invalid { field: format!("service.{service}"), message });
    }
    let Declared { services, overrides } = book.declared();
    let made = Kept { services, overrides, found: here.found.clone(), ..Kept::default() };
    let kept = match edit {
        // To be told from one that is there by what it is, and not by who made it.
        Edit::AddService(new) => {
            let new = of_origin(Service::clone(new), &Origin::Fleet);
            Edit::AddService(Box::new(new)).apply_to_made(&made, &here.left_out)?
        }
        edit => edit.apply_to_made(&made, &here.left_out)?,
    };
    let document = |of: &Kept| {
        let made = of.services.get(service)?.clone();
        let overrides = of.overrides.get(service).cloned().unwrap_or_default();
        Some(Document { service: of_origin(made, &Origin::Fleet), overrides })
    };
    let (before, after) = (document(&made), document(&kept));
    let change = Change { service: service.clone(), before: page.map_or(0, |page| page.revision), after };
    Ok((before != change.after).then_some(change))
}

/// The services with a change.
pub(super) fn changed(book: &Book, Change { service, after, .. }: &Change) -> Declared {
    let mut declared = book.declared();
    declared.overrides.remove(service);
    match after {
        None => drop(declared.services.remove(service)),
        Some(document) => {
            declared.services.insert(service.clone(), document.service.clone());
            if !document.overrides.is_empty() {
                declared.overrides.insert(service.clone(), document.overrides.clone());
            }
        }
    }
    declared
}

/// What an edit is about, as it is: while it is the same, the edit may be made on what somebody else made of the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// The settings of a service, or that there is none.
    Service(Option<Box<Service>>),
    /// All of a service.
    Whole(Option<Box<Document>>),
    /// A backend with what is set over it, and whether there is its service.
    Backend { service: bool, backend: Option<Box<Backend>>, over: Override },
}

pub(super) fn touched(edit: &Edit, book: &Book) -> Touched {
    let page = edit.service().and_then(|service| book.page(service.as_str()));
    let document = page.and_then(|page| Some(&page.good.as_ref()?.document));
    match edit {
        Edit::Announce { .. } => Touched::Service(None),
        Edit::AddService(_) | Edit::SetService { .. } => Touched::Service(
            document
                .map(|document| Box::new(Service { backends: BTreeMap::new(), ..document.service.clone() })),
        ),
        Edit::RemoveService(_) => Touched::Whole(document.cloned().map(Box::new)),
        Edit::AddBackend { backend: Backend { name: backend, .. }, .. }
        | Edit::RemoveBackend { backend, .. }
        | Edit::SetWeight { backend, .. }
        | Edit::SetAdmin { backend, .. }
        | Edit::Reset { backend, .. } => Touched::Backend {
            service: document.is_some(),
            backend: document
                .and_then(|document| document.service.backends.get(backend))
                .cloned()
                .map(Box::new),
            over: document.and_then(|document| document.overrides.get(backend)).copied().unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            Admin,
            testing::{name, service},
        },
        fleet::book::Good,
    };

    fn book(weight: u16) -> Book {
        let service = of_origin(service("web", &[("a", weight), ("b", 1)]), &Origin::Fleet);
        let document = Document { service, overrides: BTreeMap::new() };
        let good = Good { revision: 5, text: document.write().expect("written"), document };
        Book::of(6, "a", [("web".to_owned(), good)])
    }

    fn made(edit: &Edit, book: &Book) -> Result<Option<Change>, Rejected> {
        change(edit, book, &FoundHere::default())
    }

    fn admin(backend: &str, admin: Admin) -> Edit {
        Edit::SetAdmin { service: name("web"), backend: name(backend), admin }
    }

    #[test]
    fn what_is_set_over_a_backend_stands_in_its_services_document() {
        let change = made(&admin("a", Admin::Draining), &book(1)).expect("it can be").expect("a change");
        assert_eq!((change.service.as_str(), change.before), ("web", 5));
        let document = change.after.clone().expect("it stays");
        let over = Override { weight: None, admin: Some(Admin::Draining) };
        assert_eq!(document.overrides, [(name("a"), over)].into());
        assert_eq!(changed(&book(1), &change).overrides[&name("web")][&name("a")], over);
        // And back.
        let good = Good { revision: 7, text: String::new(), document };
        let book = Book::of(7, "a", [("web".to_owned(), good)]);
        let reset = Edit::Reset { service: name("web"), backend: name("a") };
        let change = made(&reset, &book).expect("it can be").expect("a change");
        assert!(change.after.expect("it stays").overrides.is_empty());
    }

    #[test]
    fn a_weight_is_changed_where_it_stands_and_what_is_so_already_is_no_change() {
        let weight = |weight| Edit::SetWeight { service: name("web"), backend: name("a"), weight };
        let change = made(&weight(7), &book(1)).expect("it can be").expect("a change");
        let document = change.after.expect("it stays");
        assert_eq!(document.service.backends[&name("a")].weight, 7);
        assert!(document.overrides.is_empty());
        assert_eq!(made(&weight(1), &book(1)).expect("it can be"), None);
        assert_eq!(made(&admin("a", Admin::Active), &book(1)).expect("it can be"), None);
    }

    #[test]
    fn services_and_backends_are_added_and_removed_with_their_origin() {
        let new = of_origin(service("dns", &[("a", 1)]), &Origin::Cli);
        let change = made(&Edit::AddService(Box::new(new)), &book(1)).expect("it can be").expect("a change");
        assert_eq!(change.before, 0);
        let added = change.after.expect("it is there").service;
        assert!(
            added.origin == Origin::Fleet && added.backends.values().all(|one| one.origin == Origin::Fleet)
        );
        let backend = Backend { name: name("c"), origin: Origin::Cli, ..added.backends[&name("a")].clone() };
        let add = Edit::AddBackend { service: name("web"), backend };
        let grown = made(&add, &book(1)).expect("it can be").expect("a change").after.expect("it stays");
        assert_eq!(grown.service.backends.len(), 3);
        let remove = Edit::RemoveBackend { service: name("web"), backend: name("a") };
        let left = made(&remove, &book(1)).expect("it can be").expect("a change").after.expect("it stays");
        assert_eq!(left.service.backends.keys().map(Name::as_str).collect::<Vec<_>>(), ["b"]);
        let gone = made(&Edit::RemoveService(name("web")), &book(1)).expect("it can be").expect("a change");
        assert_eq!(gone.after, None);
        assert!(matches!(made(&Edit::RemoveService(name("no")), &book(1)), Err(Rejected::Missing { .. })));
        let twice = Edit::AddService(Box::new(of_origin(service("web", &[("z", 1)]), &Origin::Cli)));
        assert!(matches!(made(&twice, &book(1)), Err(Rejected::Exists { .. })));
    }

    #[test]
    fn only_a_change_of_the_same_object_is_in_the_way() {
        let drain = admin("b", Admin::Draining);
        // Somebody has changed the other backend's weight.
        assert_eq!(touched(&drain, &book(1)), touched(&drain, &book(9)));
        assert_ne!(
            touched(&admin("a", Admin::Draining), &book(1)),
            touched(&admin("a", Admin::Draining), &book(9))
        );
        let remove = Edit::RemoveService(name("web"));
        assert_ne!(touched(&remove, &book(1)), touched(&remove, &book(9)));
        assert_ne!(touched(&drain, &book(1)), touched(&drain, &Book::default()));
    }
}
