"""Small studies without their tables, figures and page, for tests that look at none of them."""

from __future__ import annotations

import pytest


def without_report(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, ``pareto.main`` of this process writes no report and no page."""
    from study.reports import html, report_files

    patch.setattr(report_files, "write_report", lambda *args, **more: None)
    patch.setattr(html, "write_page", lambda *args, **more: 0)
