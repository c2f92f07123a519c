"""The dashboard in a headless Chromium: pages load, controls move numbers, links reproduce views, and nothing complains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.pages import pages

WORK = "v=1&model=llama-3.1-8b&hw=h100-sxm5-80gb&batch=4&in=256&out=32"
RESULTS = "#results .block, #results .problem"
WAIT_MS = 60_000


class Visit:
    """A tab, and what its console said."""

    def __init__(self, context: Any, address: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.address = address
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def open(self, path: str) -> Any:
        self.page.goto(self.address + path)
        self.page.wait_for_selector(RESULTS)
        return self.page

    def until(self, condition: str) -> None:
        """Wait for a condition in the page; Playwright's own wait evaluates text, which the pages forbid."""
        for _ in range(WAIT_MS // 50):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never came true: {condition}; at {self.page.url}")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))


@pytest.fixture(scope="module")
def desk(browser: Any) -> Iterator[Any]:
    """A browser's profile, so that scripts are fetched once."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def visit(desk: Any, address: str) -> Iterator[Visit]:
    found = Visit(desk, address)
    yield found
    found.page.close()
    assert found.said == []
    elsewhere = [url for url in found.asked if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


@pytest.mark.parametrize("path", sorted(pages()))
def test_every_page_loads_and_draws(visit: Visit, path: str) -> None:
    page = visit.open(f"{path}?{WORK}")
    assert page.locator("#results .problem").count() == 0
    page.wait_for_selector("#results .js-plotly-plot .main-svg")
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#results img:not([alt])").count() == 0


def test_every_page_fits_a_phone(browser: Any, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    visit = Visit(context, address)
    for path in pages():
        page = visit.open(f"{path}?{WORK}")
        page.wait_for_selector("#results .js-plotly-plot .main-svg")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        assert not page.locator("details.controls").first.evaluate("element => element.open")
    context.close()
    assert visit.said == []


def test_a_slider_moves_numbers_picture_and_address(visit: Visit) -> None:
    page = visit.open(f"/?{WORK}")
    before = visit.text('[data-key="tpot_s"] .card-value')
    bars = page.locator("#figure-waterfall .barlayer path").first.get_attribute("d")
    page.locator('[aria-labelledby="label-batch"] [role="slider"]').press("End")
    visit.until("location.search.includes('batch=1024')")
    visit.until(f"document.querySelector('[data-key=tpot_s] .card-value').innerText != '{before}'")
    assert page.locator('[aria-labelledby="label-batch"] input[type=number]').input_value() == "1024"
    visit.until(f"document.querySelector('#figure-waterfall .barlayer path').getAttribute('d') != {bars!r}")


def test_a_shared_link_shows_the_same(visit: Visit, browser: Any) -> None:
    page = visit.open(f"/?{WORK}")
    page.get_by_role("button", name="Pin as baseline").click()
    visit.until("location.search.includes('b.model')")
    page.locator('[aria-labelledby="label-batch"] input[type=number]').fill("32")
    visit.until("location.search.includes('&batch=32')")
    page.wait_for_selector("text=Baseline: ")
    shown, link = visit.text(".cards"), page.url
    stranger = browser.new_context(viewport={"width": 1280, "height": 900})
    other = Visit(stranger, "")
    other.open(link)
    other.page.wait_for_selector("text=Baseline: ")
    assert other.text(".cards") == shown
    assert other.page.url == link
    stranger.close()
    assert other.said == []


def test_the_work_goes_with_the_reader_from_page_to_page_and_back(visit: Visit) -> None:
    page = visit.open(f"/?{WORK}")
    visit.until("document.querySelector('.nav a[href*=\"roofline?v=1\"]')")
    page.get_by_role("link", name="Roofline").click()
    page.wait_for_selector("#block-roofline")
    assert "batch 4, 256 tokens in" in visit.text(".subject")
    page.go_back()
    page.wait_for_selector("#block-waterfall")
    assert "batch 4, 256 tokens in" in visit.text(".subject")


def test_a_link_of_another_version_and_an_impossible_one_are_said_in_place(visit: Visit) -> None:
    page = visit.open("/?v=7&model=gpt2")
    assert "reads version 1" in visit.text("#link-notices")
    page.goto(f"{visit.address}/?v=1&model=gpt2&hw=t4&batch=1&in=5000&out=5")
    page.wait_for_selector("#results .problem")
    assert "beyond the 1024" in visit.text("#results .problem")
    page.locator('[aria-labelledby="label-in"] input[type=number]').fill("100")
    page.wait_for_selector("#block-numbers")


def test_exports_download_what_is_shown(visit: Visit) -> None:
    page = visit.open(f"/?{WORK}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Where the time goes as CSV").click()
    text = download.value.path().read_text()
    assert text.startswith("metric,kind,term,seconds,share")
    page.locator("#block-numbers summary").first.click()
    assert re.match(r"ridgeline predict --model llama-3.1-8b .*--json", visit.text("#command-numbers"))


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit.open(f"/?{WORK}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    visit.until("location.hash == '#results'")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.locator(".brand").focus()
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(document.activeElement.closest('.control, .block') || document.activeElement).outerHTML.slice(0, 300)"
            )
        )
    text = " ".join(reached)
    for needed in ("label-model", "label-batch", "label-tech", "Pin as baseline", "block-numbers", "block-ops"):
        assert needed in text, needed
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_a_file_is_taken_and_a_broken_one_explained(visit: Visit, tmp_path: Any) -> None:
    good, bad = tmp_path / "config.json", tmp_path / "bad.json"
    good.write_text(
        '{"model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, '
        '"num_attention_heads": 16, "vocab_size": 32000, "max_position_embeddings": 8192}'
    )
    bad.write_text('{"model_type": "lama"}')
    page = visit.open(f"/?{WORK}")
    page.get_by_text("Use a file of your own").click()
    page.locator(".upload input[type=file]").first.set_input_files(str(bad))
    page.wait_for_selector("#upload-said .problem")
    assert "unknown model_type" in visit.text("#upload-said")
    page.locator(".upload input[type=file]").first.set_input_files(str(good))
    visit.until("location.search.includes('upload:')")
    visit.until(
        "!(document.querySelector('.subject h2') || {innerText: 'llama-3.1-8b'}).innerText.includes('llama-3.1-8b')"
    )
    assert page.locator("#results .problem").count() == 0
