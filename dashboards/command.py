"""`ridgeline dashboard`: the pages in a browser, served by this process alone."""

from __future__ import annotations

import click


@click.command("dashboard")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to bind; others than loopback are reachable by others.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8050, show_default=True, help="Port to bind; 0 takes a free one."
)
def command(host: str, port: int) -> None:
    """What-if, roofline, comparison, timeline, papers, fleets and accuracy in a browser.

    \b
    ridgeline dashboard --port 8050
    """
    from dashboards.app import LOCAL_NAMES, bound, serve

    server, found = bound(host, port)
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    click.echo(f"http://{name}:{found}  (Ctrl-C ends it)")
    if host not in LOCAL_NAMES:
        click.echo("bound to more than loopback: whoever reaches this address can use it", err=True)
    try:
        serve(server)
    except KeyboardInterrupt:
        click.echo("")
