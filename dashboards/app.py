"""The Dash application: its frame, the callbacks that turn controls into states and states into answers, and its limits.

Callbacks only translate; what a page says is decided by its pure function. Nothing outside this process is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dash import ALL, MATCH, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from flask import Flask, Response, abort, request

from dashboards import components, uploads
from dashboards.answer import Page, Screen
from dashboards.controls import control, text_of
from dashboards.export import exported
from dashboards.pages import answer_of, pages
from dashboards.state import changed, parse, query
from simulator.errors import SimulatorError

ASSETS = Path(__file__).resolve().parent / "assets"
MOST_REQUEST_BYTES = 12_000_000
EVERY = {"control": ALL, "count": ALL}
"""The ids of controls; a count has a slider beside it, whose id differs in its second key."""
SLIDER, COUNT = {"control": MATCH, "slider": "yes"}, {"control": MATCH, "count": "yes"}
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


def build(host: str = "127.0.0.1") -> Dash:
    """The application. `host` is what it will be bound to: on loopback, requests for other names are refused."""
    server = Flask("ridgeline")
    server.config["MAX_CONTENT_LENGTH"] = MOST_REQUEST_BYTES
    app = Dash(
        "ridgeline", server=server,  # type: ignore[arg-type]
        title="Ridgeline", assets_folder=str(ASSETS), serve_locally=True,
        suppress_callback_exceptions=True, update_title="", meta_tags=[
            {"name": "viewport", "content": "width=device-width, initial-scale=1"},
            {"name": "description", "content": "What a neural network costs to run, before anyone buys hardware."},
        ],
    )  # fmt: skip
    app.index_string = app.index_string.replace("<html>", '<html lang="en">')
    app.layout = _frame
    _callbacks(app)
    _routes(server)
    _limits(app, server, host)
    return app


def _frame() -> Any:
    links = [
        dcc.Link(page.name, href=page.path, id={"nav": path}, className="nav-link") for path, page in pages().items()
    ]
    return html.Div(
        [
            html.A("Skip to the results", href="#results", className="skip"),
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="address", data=""),
            dcc.Store(id="screen", data="wide"),
            dcc.Store(id="shown", data=""),
            html.Header(
                [html.A("Ridgeline", href="/", className="brand"),
                 html.Nav(links, className="nav", **components.attributes(aria_label="Pages"))],
                className="top",
            ),
            html.Main(id="page", className="page", tabIndex=-1),
            html.Div(id="quiet", hidden=True),
        ],
        className="frame",
    )  # fmt: skip


def _frame_of(page: Page, search: str, narrow: bool) -> Any:
    """A page's title and controls, and room for its results."""
    state, notices = parse(search)
    groups = [
        html.Fieldset([html.Legend(title), *(control(key, state) for key in keys)]) for title, keys in page.controls
    ]
    extras: list[Any] = []
    if page.pins:
        extras.append(
            html.Div(
                [html.Button("Pin as baseline", id={"action": "pin"}, n_clicks=0, className="button"),
                 html.Button("Unpin", id={"action": "unpin"}, n_clicks=0, className="button quiet-button",
                             disabled=state.pinned is None)],
                className="pins",
            )
        )  # fmt: skip
    if page.uploads:
        extras.append(_upload_boxes(page))
    return [
        html.Div([html.H1(page.title), html.P(page.lead, className="lead")], className="page-head"),
        html.Div(
            [
                html.Details(
                    [html.Summary("Controls", className="controls-summary"), *groups, *extras],
                    open=not narrow, className="controls",
                ),
                html.Div(
                    [html.Div([components.notice(text) for text in notices], id="link-notices"),
                     html.Div(id="results", className="results", tabIndex=-1, **components.attributes(aria_live="polite"))],
                    className="results-column",
                ),
            ],
            className="columns",
        ),
    ]  # fmt: skip


def _upload_boxes(page: Page) -> Any:
    boxes = [
        dcc.Upload(
            html.Button(f"Choose {uploads.KINDS[kind][0]}", className="button quiet-button", type="button"),
            id={"upload": kind}, accept=",".join(uploads.KINDS[kind][1]), max_size=uploads.LARGEST_TRACE_BYTES,
            className="upload",
        )
        for kind in page.uploads
    ]  # fmt: skip
    return html.Details(
        [html.Summary("Use a file of your own"),
         html.P("It stays on the machine that runs this dashboard, and is dropped when that ends.", className="quiet"),
         *boxes, html.Div(id="upload-said", role="status", **components.attributes(aria_live="polite"))],
        className="uploads",
    )  # fmt: skip


def _callbacks(app: Any) -> None:
    app.clientside_callback(
        ClientsideFunction("ridgeline", "screen"), Output("screen", "data"), Input("url", "pathname")
    )
    app.clientside_callback(
        ClientsideFunction("ridgeline", "address"), Output("quiet", "children"), Input("address", "data"),
        State("shown", "data"), prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("ridgeline", "slide"),
        Output(SLIDER, "value"), Output(COUNT, "value"), Input(SLIDER, "value"), Input(COUNT, "value"),
        prevent_initial_call=True,
    )  # fmt: skip
    app.callback(
        Output("page", "children"), Output("shown", "data"), Output({"nav": ALL}, "className"),
        Input("url", "pathname"), Input("url", "search"), Input("screen", "data"), State({"nav": ALL}, "id"),
    )(show_page)  # fmt: skip
    app.callback(
        Output("results", "children"), Output("address", "data"), Output({"nav": ALL}, "href"),
        Output({"action": ALL}, "disabled"),
        Input(EVERY, "value"), Input({"action": ALL}, "n_clicks"),
        State(EVERY, "id"), State({"action": ALL}, "id"), State({"nav": ALL}, "id"), State("address", "data"),
        State("url", "search"), State("shown", "data"), State("screen", "data"), prevent_initial_call=True,
    )(show_results)  # fmt: skip
    app.callback(
        Output("url", "search"), Output("upload-said", "children"),
        Input({"upload": ALL}, "contents"), State({"upload": ALL}, "filename"), State({"upload": ALL}, "id"),
        State("address", "data"), prevent_initial_call=True,
    )(take_upload)  # fmt: skip


def show_page(path: str | None, search: str | None, screen: str, nav: list[dict[str, str]]) -> tuple[Any, Any, Any]:
    """The controls of the page that an address names."""
    page = pages().get(path or "/")
    classes = ["nav-link nav-link-here" if item["nav"] == (path or "/") else "nav-link" for item in nav]
    if page is None:
        ways = html.Ul([html.Li(dcc.Link(found.name, href=found.path)) for found in pages().values()])
        lost = html.Div([html.H1("There is no such page"), html.P("There are these:"), ways], className="problem")
        return lost, "", classes
    return _frame_of(page, search or "", screen == "narrow"), f"{page.path}?{(search or '').lstrip('?')}", classes


def show_results(
    values: list[Any], clicks: list[int], ids: list[dict[str, str]], actions: list[dict[str, str]],
    nav: list[dict[str, str]], address: str, search: str | None, shown: str, screen: str,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """The answer to what the controls say, the address that reproduces it, and links that carry it to other pages."""
    path, _, first = shown.partition("?")
    page = pages().get(path or "/")
    if page is None or not ids:
        return no_update, no_update, [no_update] * len(nav), [no_update] * len(actions)
    # What the page's controls do not show comes from the address that it was opened with, then from its own last one.
    kept = address.partition("?")[2] if address.startswith(f"{path}#{first}?") else first
    pressed = ctx.triggered_id["action"] if ctx.triggered_id and "action" in ctx.triggered_id and any(clicks) else ""
    texts = {identity["control"]: text_of(value) for identity, value in zip(ids, values, strict=True)}
    state, notices = changed(parse(kept)[0], texts, pressed)
    found = query(state, page.keys)
    answer = answer_of(page, state, Screen(narrow=screen == "narrow"), notices)
    links = [f"{item['nav']}?{query(state)}" for item in nav]
    disabled = [item["action"] == "unpin" and state.pinned is None for item in actions]
    return components.results(answer, page, found), f"{path}#{first}?{found}", links, disabled


def take_upload(
    contents: list[str | None], names: list[str | None], ids: list[dict[str, str]], address: str
) -> tuple[Any, Any]:
    """Keep a file and show it; or say why not."""
    for content, name, identity in zip(contents, names, ids, strict=True):
        kind = identity["upload"]
        if not content or ctx.triggered_id not in (None, {"upload": kind}):
            continue
        try:
            taken = uploads.take(kind, name or "file", content)
        except SimulatorError as error:
            return no_update, html.Div([html.P(line) for line in str(error).splitlines()], className="problem")
        state, _ = parse(address.rpartition("?")[2])
        state, _ = changed(state, {"hw" if kind == "hardware" else kind: taken.name})
        return f"?{query(state)}", f"{taken.path.name} is in use."
    return no_update, no_update


def _routes(server: Flask) -> None:
    @server.route("/data/<name>/<block>.<form>")
    def data(name: str, block: str, form: str) -> Response:
        page = next((page for page in pages().values() if page.id == name), None)
        if page is None or form not in ("csv", "json"):
            abort(404)
        state, notices = parse(request.query_string.decode("utf-8", "replace"))
        answer = answer_of(page, state, notices=notices)
        if answer.problem or answer.notices:
            said = "\n".join((*answer.notices, answer.problem)).strip() + "\n"
            return Response(said, status=400, mimetype="text/plain")
        found = answer.block(block)
        text = None if found is None else exported(found, form)
        if text is None:
            abort(404)
        kind = "text/csv" if form == "csv" else "application/json"
        named = {"Content-Disposition": f"attachment; filename={block}.{form}"}
        return Response(text, mimetype=kind, headers=named)


def _limits(app: Dash, server: Flask, host: str) -> None:
    """Headers that keep everything within this origin, and, on loopback, only names of this machine."""
    hashes = " ".join(f"'{found}'" if not found.startswith("'") else found for found in app.csp_hashes())
    policy = (
        f"default-src 'self'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
    )
    local = host in LOCAL_NAMES

    @server.before_request
    def only_this_machine() -> None:
        name = request.host.rpartition(":")[0] or request.host
        if local and name not in LOCAL_NAMES and request.host not in LOCAL_NAMES:
            abort(403)

    @server.after_request
    def headers(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        return response


def bound(host: str, port: int) -> tuple[Any, int]:
    """A server for the application and the port it is bound to; 0 asks for a free one. Raises OSError if it is taken."""
    import socket

    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        """Says nothing of requests that went well."""

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Only what failed on the server's side."""
            if str(code).startswith("5"):
                super().log_request(code, size)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.create_server((host, port), family=family)
    found = int(taken.getsockname()[1])
    server = make_server(host, found, build(host).server, threaded=True, request_handler=Quiet, fd=taken.detach())
    return server, found


def _warm() -> None:
    """Answer the first page and load the compiled arithmetic before somebody waits for them."""
    from simulator.cost.compiled import arithmetic

    answer_of(pages()["/"], parse("")[0])
    arithmetic()


def serve(server: Any) -> None:
    """Serve until interrupted."""
    import threading

    threading.Thread(target=_warm, daemon=True).start()
    try:
        server.serve_forever()
    finally:
        server.server_close()
