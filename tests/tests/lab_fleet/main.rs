//! Several load balancers whose services are in a real etcd: what one changes is live on all, and whatever becomes of etcd,
//! forwarding goes on.

mod documents;
mod leave;
mod losses;
mod scene;
mod secured;
