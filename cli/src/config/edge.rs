//! The settings of a server's listeners: the same for coordinator and participant.

use assent_common::time::DurationMs;
use assent_edge::EdgeOptions;

use super::Layers;

/// One layer of them.
#[derive(Debug, Default)]
pub(super) struct EdgeLayer {
    pub(super) header_timeout: Option<DurationMs>,
    pub(super) body_timeout: Option<DurationMs>,
    pub(super) idle_timeout: Option<DurationMs>,
    pub(super) connections_max: Option<usize>,
    pub(super) request_bytes_max: Option<usize>,
    pub(super) allowed_hosts: Vec<String>,
}

/// Merges the layers; in the order in which they are shown.
pub(super) fn resolve(layers: &mut Layers<'_>, args: EdgeLayer, file: EdgeLayer) -> EdgeOptions {
    let defaults = EdgeOptions::default();
    let ms = DurationMs;
    EdgeOptions {
        header_timeout_ms: layers
            .value(
                "header_timeout",
                args.header_timeout,
                file.header_timeout,
                ms(defaults.header_timeout_ms),
            )
            .0,
        body_timeout_ms: layers
            .value(
                "body_timeout",
                args.body_timeout,
                file.body_timeout,
                ms(defaults.body_timeout_ms),
            )
            .0,
        idle_timeout_ms: layers
            .value(
                "idle_timeout",
                args.idle_timeout,
                file.idle_timeout,
                ms(defaults.idle_timeout_ms),
            )
            .0,
        connections_max: layers.value(
            "connections_max",
            args.connections_max,
            file.connections_max,
            defaults.connections_max,
        ),
        request_bytes_max: layers.value(
            "request_bytes_max",
            args.request_bytes_max,
            file.request_bytes_max,
            defaults.request_bytes_max,
        ),
        allowed_hosts: layers.list("allowed_hosts", args.allowed_hosts, file.allowed_hosts),
        ..defaults
    }
}
