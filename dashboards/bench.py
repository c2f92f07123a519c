"""How long the server takes to answer a moved control: `python -m dashboards.bench`. Processor time and time by the clock.

Sends what a browser sends, without one. The first answer of a page reads files and compiles; the others are what a reader
waits for.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from dashboards.app import build
from dashboards.controls import CONTROLS
from dashboards.pages import pages
from dashboards.state import parse, value_of

HOST = {"Host": "127.0.0.1"}
MOVES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "/": ("batch", tuple(2**i for i in range(10))),
    "/roofline": ("batch", tuple(2**i for i in range(10))),
    "/compare": ("batch", tuple(2**i for i in range(10))),
    "/timeline": ("batch", tuple(2**i for i in range(10))),
    "/paper": ("paper", ("duo-attention", "flash-attention-2", "duo-attention", "flash-attention-2")),
    "/fleet": ("rate", (20.0, 21.0, 22.0)),
    "/accuracy": ("device", ("all", "h100-sxm5-80gb", "a100-sxm4-40gb")),
}
"""Page -> the control that is moved, and where to."""


def ask(client: Any, path: str, changes: dict[str, Any], search: str = "", pressed: str = "") -> Any:
    """What a page's callback answers to controls that say `changes` after a link was opened, or to a button."""
    page = pages()[path]
    state, _ = parse(search)
    values = {key: list(v) if isinstance(v := value_of(state, key), tuple) else v for key in page.keys} | changes
    nav = [{"nav": other} for other in pages()]
    actions = [{"action": name} for name in (("pin", "unpin") if page.pins else ())]
    ids = [{"control": key, "count": "yes" if CONTROLS[key].kind == "count" else "no"} for key in values]
    moved: list[dict[str, str]] = [{"action": pressed}] if pressed else [
        identity for identity in ids if identity["control"] in changes
    ][:1]  # fmt: skip
    trigger = "n_clicks" if pressed else "value"
    body = {
        "output": '..results.children...address.data...{"nav":["ALL"]}.href...{"action":["ALL"]}.disabled..',
        "outputs": [
            {"id": "results", "property": "children"}, {"id": "address", "property": "data"},
            [{"id": item, "property": "href"} for item in nav], [{"id": item, "property": "disabled"} for item in actions],
        ],
        "inputs": [
            [{"id": i, "property": "value", "value": value} for i, value in zip(ids, values.values(), strict=True)],
            [{"id": i, "property": "n_clicks", "value": int(i["action"] == pressed)} for i in actions],
        ],
        "state": [
            [{"id": i, "property": "id", "value": i} for i in ids],
            [{"id": i, "property": "id", "value": i} for i in actions],
            [{"id": i, "property": "id", "value": i} for i in nav],
            {"id": "address", "property": "data", "value": ""},
            {"id": "url", "property": "search", "value": search},
            {"id": "shown", "property": "data", "value": f"{path}?{search}"},
            {"id": "screen", "property": "data", "value": "wide"},
        ],
        "changedPropIds": [f"{json.dumps(item, separators=(',', ':'), sort_keys=True)}.{trigger}" for item in moved],
    }  # fmt: skip
    response = client.post("/_dash-update-component", json=body, headers=HOST)
    if response.status_code != 200:
        raise RuntimeError(response.text[:500])
    return response.get_json()["response"]


def main() -> None:
    """Print a line per page."""
    client = build().server.test_client()
    print(f"{'page':<12}{'moved':<10}{'first, ms':>12}{'median, ms':>12}{'worst, ms':>12}{'by the clock, ms':>18}")
    for path, (key, moves) in MOVES.items():
        used, passed = [], []
        for value in moves:
            cpu, clock = time.process_time(), time.perf_counter()
            ask(client, path, {key: value})
            used.append((time.process_time() - cpu) * 1e3)
            passed.append((time.perf_counter() - clock) * 1e3)
        rest, walls = used[1:], passed[1:]
        print(
            f"{path:<12}{key:<10}{used[0]:>12.0f}{statistics.median(rest):>12.0f}{max(rest):>12.0f}"
            f"{statistics.median(walls):>18.0f}"
        )


if __name__ == "__main__":
    main()
