//! Flow replication: two load balancers with the same services, and traffic that goes from one to the other in the middle of
//! changes.

mod ecmp;
mod failover;
mod hostile;
mod joiner;
mod lag;
mod scene;
mod steady;
mod verdicts;
