"""The built site in a real browser: every page, wide and narrow, light and dark."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, unquote, urldefrag, urljoin

import pytest
import yaml

ROOT_DOC = "book/index"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 375, "height": 800}
# axe-core's rules for what a reader with a screen reader or weak sight needs.
RULES = ["color-contrast", "image-alt", "svg-img-alt", "label", "button-name", "link-name", "html-has-lang", "list",
         "document-title", "duplicate-id-aria", "aria-valid-attr", "aria-valid-attr-value", "aria-roles",
         "heading-order", "nested-interactive", "select-name", "td-headers-attr"]  # fmt: skip


def documents(root) -> list[str]:
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def address(document: str) -> str:
    return "index.html" if document == ROOT_DOC else f"{document}.html"


def pytest_generate_tests(metafunc):
    if "document" in metafunc.fixturenames:
        from conftest import ROOT

        metafunc.parametrize("document", documents(ROOT))


class Visit:
    """A page in the browser, with everything that it asked for and complained about."""

    def __init__(self, browser, site: str, document: str, viewport: dict, scheme: str = "light", **options):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        self.page = self.context.new_page()
        self.requests, self.complaints, self.missing = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", lambda r: self.missing.append(r.url) if r.status >= 400 else None)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.add_init_script(
            "window.shifts = []; new PerformanceObserver((list) => { for (const e of list.getEntries())"
            " if (!e.hadRecentInput) window.shifts.push([e.value, ...e.sources.map((s) => s.node?.textContent)]); })"
            ".observe({type: 'layout-shift', buffered: true})"
        )
        self.page.goto(site + address(document), wait_until="networkidle")
        self.page.wait_for_function(
            "[...document.querySelectorAll('.widget-place')].every((p) => p.classList.contains('widget-ready'))"
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request) -> str:
    return request.param


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_page_is_quiet_and_fits(browser, site, document, viewport, scheme):
    with Visit(browser, site, document, viewport, scheme) as visit:
        foreign = [url for url in visit.requests if not url.startswith((site, "blob:", "data:"))]
        assert not foreign, "the page asks other origins for something"
        assert not visit.missing, "the page asks for files that the site does not have"
        assert not visit.complaints, "the browser's console has complaints"
        overflow = visit.page.evaluate(
            "[document.documentElement.scrollWidth - document.documentElement.clientWidth, "
            " [...document.querySelectorAll('.bd-article *')]"
            "  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
            "  .filter((e) => !e.closest('table, pre, .math, .katex, .highlight, .cell_output'))"
            "  .map((e) => e.outerHTML.slice(0, 120))]"
        )
        assert overflow[0] <= 0, f"the page scrolls sideways: {overflow[1][:3]}"
        assert visit.page.evaluate("document.documentElement.dataset.theme") == scheme
        shifts = visit.page.evaluate("window.shifts")
        assert sum(shift[0] for shift in shifts) < 0.1, f"the page moves under the reader while it loads: {shifts}"
        asked = {url.rpartition("/")[2] for url in visit.requests if "KaTeX" in url and url.endswith(".woff2")}
        early = visit.page.evaluate(
            "[...document.querySelectorAll('link[rel=preload]')].map((e) => e.href.split('/').pop())"
        )
        assert asked <= set(early), "a formula's font is found late, and moves the lines below it"


def test_page_is_accessible(browser, site, document, scheme, root):
    axe = root / "book" / "node_modules" / "axe-core" / "axe.min.js"
    with Visit(browser, site, document, WIDE, scheme, reduced_motion="reduce") as visit:
        visit.page.add_script_tag(path=axe)
        result = visit.page.evaluate(
            "(rules) => axe.run('.bd-article', {runOnly: {type: 'rule', values: rules}})", RULES
        )
        found = [
            f"{one['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
            for one in result["violations"]
            for node in one["nodes"]
        ]
        assert not found, "\n".join(["a reader would stumble:", *found[:10]])


def test_images_say_what_they_show(browser, site, document):
    with Visit(browser, site, document, WIDE) as visit:
        silent = visit.page.eval_on_selector_all(
            ".bd-article img",
            "(all) => all.filter((i) => !i.alt.trim() || /^\\S+\\.(png|svg)$/.test(i.alt)).map((i) => i.src)",
        )
    assert not silent, "images without alternative text"


def test_tables_are_tables(built, document):
    page = (built / address(document)).read_text(encoding="utf8")
    assert not re.search(r"\|\s*:?--+:?\s*\|", page), "a table is shown as the characters that it is written in"
    if document.startswith("notebooks/"):
        assert page.count("<table") >= 3


def test_links_lead_somewhere(browser, site, built, document):
    with Visit(browser, site, document, WIDE) as visit:
        links = visit.page.eval_on_selector_all("a[href]", "(all) => all.map((a) => a.href)")
    base = urldefrag(site + address(document))[0]
    for link in sorted(set(links)):
        target, fragment = urldefrag(urljoin(base, link))
        if not target.startswith(site):
            continue
        path = built / (unquote(target.removeprefix(site)).split("?")[0] or "index.html")
        assert path.is_file(), f"{document} links to {target}, which the site does not have"
        if fragment and path.suffix == ".html":
            anchors = re.findall(r'\b(?:id|name)="([^"]+)"', path.read_text(encoding="utf8"))
            if not set("wmst") <= set(parse_qs(fragment, keep_blank_values=True)):  # a widget's state, and no place
                assert unquote(fragment) in anchors, f"{document} links to {link}, and no such place is there"


def test_readable_without_scripts(browser, site, document):
    context = browser.new_context(java_script_enabled=False, viewport=WIDE)
    page = context.new_page()
    page.goto(site + address(document))
    text = page.inner_text(".bd-article")
    context.close()
    assert len(text) > 200, "without scripts the page is empty"


def test_nothing_is_published_beside_the_table_of_contents(root, built):
    pages = {str(path.relative_to(built).with_suffix("")) for path in built.rglob("*.html")}
    pages = {page for page in pages if not page.startswith("_static/")}
    assert pages - {"genindex", "search", "index"} == set(documents(root))
    sources = {str(path.relative_to(built / "_sources").with_suffix("")) for path in (built / "_sources").rglob("*.*")}
    assert sources <= set(documents(root)), "the site publishes sources of pages that it does not have"
    assert not list(built.rglob("node_modules")), "the site publishes the tools that built it"


def test_page_loads_no_more_than_it_needs(built, document):
    page = (built / address(document)).read_text(encoding="utf8")
    assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|mjs|woff2?)', page), "files of another site"


def test_assets_carry_their_hash(built):
    import hashlib

    manifest = json.loads((built / "assets" / "manifest.json").read_text(encoding="utf8"))

    def files(value) -> list[str]:
        return [value] if isinstance(value, str) else [name for one in value.values() for name in files(one)]

    names = files(manifest)
    assert "engine.mjs" in manifest
    for name in names:
        content = (built / "assets" / name).read_bytes()
        assert f".{hashlib.sha256(content).hexdigest()[:10]}." in name, f"{name} could be cached under a wrong name"


def test_the_landing_page_shows_the_playground_at_once(browser, site):
    with Visit(browser, site, ROOT_DOC, WIDE) as visit:
        button = visit.page.locator(".widget-place button[aria-pressed]").first
        assert button.bounding_box()["y"] < WIDE["height"], "the widget is not at the top"
        fetched = [url for url in visit.requests if "/assets/" in url]
        assert not [url for url in fetched if "weights" in url], "weights are fetched before anyone touches the widget"


def test_a_click_is_answered_without_a_kernel(browser, site):
    with Visit(browser, site, ROOT_DOC, WIDE) as visit:
        words = visit.page.locator(".widget-place button[aria-pressed]")
        before = visit.page.locator(".widget-place").inner_text()
        fresh = words.locator("xpath=self::*[@aria-pressed='false']").first
        fresh.click()
        visit.page.wait_for_function(
            "(before) => document.querySelector('.widget-place').innerText !== before"
            " && document.querySelector('.widget-place [aria-busy=true], .widget-place[aria-busy=true]') === null",
            arg=before, timeout=30_000,
        )  # fmt: skip
        assert words.locator("xpath=self::*[@aria-pressed='true']").count() >= 2
        assert [url for url in visit.requests if "weights" in url], "the answer did not come from the model"
        assert not visit.complaints


@pytest.mark.parametrize(
    "notebook",
    [
        "notebooks/01_supervised_vs_self_supervised",
        "notebooks/02_masking",
        "notebooks/03_sentence_pairs",
        "notebooks/04_fine_tuning",
        "notebooks/05_embryology",
    ],
)
def test_the_colab_button_leads_to_colab_or_says_what_is_missing(browser, site, notebook, root):
    url = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))["repository"]["url"]
    with Visit(browser, site, notebook, NARROW) as visit:
        button = visit.page.locator(".colab-button")
        assert button.bounding_box()["height"] >= 44
        if url:
            assert button.get_attribute("href").startswith("https://colab.research.google.com/github/")
        else:
            button.click()
            assert "make adopt" in visit.page.locator(".colab").inner_text()


def test_search_finds_a_page(browser, site):
    with Visit(browser, site, "search", WIDE) as visit:
        visit.page.goto(f"{site}search.html?q=perplexity")
        first = visit.page.locator("#search-results li a").first
        first.wait_for(timeout=20_000)
        first.click()
        visit.page.wait_for_selector(".bd-article h1")
        assert visit.page.url.startswith(site)
