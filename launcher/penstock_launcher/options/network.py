"""Where and how the server listens."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import address, integer, number, path, route
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Network:
    hostname: str = option(
        "0.0.0.0",
        address(),
        "Address to listen on; `::` is all of IPv6 and IPv4. Docker sets HOSTNAME to the "
        "container's id: a value in the environment that is not an IP address means 0.0.0.0",
        env_fallback="0.0.0.0",
    )
    port: int = option(
        3000,
        integer(0, 65_535),
        "Port to listen on; 0: a free one",
        short="-p",
        overrides=("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"),
    )
    uds: str | None = option(
        None,
        path(),
        "Unix socket to listen at instead of hostname and port; its user and group may connect",
        default_text="hostname and port",
    )
    root_path: str = option(
        "",
        route(),
        "Prefix behind which a proxy shows the server, such as /llm; requests may come with it or "
        "without",
        default_text="none",
    )
    predict_route: str | None = option(
        None,
        route(),
        "A further path for what /vertex does; a path that exists keeps its meaning",
        also=("AIP_PREDICT_ROUTE",),
    )
    health_route: str | None = option(
        None, route(), "A further path for what /health says", also=("AIP_HEALTH_ROUTE",)
    )
    http_processes: int | None = option(
        None,
        integer(0, 64),
        "Processes that serve HTTP and text in front of the one that schedules; 0: that one does",
        default_text="0 on a CPU; beside GPUs one for each 5 CPU cores, 2 to 4, else 0",
    )
    validation_workers: int = option(
        2,
        integer(1, 256),
        "Threads that tokenise and validate requests, in each process that serves HTTP",
    )
    graceful_termination_timeout: float = option(
        90.0,
        number(0, 86_400),
        "Seconds that running requests get to finish after SIGTERM",
        short="-g",
    )
    drain_delay: float = option(
        5.0,
        number(0, 3600),
        "Seconds after SIGTERM in which requests are taken while /ready answers 503, so that "
        "balancers look away; at most half the grace period",
    )
