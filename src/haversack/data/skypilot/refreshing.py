"""Ask for clusters anew, so that one whose cloud fails or hangs hides the news of no other.

SkyPilot's server asks for all clusters of a request at a time (sky/backends/backend_utils.py, ``get_clusters``), and
answers when the last of them is done.  Where a cloud fails in a way that it expects, or somebody else is at the
cluster, it gives what it knew before and does not say so; where a cloud fails in another way, it answers nothing; where
one hangs, it does not answer.  What it found of the others stands in its records all the same.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haversack.data.skypilot import asking
else:
    import asking

AT_ONCE = 2
"""Requests under way at a time: each takes one of the server's workers for long requests, which launches need too."""
_ROUNDS = 6
"""The least part of the time that a round has: 24 of the unit's 240 seconds.  The server waits 20 for whoever else is
at a cluster before it gives what it knew."""
_LIST = 20.0
_TOLD = 20


@dataclass(frozen=True)
class News:
    """A cluster, and why it is not refreshed: ``kept``, ``slow`` or ``failed``, with a reason for the log; None: it is.

    What these words mean is in docs/spec/skypilot-service.md.
    """

    cluster: asking.Cluster
    failure: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Refreshed:
    """What became of all clusters, by name; those that are gone are not among them.

    ``problem`` is `asking.Unanswered` where the server went meanwhile; else what the last request failed of, where nothing
    is refreshed and no request was answered.
    """

    news: dict[str, News]
    problem: BaseException | None = None


def refresh(
    asked: asking.Asked, known: Iterable[asking.Cluster], doubted: Container[str], seconds: float
) -> Refreshed:
    """Ask for clusters anew for so many seconds at most: those that were refreshed the last time in one request.

    Those in ``doubted`` are asked for beside them, in another.  Of a request that fails, or is late, those clusters
    that were not refreshed are halved and asked for again.  Where the server itself is to blame nobody is asked for any
    more; raises `asking.Unanswered` if nothing was refreshed until then.
    """
    end, least = min(asking.now() + seconds, asked.until), seconds / _ROUNDS
    listed = sorted(known, key=_place)
    news = {cluster.name: News(cluster, "slow") for cluster in listed}
    waiting = deque(_parts(listed, doubted))
    answered, problem, gone = not listed, None, None
    while waiting and gone is None and (left := end - asking.now()) > 1.0:
        groups = [waiting.popleft() for _ in range(min(AT_ONCE, len(waiting)))]
        answers = asked.gather(
            *(_again(asked, group) for group in groups), most=max(left / 2, least), end=end
        )
        for group, answer in zip(groups, answers, strict=True):
            if not isinstance(answer, BaseException):
                answered = True
                _told(news, group, map(asking.cluster_of, answer), "kept")
                continue
            problem, word = answer, "slow" if isinstance(answer, asking.Late) else "failed"
            gone = gone or _gone()
            if gone is None:
                names = [cluster.name for cluster in group]
                (now,) = asked.gather(partial(asked.sdk.status, names, all_users=True), most=_LIST, end=end)
                if not isinstance(now, BaseException):
                    _told(news, group, map(asking.cluster_of, now), word)
            reason = asking.plain(answer, 160) if word == "failed" else ""
            rest = [cluster for cluster in group if cluster.name in news and news[cluster.name].failure]
            for cluster in rest:
                news[cluster.name] = replace(news[cluster.name], failure=word, reason=reason)
            if len(group) > 1:
                half = (len(rest) + 1) // 2
                waiting.extend(part for part in (rest[:half], rest[half:]) if part)
    refreshed = any(one.failure is None for one in news.values())
    if gone is not None and not refreshed:
        raise gone
    if gone is not None or answered or refreshed or not news:
        return Refreshed(news, gone)
    return Refreshed(news, problem or asking.Late())


def _gone() -> asking.Unanswered | None:
    """What is wrong with the server, if anything: a cloud's errors have the names of the network's."""
    try:
        asking.health(os.environ.get(asking.ENDPOINT, ""), 5.0)
    except asking.Unanswered as problem:
        return problem
    return None


def _place(cluster: asking.Cluster) -> tuple[str, str, str]:
    """Clusters of one place beside each other: what fails there, fails together."""
    return cluster.cloud or "", cluster.region or "", cluster.name


def _parts(listed: Sequence[asking.Cluster], doubted: Container[str]) -> Iterable[list[asking.Cluster]]:
    parts = [c for c in listed if c.name not in doubted], [c for c in listed if c.name in doubted]
    return filter(None, parts)


def _again(asked: asking.Asked, group: Iterable[asking.Cluster]) -> partial[object]:
    names = [cluster.name for cluster in group]
    return partial(asked.sdk.status, names, refresh=asking.forced(), all_users=True)


def _told(
    news: dict[str, News],
    group: Iterable[asking.Cluster],
    records: Iterable[asking.Cluster],
    otherwise: str,
) -> None:
    """Take over what is told of a group: what is not told of is gone, and what is as it was has a word for it."""
    found = {cluster.name: cluster for cluster in records}
    for before in group:
        now = found.get(before.name)
        if now is None:
            del news[before.name]
        else:
            news[before.name] = News(now, None if asking.renewed(before, now) else otherwise)


def say(news: Iterable[News]) -> None:
    """One line to standard error of the clusters that are not refreshed; none where there are none."""
    bad = sorted((one for one in news if one.failure), key=lambda one: one.cluster.name)
    if not bad:
        return
    told = [
        f"{asking.plain(one.cluster.name, 64)} ({one.failure}{f': {one.reason}' if one.reason else ''})"
        for one in bad[:_TOLD]
    ]
    more = f", and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
    sys.stderr.write(f"Not refreshed: {', '.join(told)}{more}.\n")
