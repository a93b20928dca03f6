"""What a worker counts, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter("tenuto_usage_requests", "Requests about usage that a lane answered.")
REFUSED: Final = Counter("tenuto_usage_refused", "Requests about usage that the gate refused with 402.")
BATCH_EVENTS: Final = Histogram(
    "tenuto_lane_batch_events",
    "Events a lane saved together.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 4000),
)
BATCH_SECONDS: Final = Histogram(
    "tenuto_lane_batch_seconds",
    "Seconds from taking a batch to its commit.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
STALE: Final = Counter("tenuto_lane_stale", "Batches that had to be decided anew because something had changed.")
WAITING: Final = Gauge("tenuto_lane_waiting", "Events that wait in the lanes.")
SWEPT: Final = Counter("tenuto_swept", "Due things done by the clockwork.", ["sweep"])
PAYMENTS: Final = Counter("tenuto_payments_total", "Payments by reason and what became of them.", ("reason", "status"))
