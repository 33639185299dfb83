"""A pytest plugin: with RECONCILER_CI=1 a skipped test, or a skipped module, is a failure.

A test that cannot run on a machine must not look like one that passed there.
"""

import os
from collections.abc import Generator

import pytest


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("RECONCILER_CI") == "1":
        place = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: nothing may be skipped here (RECONCILER_CI=1): {place}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Each stage of a test: set-up, call, tear-down."""
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Each module: `pytest.skip(allow_module_level=True)` and `importorskip`."""
    report = yield
    _refuse(report)
    return report
