"""The laboratory of the faults, and a table of verdicts.

``APDET_FAULTS_TABLE=file.md python -m pytest tests/faults`` writes the table.
"""

import os
from pathlib import Path

import pytest
from faults.laboratory import Laboratory


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    return Laboratory(tmp_path_factory.mktemp("faults"))


def pytest_terminal_summary(terminalreporter):
    path = os.environ.get("APDET_FAULTS_TABLE")
    if not path:
        return
    reports = [r for kind in terminalreporter.stats.values() for r in kind]
    rows = [dict(r.user_properties) for r in reports if hasattr(r, "user_properties")]
    lines = [
        f"| {row['kind']} | {row['name']} | {row['exit_code']} | {row['verdict']} |"
        for row in sorted((r for r in rows if "verdict" in r), key=lambda r: r["number"])
    ]
    header = ["| kind | fault | exit code | verdict |", "|---|---|---|---|"]
    Path(path).write_text("\n".join([*header, *dict.fromkeys(lines)]) + "\n")
