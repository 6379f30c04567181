//! The kernel's routing tables, over netlink: what is there of this daemon's, one more, one less.

use std::{collections::BTreeSet, io, net::IpAddr};

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::net::if_::if_nametoindex;
use rtnetlink::{Handle, MulticastGroup};

use super::plan::OwnRoute;
use crate::neighbour::{host_length, host_route};

/// Questions and orders to the kernel of the network namespace it was made in.
pub(super) struct Routes {
    handle: Handle,
}

/// The environment's fault.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RouteError {
    #[error("no netlink socket: {0}")]
    Socket(String),
    #[error("there is no interface {0}")]
    NoDevice(String),
    /// In the same table, with the same metric.
    #[error("somebody else has the same route")]
    Exists,
    #[error("{operation} failed: {why}")]
    Request { operation: &'static str, why: String },
}

impl Routes {
    pub(super) fn new() -> Result<Self, RouteError> {
        // The kernel does what a question asks for, and does not just list everything.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check().map_err(no_socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Routes of these protocol numbers, in all tables.
    pub(super) async fn list(&self, protocols: &BTreeSet<u8>) -> Result<BTreeSet<OwnRoute>, RouteError> {
        let mut found = BTreeSet::new();
        for &protocol in protocols {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let mut question = RouteMessage::default();
                question.header.address_family = family;
                question.header.protocol = protocol.into();
                let mut routes = std::pin::pin!(self.handle.route().get(question).execute());
                while let Some(message) = routes.try_next().await.map_err(failed("listing routes"))? {
                    found.extend(own(&message).filter(|route| route.protocol == protocol));
                }
            }
        }
        Ok(found)
    }

    /// Never takes the place of another route.
    pub(super) async fn add(&self, route: OwnRoute) -> Result<(), RouteError> {
        let message = match route.device {
            None => message(route, RouteType::BlackHole, RouteScope::Universe),
            Some(device) => {
                let mut message = message(route, RouteType::Unicast, RouteScope::Link);
                message.attributes.push(RouteAttribute::Oif(device));
                message
            }
        };
        let added = self.handle.route().add(message).execute().await;
        added.map_err(|error| match code(&error) {
            Some(libc::EEXIST) => RouteError::Exists,
            _ => failed("adding a route")(error),
        })
    }

    /// One that is gone is fine. Of others nothing is touched: the kernel compares the protocol number, too.
    pub(super) async fn remove(&self, route: OwnRoute) -> Result<(), RouteError> {
        let message = message(route, RouteType::Unspec, RouteScope::NoWhere);
        match self.handle.route().del(message).execute().await {
            Err(error) if code(&error) != Some(libc::ESRCH) => Err(failed("removing a route")(error)),
            _ => Ok(()),
        }
    }
}

/// Tells whenever a route of this protocol number has gone, or something that takes routes along silently may have changed; ends
/// when the connection is lost.
pub(super) fn losses(protocol: u8) -> Result<BoxStream<'static, ()>, RouteError> {
    let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&GROUPS).map_err(no_socket)?;
    tokio::spawn(connection);
    let is_loss = move |payload: &NetlinkPayload<RouteNetlinkMessage>| match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(message)) => {
            message.header.protocol == RouteProtocol::from(protocol)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_))
        | NetlinkPayload::Overrun(_) => true,
        _ => false,
    };
    let losses = messages.filter_map(move |(message, _)| {
        let is_loss = is_loss(&message.payload);
        async move { is_loss.then_some(()) }
    });
    Ok(losses.boxed())
}

/// The kernel's number of a device.
pub(super) fn device(name: Option<&str>) -> Result<Option<u32>, RouteError> {
    let index = |name: &str| if_nametoindex(name).map_err(|_| RouteError::NoDevice(name.to_owned()));
    name.map(index).transpose()
}

/// Removes all routes of a protocol number, for when nobody forwards any more. Returns what they were for. Not for an
/// asynchronous task.
///
/// # Errors
///
/// See [`RouteError`]; some may be gone then.
pub fn withdraw_all(protocol: u8) -> Result<BTreeSet<IpAddr>, RouteError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(no_socket)?.block_on(async {
        let routes = Routes::new()?;
        let mut gone = BTreeSet::new();
        for route in routes.list(&[protocol].into()).await? {
            routes.remove(route).await?;
            gone.insert(route.prefix);
        }
        Ok(gone)
    })
}

fn message(route: OwnRoute, kind: RouteType, scope: RouteScope) -> RouteMessage {
    let OwnRoute { prefix, protocol, table, metric, .. } = route;
    let route = host_route(prefix).protocol(protocol.into()).table_id(table).priority(metric);
    route.kind(kind).scope(scope).build()
}

/// `None`: of a family or form that this daemon makes none of, whoever uses its number.
fn own(message: &RouteMessage) -> Option<OwnRoute> {
    let header = &message.header;
    let foreign = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    };
    if !matches!(header.kind, RouteType::BlackHole | RouteType::Unicast)
        || message.attributes.iter().any(foreign)
    {
        return None;
    }
    let (mut prefix, mut metric, mut table, mut device) = (None, 0, u32::from(header.table), None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => prefix = Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => prefix = Some(IpAddr::V6(*address)),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    let prefix = prefix?;
    if header.destination_prefix_length != host_length(prefix) {
        return None;
    }
    Some(OwnRoute {
        prefix,
        protocol: header.protocol.into(),
        table,
        metric,
        // The kernel names a device of its own with IPv6's.
        device: device.filter(|_| header.kind != RouteType::BlackHole),
    })
}

fn no_socket(error: io::Error) -> RouteError {
    RouteError::Socket(error.to_string())
}

fn failed(operation: &'static str) -> impl FnOnce(rtnetlink::Error) -> RouteError {
    move |error| {
        let why = match &error {
            rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
            other => other.to_string(),
        };
        RouteError::Request { operation, why }
    }
}

/// What the kernel says, as errno(3).
fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

const GROUPS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
