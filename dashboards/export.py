"""A block's numbers as CSV and as JSON, for files and other programs."""

from __future__ import annotations

import csv
import io

from dashboards.answer import Block
from simulator.views.records import to_json


def exported(block: Block, form: str) -> str | None:
    """The block as `csv` or `json`; None where it has no such form."""
    if form == "json":
        return None if block.data is None else to_json(block.data) + "\n"
    if not block.records:
        return None
    columns = list(dict.fromkeys(key for record in block.records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in record.items()} for record in block.records)
    return text.getvalue()


def _cell(value: object) -> object:
    """A leading `=`, `+`, `@` in text would be a formula to a spreadsheet."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "@", "-") and len(value) > 1 else value
