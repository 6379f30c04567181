//! A pair without routers: keepalived moves the VIPs between two load balancers, and connections notice nothing of it.

mod keepalived;
mod pair;
