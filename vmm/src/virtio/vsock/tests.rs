//! The device with a driver of our own in front and real sockets behind it.
//!
//! Everything runs on the test's thread: [`world::World`] lets the device handle what is due
//! until nothing is, so a test neither sleeps nor depends on time.

mod driver;
mod guest;
mod world;

mod closing;
mod fuzz;
mod hostile;
mod limits;
mod streams;
mod wakeups;
