"""What holds for every test."""

from __future__ import annotations

import os

import pytest

from tests.support.skypilot import sky as sky

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped."""
    if report.skipped:
        _skipped.append(
            f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else ''}"
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed, nothing may be skipped: a test that did not run proves nothing."""
    if os.environ.get("CI") and _skipped and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a run with skips failed."""
    if os.environ.get("CI") and _skipped:
        terminalreporter.section("unexpected skips", red=True)
        for line in _skipped:
            terminalreporter.line(line)
