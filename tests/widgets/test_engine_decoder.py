"""The browser's GPT-2 and BART give torch's logits, with a cache too, and its distribution is the one it says."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from parity import randomise
from safetensors.torch import load_file
from transformers import BartForConditionalGeneration, GPT2LMHeadModel

from selfsup.corpora import tinyworld
from selfsup.models import (
    EncoderDecoder,
    LanguageModel,
    TransformerConfig,
    attention_weights,
    load_pretrained,
    save_pretrained,
)
from selfsup.models.pretrained import CHECKPOINTS, load
from selfsup.tokenization import word_level

KINDS = {"gpt": LanguageModel, "bart": EncoderDecoder}
SHAPES = {  # widths, vocabularies and inner widths with every rest of a division by four
    "3x128": dict(vocab_size=601, layers=3, width=128, heads=4, feed_forward=512, max_positions=64),
    "2x36": dict(vocab_size=43, layers=2, width=36, heads=3, feed_forward=109, max_positions=19),
    "1x10": dict(vocab_size=10, layers=1, width=10, heads=1, feed_forward=7, max_positions=9),
    "4x15": dict(vocab_size=31, layers=4, width=15, heads=5, feed_forward=18, max_positions=12),
}
TOLERANCE = 1e-5
OPEN = """
const { modelOf, copy, cut } = await import(WIDGETS + "engine.mjs");
const { distribution } = await import(WIDGETS + "sampling.mjs");
const open = (folder) => modelOf(json(folder + "/config.json"), bytes(folder + "/model.safetensors"));
const list = (rows) => rows.map((row) => Array.from(row));
const told = (work) => { try { return work(); } catch (error) { return error.message; } };
"""


def write(folder, kind, shape, half=False):
    """A random model's folder, and the model that it holds."""
    config = TransformerConfig(**SHAPES[shape], segments=0, norm_eps=1e-5)
    tokenizer = word_level(["a", "b"])
    save_pretrained(randomise(KINDS[kind](config), seed=1), tokenizer, folder, half=half)
    return str(folder), load_pretrained(folder)[0]


def some_ids(config, length, seed=0):
    rng = random.Random(seed)
    return [rng.randrange(config.vocab_size) for _ in range(length)]


def lengths(config):
    return (1, 2, 3, 5, config.max_positions - 1, config.max_positions)


def check(found, expected):
    found, expected = np.array(found), expected.numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < TOLERANCE, "the engine's logits are not torch's"
    assert (found.argmax(-1) == expected.argmax(-1)).all(), "the engine's first choice is not torch's"


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gpt"), "gpt", "2x36")


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bart"), "bart", "2x36")


@pytest.mark.parametrize("half", [False, True], ids=["f32", "f16"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_of_a_gpt_equal_those_of_torch_and_transformers(run_node, tmp_path, shape, half):
    folder, model = write(tmp_path, "gpt", shape, half)
    theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [some_ids(model.config, length, seed=length) for length in lengths(model.config)]
    code = """
    const model = open(data.folder);
    const both = (ids) => [list(model.next(ids, null, true)), Array.from(model.next(ids))];
    console.log(JSON.stringify(data.texts.map(both)));
    """
    for ids, (each, last) in zip(texts, run_node(OPEN + code, {"folder": folder, "texts": texts}), strict=True):
        check(each, model(torch.tensor([ids]))[0])
        check(each, theirs(torch.tensor([ids])).logits[0])
        assert last == each[-1]


@torch.no_grad()
def test_logits_of_the_shipped_gpt_on_texts_of_its_world(run_node):
    """Within 1e-3 of torch's, and the first choice the same: its logits are larger than those of random weights."""
    model, tokenizer = load("tinyworld-gpt")
    texts = [[tokenizer.cls_token_id, *tokenizer.convert_tokens_to_ids(list(document.tokens))]
             for document in tinyworld.load("world").documents(5, seed=3)]
    code = "console.log(JSON.stringify(data.texts.map((ids) => list(open(data.folder).next(ids, null, true)))));"
    found = run_node(OPEN + code, {"folder": str(CHECKPOINTS / "tinyworld-gpt"), "texts": texts})
    for ids, rows in zip(texts, found, strict=True):
        expected, rows = model.eval()(torch.tensor([ids]))[0].numpy(), np.array(rows)
        assert np.abs(rows - expected).max() < 1e-3 and (rows.argmax(-1) == expected.argmax(-1)).all()


@torch.no_grad()
def test_logits_of_the_shipped_encoder_decoder_on_damaged_texts_of_its_world(run_node):
    """As above: each text is read without every fifth word, and written whole."""
    model, tokenizer = load("tinyworld-seq2seq")
    whole = [[tokenizer.cls_token_id, *tokenizer.convert_tokens_to_ids(list(document.tokens))]
             for document in tinyworld.load("world").documents(5, seed=3)]
    pairs = [[[one for i, one in enumerate(ids) if i % 5 != 3], ids] for ids in whole]
    code = """
    const model = open(data.folder);
    console.log(JSON.stringify(data.pairs.map(([read, ids]) => list(model.next(ids, model.read(read), null, true)))));
    """
    found = run_node(OPEN + code, {"folder": str(CHECKPOINTS / "tinyworld-seq2seq"), "pairs": pairs})
    for (read, ids), rows in zip(pairs, found, strict=True):
        expected, rows = model.eval()(torch.tensor([read]), torch.tensor([ids]))[0].numpy(), np.array(rows)
        assert np.abs(rows - expected).max() < 1e-3 and (rows.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("half", [False, True], ids=["f32", "f16"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_of_a_bart_equal_those_of_torch_and_transformers(run_node, tmp_path, shape, half):
    folder, model = write(tmp_path, "bart", shape, half)
    theirs = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    some = lengths(model.config)
    pairs = [[some_ids(model.config, n, seed=n), some_ids(model.config, m, seed=-m)] for n, m in zip(some, some[::-1])]
    code = """
    const model = open(data.folder);
    console.log(JSON.stringify(data.pairs.map(([read, written]) => {
      const memory = model.read(read);
      return [list(model.next(written, memory, null, true)), Array.from(model.next(written, memory))];
    })));
    """
    for pair, (each, last) in zip(pairs, run_node(OPEN + code, {"folder": folder, "pairs": pairs}), strict=True):
        read, written = (torch.tensor([ids]) for ids in pair)
        check(each, model(read, written)[0])
        check(each, theirs(input_ids=read, decoder_input_ids=written).logits[0])
        assert last == each[-1]


PIECES = """
const model = open(data.folder);
const memory = model.read?.(data.read), cache = model.start();
const more = (ids, all) => (memory ? model.next(ids, memory, cache, all) : model.next(ids, cache, all));
const pieces = data.cuts.slice(1).flatMap((end, i) => list(more(data.ids.slice(data.cuts[i], end), true)));
const whole = memory ? model.next(data.ids, memory, null, true) : model.next(data.ids, null, true);
console.log(JSON.stringify([pieces, list(whole), cache.length]));
"""


@pytest.mark.parametrize("cuts", [range(20), [0, 1, 3, 8, 19], [0, 18, 19]], ids=["one by one", "in pieces", "prompt"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_changes_nothing(run_node, request, kind, cuts):
    folder, model = request.getfixturevalue(kind)
    ids, read = some_ids(model.config, 19), some_ids(model.config, 7, seed=1)
    question = {"folder": folder, "ids": ids, "read": read, "cuts": list(cuts)}
    pieces, whole, length = run_node(OPEN + PIECES, question)
    assert pieces == whole, "with a cache a text gets other logits than at once"
    assert length == 19, "the cache does not count its tokens"


@pytest.mark.parametrize("kind", KINDS)
def test_no_earlier_logit_knows_a_later_token(run_node, request, kind):
    folder, model = request.getfixturevalue(kind)
    ids, read = some_ids(model.config, 12), some_ids(model.config, 7, seed=1)
    other = [*ids[:8], *((index + 1) % model.config.vocab_size for index in ids[8:])]
    question = {"folder": folder, "read": read, "cuts": [0, 12]}
    (one, _, _), (two, _, _) = (run_node(OPEN + PIECES, question | {"ids": text}) for text in (ids, other))
    assert one[:8] == two[:8], "a later token changed an earlier logit: is the attention causal?"
    assert all(a != b for a, b in zip(one[8:], two[8:], strict=True)), "a token changed nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_cache_goes_its_own_way_and_a_cut_one_goes_back(run_node, request, kind):
    folder, model = request.getfixturevalue(kind)
    code = """
    const model = open(data.folder), memory = model.read?.(data.read);
    const next = (ids, cache = null) => Array.from(memory ? model.next(ids, memory, cache) : model.next(ids, cache));
    const trunk = model.start();
    next([1, 2, 3], trunk);
    const left = copy(trunk), right = copy(trunk);
    const kept = [left, right].map((cache, i) => cache.pasts[0].key === trunk.pasts[0].key);
    const grown = [next([4, 5], left), next([6], right), next([7], left), trunk.length, left.length, right.length];
    cut(left, 4);
    const back = [next([8], left), next([9], trunk), left.length];
    cut(left, 0);
    console.log(JSON.stringify({ kept, grown, back, anew: next([1, 2], left), refused: told(() => cut(trunk, 5)),
      negative: told(() => cut(trunk, -1)),
      fresh: [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 8], [1, 2, 3, 9], [1, 2]]
        .map((ids) => next(ids)) }));
    """
    found = run_node(OPEN + code, {"folder": folder, "read": some_ids(model.config, 7)})
    assert found["kept"] == [True, True], "a copy is to be cheap: it shares the keys"
    assert found["grown"][:3] == found["fresh"][:3], "copies of a cache disturb each other"
    assert found["grown"][3:] == [3, 6, 4]
    assert found["back"] == [*found["fresh"][3:5], 5], "a cache that was cut back still knows what was cut"
    assert found["anew"] == found["fresh"][5]
    assert found["refused"] == "the cache holds 4 tokens and cannot be cut to 5"
    assert found["negative"] == "the cache holds 4 tokens and cannot be cut to -1"


@torch.no_grad()
def test_the_looks_at_the_memory_are_those_of_torch(run_node, bart):
    folder, model = bart
    read, written = some_ids(model.config, 7), some_ids(model.config, 5, seed=1)
    with attention_weights(model) as weights:
        model(torch.tensor([read]), torch.tensor([written]))
    layers = model.config.layers
    expected = torch.stack(weights[layers + 1 :: 2])[:, 0].numpy()  # after the encoder's: own, cross, own, cross
    code = """
    const model = open(data.folder), memory = model.read(data.read), cache = model.start(), whole = [], last = [];
    model.next(data.written, memory, null, false, whole);
    model.next(data.written.slice(0, -1), memory, cache);
    model.next(data.written.slice(-1), memory, cache, false, last);
    console.log(JSON.stringify([whole, last].map((looks) => looks.map(list))));
    """
    found = run_node(OPEN + code, {"folder": folder, "read": read, "written": written})
    whole, last = (np.array(looks) for looks in found)
    assert whole.shape == (layers, model.config.heads, 5 * 7), "one matrix (queries, keys) a head and layer"
    assert np.abs(whole.reshape(expected.shape) - expected).max() < 1e-6, "the weights are not torch's"
    assert (last == whole.reshape(expected.shape)[:, :, -1]).all(), "the last call's weights alone"


@pytest.mark.parametrize("kind", KINDS)
def test_too_long_a_text_and_none_are_refused(run_node, request, kind):
    folder, model = request.getfixturevalue(kind)
    code = """
    const model = open(data.folder), memory = model.read?.([1, 2]), cache = model.start();
    const next = (ids, cache) => Array.from(memory ? model.next(ids, memory, cache) : model.next(ids, cache));
    next(data.ids.slice(0, -1), cache);
    console.log(JSON.stringify([told(() => next([1, 2], cache)), cache.length, told(() => next([], cache)),
      told(() => model.read?.([...data.ids, 1])), next(data.ids.slice(-1), cache), next(data.ids)]));
    """
    found = run_node(OPEN + code, {"folder": folder, "ids": some_ids(model.config, 19)})
    assert found[:2] == ["20 tokens; the model reads at most 19", 18]
    assert found[2] == "there is no token to go on from: give one at least"
    if kind == "bart":
        assert found[3] == "20 tokens; the model reads at most 19"
    assert found[-2] == found[-1], "a refused call changed the cache"


def test_each_type_of_model_is_read_and_what_the_engine_has_not_is_refused(run_node, gpt, bart, checkpoints):
    bert = str(checkpoints["tinyworld-bert"].folder)
    changes = [
        (gpt[0], "activation_function", "relu"),
        (gpt[0], "tie_word_embeddings", False),
        (gpt[0], "add_cross_attention", True),
        (bart[0], "scale_embedding", True),
        (bart[0], "activation_function", "gelu_new"),
        (bert, "hidden_act", "relu"),
        (bert, "model_type", "llama"),
        (gpt[0], "n_layer", 3),
    ]
    code = """
    const changed = ([folder, name, value]) => told(() =>
      modelOf({ ...json(folder + "/config.json"), [name]: value }, bytes(folder + "/model.safetensors")).config);
    const names = data.folders.map((folder) => open(folder).constructor.name);
    console.log(JSON.stringify([names, data.changes.map(changed)]));
    """
    names, refusals = run_node(OPEN + code, {"folders": [bert, gpt[0], bart[0]], "changes": changes})
    assert names == ["Bert", "Gpt", "Bart"]
    assert refusals == [
        "the engine reads models with activation_function gelu_new, not relu",
        "the engine reads models with tie_word_embeddings true, not false",
        "the engine reads models with add_cross_attention false, not true",
        "the engine reads models with scale_embedding false, not true",
        "the engine reads models with activation_function gelu, not gelu_new",
        "the engine has the activation gelu, not relu",
        "the engine reads models of type bert, gpt2 and bart, not llama",
        "the weights file has no h.2.attn.c_attn.weight",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_weights_are_refused_in_one_sentence(run_node, request, tmp_path, kind):
    folder, _ = request.getfixturevalue(kind)
    with open(f"{folder}/model.safetensors", "rb") as file:
        whole = file.read()
    header = bytearray(whole)
    header[8] = ord("x")
    damaged = {"empty": b"", "short": whole[:100], "half": whole[: len(whole) // 2], "end": whole[:-1]}
    damaged["header"] = header
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    code = """
    const config = json(data.folder + "/config.json");
    const answer = (file) => told(() => modelOf(config, bytes(file)).constructor.name);
    console.log(JSON.stringify(data.files.map(answer)));
    """
    found = run_node(OPEN + code, {"folder": folder, "files": [str(tmp_path / name) for name in damaged]})
    assert found == ["the weights file is damaged or incomplete: load the page again"] * len(damaged)


DISTRIBUTION = """
const ask = ({ logits, ...how }) => told(() => Array.from(distribution(logits, how)));
console.log(JSON.stringify(data.map(ask)));
"""


def reference(logits, temperature=1.0, topK=None, topP=None, minP=None):
    """The distribution, step by step as its description says."""
    order = np.argsort(-logits, kind="stable")
    if temperature == 0:
        return np.eye(len(logits))[order[0]]
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    if topK is not None:
        p[order[topK:]] = 0
        p /= p.sum()
    if topP is not None:
        before = np.cumsum(p[order]) - p[order]
        out = order[1:][before[1:] >= topP]
        p[out] = 0
        p /= p.sum()
    if minP is not None:
        p[p < minP * p.max()] = 0
    return p / p.sum()


def test_the_distribution_equals_a_reference(run_node):
    rng, cases = np.random.default_rng(0), []
    for _ in range(300):
        logits = rng.normal(0, 2, rng.integers(1, 60)).astype(np.float32)
        how = {
            "temperature": rng.choice([0.0, 0.1, 0.7, 1.0, 1.9]),
            "topK": rng.choice([None, 1, 2, 10, 100]),
            "topP": rng.choice([None, 0.0, 0.3, 0.9, 0.999]),
            "minP": rng.choice([None, 0.0, 0.01, 0.2, 1.0]),
        }
        cases.append({"logits": logits.astype(float).tolist(), **how})
    for case, found in zip(cases, run_node(OPEN + DISTRIBUTION, cases), strict=True):
        how = {name: value for name, value in case.items() if name != "logits"}
        expected = reference(np.array(case["logits"]), **how)
        assert ((np.array(found) > 0) == (expected > 0)).all(), f"other tokens are left with {how}"
        assert np.abs(found - expected).max() < 1e-12, f"other probabilities with {how}"


FOUR = np.log([0.1, 0.4, 0.3, 0.2]).tolist()
BY_HAND = {
    "nothing is asked": ({}, [0.1, 0.4, 0.3, 0.2]),
    "limits that are off": ({"topK": None, "topP": None, "minP": None}, [0.1, 0.4, 0.3, 0.2]),
    "temperature 1/2 squares": ({"temperature": 0.5}, [1 / 30, 16 / 30, 9 / 30, 4 / 30]),
    "temperature 0": ({"temperature": 0}, [0, 1, 0, 0]),
    "temperature near 0": ({"temperature": 1e-310}, [0, 1, 0, 0]),
    "two of four": ({"topK": 2}, [0, 4 / 7, 3 / 7, 0]),
    "more than there are": ({"topK": 9}, [0.1, 0.4, 0.3, 0.2]),
    "0.4 is not 0.5 yet": ({"topP": 0.5}, [0, 4 / 7, 3 / 7, 0]),
    "0.4 is 0.35": ({"topP": 0.35}, [0, 1, 0, 0]),
    "one at least": ({"topP": 0}, [0, 1, 0, 0]),
    "all": ({"topP": 1}, [0.1, 0.4, 0.3, 0.2]),
    "half of 0.4": ({"minP": 0.49}, [0, 4 / 9, 3 / 9, 2 / 9]),
    "the share of what top-k leaves": ({"topK": 2, "topP": 0.55}, [0, 1, 0, 0]),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_the_distribution_by_hand(run_node, case):
    how, expected = BY_HAND[case]
    assert np.allclose(run_node(OPEN + DISTRIBUTION, [{"logits": FOUR, **how}])[0], expected, atol=1e-12)


def test_of_equals_the_first_comes_first(run_node):
    hows = [{"topK": 2}, {"topP": 0.5}, {"topP": 0.51}, {"temperature": 0}, {"minP": 1}]
    found = run_node(OPEN + DISTRIBUTION, [{"logits": [-99, 1, 1, 1, 1], **how} for how in hows])
    two, three, one, four = ([0, *[1 / n] * n, *[0] * (4 - n)] for n in (2, 3, 1, 4))
    assert np.allclose(found, [two, two, three, one, four], atol=1e-12)


def test_impossible_limits_are_refused(run_node):
    hows = [{"temperature": -1}, {"topK": 0}, {"topP": 1.5}, {"minP": -0.1}, {"temperature": "x"}]
    found = run_node(OPEN + DISTRIBUTION, [{"logits": [0, 1], **how} for how in hows])
    assert found == ["temperature is at least 0, topK at least 1, topP and minP are between 0 and 1"] * 5


def test_the_folders_hold_what_those_of_a_gpt2_and_a_bart_hold(gpt, bart):
    """One fused matrix (inputs, outputs), and places from the third on: else the tests above would ask for less."""
    shapes = {}
    for folder, _ in (gpt, bart):
        shapes |= {name: list(tensor.shape) for name, tensor in load_file(f"{folder}/model.safetensors").items()}
    assert shapes["transformer.h.0.attn.c_attn.weight"] == [36, 3 * 36]
    assert shapes["model.decoder.embed_positions.weight"] == [2 + 19, 36]
