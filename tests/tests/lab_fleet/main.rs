//! Several load balancers whose services are in a real etcd: what one changes is live on all, and whatever becomes of etcd,
//! forwarding goes on.

mod documents;
<<<<<<< HEAD
=======
mod etcd;
mod leave;
>>>>>>> 7a547e7
mod losses;
mod scene;
mod secured;
