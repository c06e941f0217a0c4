"""What every benchmark shares: where results go and how a table is printed and saved."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlml_hpe.threads import usable_cores

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Processor count and architecture, for the record beside every figure."""
    return f"{usable_cores()} cores, {platform.machine()}, Python {platform.python_version()}"


def development_data() -> Path:
    """Where the development data lie: ``NLML_HPE_TEST_DATA``, or ``../shared/data`` beside the checkout."""
    return Path(os.environ.get("NLML_HPE_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def report(
    name: str, title: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = (), save: bool = True
) -> None:
    """Print the rows as a Markdown table and ``save`` them, as Markdown and JSON, below ``results``."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"## {title}", "", f"{machine()}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    text = "\n".join([*lines, "", *notes]).rstrip() + "\n"
    print(text)
    if not save:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    record = {"title": title, "machine": machine(), "rows": list(rows), "notes": list(notes)}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def peak_memory_gb() -> float:
    """Peak resident memory of this process. Not getrusage: its figure survives exec from the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if value >= 0.5 else f"{value:.6f}"
    return str(value)
