"""Metrics for Prometheus. Each server has its own registry; importing registers nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server.

    The label `queue` is "image" or "text". The label `stage` is one of

    - read: decode an image and look for a prompt in its file
    - wait: wait in the queue before the models
    - encode: encode images
    - answer: encode texts, search, ask the members, and compose prompts
    - embed: encode the inputs of /v1/embed
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)

        self.requests = counter(
            "imprompt_requests", "Requests answered.", ["method", "route", "status"]
        )
        self.request_seconds = histogram(
            "imprompt_request_seconds",
            "Seconds from the first byte to the response.",
            ["route"],
            buckets=_SECONDS,
        )
        self.stage_seconds = histogram(
            "imprompt_stage_seconds", "Seconds spent in each stage.", ["stage"], buckets=_SECONDS
        )
        self.waiting = gauge("imprompt_queue_waiting", "Jobs waiting for a model.", ["queue"])
        self.batch_size = histogram(
            "imprompt_batch_size", "Jobs a model got in one batch.", ["queue"], buckets=_SIZES
        )
        self.errors = counter("imprompt_errors", "Error responses by kind.", ["kind"])
        self.held_bytes = gauge("imprompt_held_bytes", "Bytes of request bodies in memory.")
        self.ready = gauge("imprompt_ready", "1 when the models and the index are loaded.")
        self.swaps = counter(
            "imprompt_index_version_swaps", "Index versions put in service after the first."
        )
        self.swap_failures = counter(
            "imprompt_index_version_failures", "Published index versions that cannot be used."
        )
        self.withdrawals = counter(
            "imprompt_index_version_withdrawals",
            "Index versions taken out of service because their files changed.",
        )
        self.version = gauge(
            "imprompt_index_version", "1 for the index version in service.", ["version"]
        )

    def serve_version(self, name: str) -> None:
        """Mark `name` as the index version in service."""
        self.version.clear()
        self.version.labels(name).set(1)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as the stage `name`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).observe(perf_counter() - start)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
