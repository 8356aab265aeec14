"""`selfsup.load`: shipped, from a folder, or from the hub, of which a small copy runs on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
import torch

import selfsup
from selfsup.models import (
    MaskedLanguageModel,
    ModelUnavailable,
    TransformerConfig,
    pretrained,
    save_pretrained,
)
from selfsup.tokenization import word_level


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, model): a small model as a Hugging Face folder."""
    torch.manual_seed(0)
    tokenizer = word_level(["the", "cat", "sat"])
    config = TransformerConfig(len(tokenizer), layers=1, width=8, heads=2, feed_forward=12)
    model = MaskedLanguageModel(config).eval()
    return save_pretrained(model, tokenizer, tmp_path_factory.mktemp("hub") / "model"), model


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has asked for nothing yet, an empty cache and two shipped checkpoints."""
    monkeypatch.setattr(pretrained, "_refused", {})
    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    for name in ("tinyworld-bert", "storybook-bert"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "config.json").write_text("{}")


class Hub(ThreadingHTTPServer):
    """Answers as the hub does for the files of `folder`, as someone/model; counts the requests."""

    daemon_threads = True

    def __init__(self, folder):
        self.folder, self.requests, self.status, self.silent = folder, [], None, threading.Event()
        self.breaks_at = None
        self.silent.set()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.requests.append(self.path)
        self.server.silent.wait()
        if self.server.breaks_at and self.path.endswith(self.server.breaks_at):
            self.connection.close()
            return
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = self.server.folder / rest.partition("/")[2]
        known = name == "someone/model" and file.is_file()
        status = self.server.status or (200 if known else 404)
        content = file.read_bytes() if status == 200 else b""
        self.send_response(status)
        if status == 404:
            missing = "EntryNotFound" if name == "someone/model" else "RepoNotFound"
            self.send_header("X-Error-Code", missing)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{file.name}-{len(content)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(saved, monkeypatch):
    server = Hub(saved[0])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (huggingface_hub.constants, huggingface_hub.file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    yield server
    server.silent.set()
    server.shutdown()
    server.server_close()


def refusal(name):
    """The one line with which `load` refuses a name."""
    with pytest.raises(ModelUnavailable) as error:
        selfsup.load(name)
    assert "\n" not in str(error.value), "an error is one line"
    return str(error.value)


def same(model, other):
    mine, its = model.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], its[name]) for name in mine)


def test_folder(saved):
    folder, model = saved
    for name in (folder, str(folder)):
        loaded, tokenizer = selfsup.load(name)
        assert same(model, loaded) and tokenizer.tokenize("The cat") == ["the", "cat"]


def test_shipped_checkpoint(saved, monkeypatch):
    folder, model = saved
    monkeypatch.setattr(pretrained, "CHECKPOINTS", folder.parent)
    assert selfsup.models.shipped() == ("model",)
    assert same(model, selfsup.load("model")[0])


def test_shipped_checkpoint_comes_before_a_folder_of_that_name(saved, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "CHECKPOINTS", saved[0].parent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert same(saved[1], selfsup.load("model")[0])


@pytest.mark.parametrize("name", ["a/b/c", "tiny world", "a--b", "", "x" * 5000, "C:\\models\\bert"])
def test_impossible_name_lists_the_shipped_ones(name, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        selfsup.load(name)
    assert "tinyworld-bert" in str(error.value) or name == ""
    assert hub.requests == [], "a name that the hub cannot have needs no network"


def test_unknown_name_lists_the_shipped_ones_nearest_first(hub):
    message = refusal("tinyworld-brt")
    assert "no open model of that name" in message
    assert "(tinyworld-bert, storybook-bert)" in message


def test_hub_model_is_downloaded_once(saved, hub):
    assert same(saved[1], selfsup.load("someone/model")[0])
    hub.requests.clear()
    assert same(saved[1], selfsup.load("someone/model")[0])
    assert hub.requests == [], "a model in the cache needs no network"


def test_cached_hub_model_needs_no_network(saved, hub, monkeypatch):
    selfsup.load("someone/model")
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert same(saved[1], selfsup.load("someone/model")[0])
    assert hub.requests == []


def test_cached_model_without_a_tokenizer_is_completed(saved, hub, tmp_path):
    selfsup.load("someone/model")
    for file in (tmp_path / "cache").rglob("tokenizer*.json"):
        file.unlink()
    loaded, tokenizer = selfsup.load("someone/model")
    assert same(saved[1], loaded) and tokenizer.tokenize("The cat") == ["the", "cat"]


def test_offline_mode_asks_nobody(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal("someone/model")
    assert hub.requests == []


def test_refused_name_is_asked_once(hub):
    first = refusal("someone/else")
    asked = len(hub.requests)
    assert asked == 1
    assert refusal("someone/else") == first, "the second answer is another one"
    assert len(hub.requests) == asked, "the hub was asked twice"
    selfsup.load("someone/model")  # the hub itself is not to blame


def test_hub_that_never_answers(hub, monkeypatch):
    monkeypatch.setattr(pretrained, "_PATIENCE", 0.2)
    hub.silent.clear()
    message = refusal("someone/model")
    assert "did not answer within" in message and "storybook-bert" in message
    assert refusal("someone/model") == message
    assert "did not answer" in refusal("someone/else"), "it is asked for other models"
    assert len(hub.requests) == 1


def test_address_that_takes_for_ever_to_look_up(monkeypatch):
    forever = threading.Event()
    monkeypatch.setattr(pretrained, "_PATIENCE", 0.2)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *arguments: forever.wait())
    assert "did not answer" in refusal("someone/model")
    forever.set()


def test_patience_leaves_time_for_the_rest():
    assert pretrained._PATIENCE < 2.5, "a hub model that cannot be had must fail within 3 s"


def test_no_network(hub):
    hub.shutdown()
    hub.server_close()
    message = refusal("bert-base-uncased")
    assert "could not get 'bert-base-uncased' from the Hugging Face hub, which is out of reach" in message
    assert "storybook-bert" in message, "it must say what to use instead"


def test_hub_in_trouble(hub):
    hub.status = 503
    assert "answered with status 503" in refusal("someone/model")
    assert len(hub.requests) == 1


def test_hub_model_of_another_kind(saved, hub, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in saved[0].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "t5"}))
    hub.folder = other
    assert "'t5'" in refusal("someone/model")
    assert not any("safetensors" in path for path in hub.requests), "the weights came for nothing"


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors"])
def test_network_that_breaks_during_the_download(hub, saved, file):
    hub.breaks_at = file
    assert "where it failed" in refusal("someone/model")
    pretrained._refused.clear()
    hub.breaks_at = None
    assert same(saved[1], selfsup.load("someone/model")[0]), "half a download spoils the next"


def test_hub_model_without_safetensors(saved, hub, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (other / name).write_bytes((saved[0] / name).read_bytes())
    (other / "pytorch_model.bin").write_bytes(b"pickled")
    hub.folder = other
    assert "no safetensors weights" in refusal("someone/model")
    assert not any(".bin" in path for path in hub.requests), "pickled weights can run code: never fetch them"


def test_a_folder_that_lacks_one_kind_of_weights_may_have_another(saved, hub, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (other / name).write_bytes((saved[0] / name).read_bytes())
    (other / "pytorch_model.bin").write_bytes(b"pickled")
    hub.folder = other
    assert "no safetensors weights" in refusal("someone/model")
    kinds = ("model.safetensors", "pytorch_model.bin")
    found = pretrained.find("someone/model", kinds)
    assert (found / "pytorch_model.bin").read_bytes() == b"pickled" and (found / "config.json").is_file()
    hub.requests.clear()
    assert pretrained.find("someone/model", kinds) == found and hub.requests == [], "it is in the cache"
    assert "no safetensors weights" in refusal("someone/model"), "who did not ask for pickled weights gets none"
    with pytest.raises(ModelUnavailable, match="which has no a.bin and no b.bin of it"):
        pretrained.find("someone/model", ("a.bin", "b.bin"))


def test_safetensors_come_first(saved, hub):
    found = pretrained.find("someone/model", ("model.safetensors", "pytorch_model.bin"))
    assert (found / "model.safetensors").is_file() and not any(".bin" in path for path in hub.requests)


def test_finds_shipped_models_and_folders(saved, hub):
    assert pretrained.find(saved[0]) == saved[0]
    assert pretrained.find("storybook-bert") == pretrained.CHECKPOINTS / "storybook-bert" and hub.requests == []


def test_damaged_weights_from_the_hub(saved, hub, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in saved[0].iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes((saved[0] / "model.safetensors").read_bytes()[:-10])
    hub.folder = broken
    with pytest.raises(ValueError, match="damaged or cut short"):
        selfsup.load("someone/model")
