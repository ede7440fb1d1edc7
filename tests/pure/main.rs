//! What needs no mounts and no privileges: the grammar, the resolver, the planner and the parsers.

mod closure;
mod corpus;
mod defaults;
mod instances;
mod manifests;
mod planner;
mod resolve;
mod schema;
mod structure;
