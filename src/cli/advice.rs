//! The advice of `trace` and `why` for a site.

use crate::resolve::Desired;
use crate::site::pipeline::Pipeline;
use crate::trace::Advisor;

/// The advisor for the site of `desired`.
pub(super) fn advisor<'s>(pipeline: &'s Pipeline, desired: &'s Desired) -> Advisor<'s> {
    let context = &pipeline.context;
    Advisor {
        desired,
        host: &context.host,
        resolver: &pipeline.resolver,
        roots: context.roots(),
        presets: &context.presets,
    }
}
