//! The route to one address, in messages to the kernel: alike for both families.

use std::net::IpAddr;

use netlink_packet_route::{AddressFamily, route::RouteAttribute};
use rtnetlink::RouteMessageBuilder;

/// The bits of an address.
pub(crate) const fn host_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// A message about the route to this address and no other.
pub(crate) fn host_route(address: IpAddr) -> RouteMessageBuilder<IpAddr> {
    let mut builder = RouteMessageBuilder::<IpAddr>::new();
    let message = builder.get_mut();
    message.header.address_family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = host_length(address);
    message.attributes.push(RouteAttribute::Destination(address.into()));
    builder
}
