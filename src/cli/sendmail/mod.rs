//! x
mod address_list;
mod message;
mod options;
