//! Ballast as a service: what it tells the service manager, and its packages from installation to purge.

mod guide;
mod life;
mod manager;
mod unit;
