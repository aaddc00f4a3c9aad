"""What a server counts, in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import get_args

from haversack.model.artifact import Digest
from haversack.serving.room import Loss

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)


class Metrics:
    """Counters of one process, since it began.  Changed by the thread of the event loop alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.bytes: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.lost: Counter[Loss] = Counter()
        self.in_flight = 0
        self.damaged: set[Digest] = set()
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    def count(self, view: str, status: int, sent: int, seconds: float) -> None:
        """One answer."""
        self.requests[view, status] += 1
        self.bytes[view] += sent
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def page(self, *, connections: int, accepted: int, remembered: int, snapshot: tuple[str, str]) -> bytes:
        """Everything; ``snapshot`` is name and digest of the current one, ``remembered`` the bytes of ready answers."""
        lines: list[str] = []

        def family(name: str, kind: str, told: str, values: dict[str, float]) -> None:
            lines.extend([f"# HELP haversack_{name} {told}", f"# TYPE haversack_{name} {kind}"])
            lines.extend(f"haversack_{name}{labels} {value:.10g}" for labels, value in values.items())

        family(
            "http_requests_total",
            "counter",
            "Requests answered, by view and status.",
            {_labels(view=view, code=str(code)): n for (view, code), n in sorted(self.requests.items())},
        )
        family(
            "http_sent_bytes_total",
            "counter",
            "Bytes of bodies sent, by view.",
            {_labels(view=view): n for view, n in sorted(self.bytes.items())},
        )
        name = "http_request_duration_seconds"
        lines.append(f"# HELP haversack_{name} From the head of a request to the last byte of its answer.")
        lines.append(f"# TYPE haversack_{name} histogram")
        total = 0
        for bound, n in zip((*map(str, _BOUNDS), "+Inf"), self._buckets, strict=True):
            total += n
            lines.append(f"haversack_{name}_bucket{_labels(le=bound)} {total}")
        lines += [f"haversack_{name}_sum {self._seconds:.6f}", f"haversack_{name}_count {total}"]
        family(
            "logins_refused_total",
            "counter",
            "Logins that were wrong, or not enough, by status.",
            {_labels(code=code): n for code, n in sorted(self.refused.items())},
        )
        family("http_in_flight", "gauge", "Requests that are being answered.", {"": self.in_flight})
        family("connections", "gauge", "Open connections.", {"": connections})
        family("connections_accepted_total", "counter", "Connections accepted.", {"": accepted})
        family(
            "connections_lost_total",
            "counter",
            "Connections that there was no room for: let go idle or with no whole head, or refused.",
            {_labels(state=state): self.lost[state] for state in get_args(Loss)},
        )
        family("answers_remembered_bytes", "gauge", "Ready answers in memory.", {"": remembered})
        family("blobs_damaged", "gauge", "Blobs found damaged since the start.", {"": len(self.damaged)})
        if snapshot[0]:
            labels = _labels(name=snapshot[0], digest=snapshot[1])
            family("snapshot_info", "gauge", "The current snapshot.", {labels: 1})
        return "".join(f"{line}\n" for line in lines).encode()


def _labels(**values: str) -> str:
    def plain(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{plain(value)}"' for name, value in values.items()) + "}"
