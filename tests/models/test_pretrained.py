"""Hugging Face folders: written by us and opened by `transformers`, the other way round, and damaged ones."""

import errno
import json
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining

from selfsup.models import (
    MaskedLanguageModel,
    SentencePairModel,
    TransformerConfig,
    load_pretrained,
    load_snapshot,
    save_pretrained,
    snapshots,
)
from selfsup.tokenization import word_level

WORDS = ["the", "cat", "sat", "on", "mat", "."]
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def tokenizer():
    return word_level(WORDS)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = TransformerConfig(len(tokenizer), layers=2, width=16, heads=4, feed_forward=24, init_std=0.2)
    return MaskedLanguageModel(config).eval()


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    return save_pretrained(model, tokenizer, tmp_path / "saved")


@pytest.fixture
def inputs(tokenizer):
    return tokenizer(["the cat [MASK] on the mat .", "the [MASK]"], padding=True, return_tensors="pt")


def test_folder_holds_these_files_alone(folder):
    assert {path.name for path in folder.iterdir()} == FILES, "something else was left in the folder"


def test_weights_come_back_exactly(model, folder):
    loaded, _ = load_pretrained(folder)
    assert loaded.config == model.config
    assert not loaded.training, "a loaded model must not drop out"
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_half_precision_on_disk_is_float32_in_memory(model, tokenizer, folder, tmp_path):
    half = save_pretrained(model, tokenizer, tmp_path / "half", half=True)
    stored = load_file(half / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded, _ = load_pretrained(half)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].half().float()), "a weight is more than rounded"
    assert sum(t.nbytes for t in stored.values()) == 2 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("half", [False, True])
def test_our_folder_opens_in_transformers(model, tokenizer, tmp_path, inputs, half):
    save_pretrained(model, tokenizer, tmp_path, half=half)
    ours, _ = load_pretrained(tmp_path)
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert isinstance(theirs, BertForMaskedLM) and theirs.dtype == torch.float32
    assert (theirs(**inputs).logits - ours(**inputs)).abs().max() < 1e-5, "transformers reads other logits"
    text = "The cat sat on the [MASK]!"
    assert dict(AutoTokenizer.from_pretrained(tmp_path)(text)) == dict(tokenizer(text))


def test_a_model_of_pairs_goes_to_transformers_and_back(model, tokenizer, tmp_path, inputs):
    torch.manual_seed(1)
    pairs = SentencePairModel(model.config).eval()
    save_pretrained(pairs, tokenizer, tmp_path)
    theirs = BertForPreTraining.from_pretrained(tmp_path)
    ours, _ = load_pretrained(tmp_path)
    assert type(ours) is SentencePairModel
    expected, (words, verdicts) = theirs(**inputs), ours(**inputs, pair=True)
    assert (expected.prediction_logits - words).abs().max() < 1e-5
    assert (expected.seq_relationship_logits - verdicts).abs().max() < 1e-5
    assert (AutoModelForMaskedLM.from_pretrained(tmp_path)(**inputs).logits - words).abs().max() < 1e-5


def test_their_folder_opens_here(tokenizer, tmp_path, inputs):
    shape = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)
    theirs = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape)).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours, own = load_pretrained(tmp_path)
    assert (theirs(**inputs).logits - ours(**inputs)).abs().max() < 1e-5, "we read other logits"
    assert dict(own("the cat .")) == dict(tokenizer("the cat ."))


def test_checkpoints_with_more_heads_and_old_names_open_here(tokenizer, tmp_path, inputs):
    shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=24)
    theirs = BertForPreTraining(BertConfig(vocab_size=len(tokenizer), **shape)).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
           for n, t in weights.items()}  # fmt: skip
    assert set(old) != set(weights)
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours, _ = load_pretrained(tmp_path)
    expected = theirs(**inputs).prediction_logits
    assert (expected - ours(**inputs)).abs().max() < 1e-5, "bert-base-uncased has these names and these heads"


def test_the_first_berts_say_neither_their_type_nor_their_epsilon(tokenizer, tmp_path, inputs):
    shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=24)
    theirs = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape)).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    kept = {"hidden_act", "initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob", "vocab_size",
            "type_vocab_size", "max_position_embeddings", *shape}
    config = {name: value for name, value in json.loads(file.read_text()).items() if name in kept}
    file.write_text(json.dumps(config))
    ours, _ = load_pretrained(tmp_path)
    assert ours.config.norm_eps == BertConfig().layer_norm_eps
    assert (theirs(**inputs).logits - ours(**inputs)).abs().max() < 1e-5, "we read other logits"
    file.write_text(json.dumps(config | {"architectures": ["RobertaForMaskedLM"]}))
    assert "what model it is of" in refusal(tmp_path)


def refusal(folder):
    """The one line with which `load_pretrained` refuses a folder."""
    with pytest.raises(ValueError) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value), "an error is one line"
    return str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    assert name in refusal(folder)


def test_snapshots_come_back_in_order(model, folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "snapshots").mkdir()
    for step in (128, 0, 1_000_000):
        other = {name: tensor.half() * (step + 1) / 1e6 for name, tensor in weights.items()}
        save_file(other, folder / "snapshots" / f"{step:06}.safetensors")
    assert [*snapshots(folder)] == [0, 128, 1_000_000]
    found = load_snapshot(str(folder), 128)
    expected = model.encoder.embeddings.token.weight.half() * 129 / 1e6
    assert not found.training and torch.equal(found.encoder.embeddings.token.weight, expected.float())
    with pytest.raises(ValueError, match="no snapshot of step 5: choose from 0, 128, 1000000"):
        load_snapshot(folder, 5)
    snapshots(folder)[0].write_bytes(b"short")
    with pytest.raises(ValueError, match="000000.safetensors is damaged"):
        load_snapshot(folder, 0)


def test_a_run_without_snapshots(folder):
    with pytest.raises(ValueError, match="there are no snapshots of"):
        snapshots(folder)


def test_missing_folder(tmp_path):
    assert "config.json" in refusal(tmp_path / "nowhere")


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_weights(folder, share):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: int(share * len(whole))])
        assert "damaged or cut short" in refusal(folder)
    finally:
        path.write_bytes(whole)


def test_weights_that_are_something_else(folder):
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html><title>Not found</title>" * 20)
    assert "damaged or cut short" in refusal(folder)


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 12}, r"has shape (11, 16), but the configuration says (12, 16)"),
        ({"num_hidden_layers": 3}, "lack 16 of"),
        ({"num_hidden_layers": 1}, "for which the configuration has no place"),
        ({"hidden_size": 18}, "no multiple of 4 heads"),
        ({"model_type": "t5"}, "'t5'"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"hidden_size": None}, "width is None"),
    ],
)
def test_configuration_that_does_not_fit(folder, changes, message):
    change_config(folder, **changes)
    assert message in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_configuration(folder, content):
    (folder / "config.json").write_bytes(content)
    assert "config.json is damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "what model"), ("{}", "what model"), ('{"model_type": "bert"}', "vocab_size")],
)
def test_configuration_that_says_too_little(folder, content, message):
    (folder / "config.json").write_text(content)
    assert message in refusal(folder)


def test_weights_that_are_not_finite(folder):
    weights = load_file(folder / "model.safetensors")
    weights["cls.predictions.bias"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "cls.predictions.bias holds values that are not finite" in refusal(folder)


def test_tokenizer_of_another_model(model, folder, tmp_path):
    larger = word_level([*WORDS, "dog"])
    with pytest.raises(ValueError, match="12 tokens, the model 11"):
        save_pretrained(model, larger, tmp_path / "other")
    (folder / "tokenizer.json").write_text(larger.backend_tokenizer.to_str())
    assert "12 tokens, the model 11" in refusal(folder)


def test_model_with_broken_weights_is_not_saved(tokenizer, folder):
    broken, _ = load_pretrained(folder)
    torch.nn.init.constant_(broken.head.bias, 1e6)  # more than half precision can hold
    with pytest.raises(ValueError, match="cls.predictions.bias holds values that are not finite"):
        save_pretrained(broken, tokenizer, folder, half=True)
    assert load_pretrained(folder)[0].head.bias.abs().max() < 1e6, "what was saved before is lost"


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_save_leaves_what_was_there(model, tokenizer, folder, monkeypatch, step, failure):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed, _ = load_pretrained(folder)
    torch.nn.init.zeros_(changed.head.bias)

    def fail(*arguments):
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(failure)) as error:
        save_pretrained(changed, tokenizer, folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == before, "a save that failed changed the folder"
    if isinstance(failure, OSError):
        assert "No space left on device" in str(error.value) and "\n" not in str(error.value)
