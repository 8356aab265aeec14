"""The browser's engine gives the logits and the tokens that torch and transformers give."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import selfsup
from selfsup.models.pretrained import CHECKPOINTS, shipped
from selfsup.widgets import STORIES

LOGITS = """
const { Bert } = await import(WIDGETS + "engine.mjs");
const model = new Bert(json(data.folder + "/config.json"), bytes(data.folder + "/model.safetensors"));
const logits = (ids) => model.logits(ids, ids.map((_, t) => t)).map((row) => Array.from(row));
console.log(JSON.stringify(data.texts.map(logits)));
"""
PAIR = """
const { Bert } = await import(WIDGETS + "engine.mjs");
const model = new Bert(json(data.folder + "/config.json"), bytes(data.folder + "/model.safetensors"));
const asked = ({ ids, segments }) => ({ pair: Array.from(model.pair(ids, segments)),
  words: model.logits(ids, ids.map((_, t) => t), segments).map((row) => Array.from(row)) });
let answers;
try { answers = data.pairs.map(asked); } catch (error) { answers = error.message; }
console.log(JSON.stringify(answers));
"""
WORDS = """
const { Tokenizer } = await import(WIDGETS + "engine.mjs");
const tokenizer = new Tokenizer(json(data.folder + "/tokenizer.json"));
console.log(JSON.stringify(data.texts.map((text) => tokenizer.words(text))));
"""
HOSTILE = [
    "",
    " \t\n\r ",
    "Once upon a time, there WAS a king!",
    "don't -- stop...(now)",
    "🙂 👩‍👩‍👧‍👦 🇹🇼 family",
    "台灣大學 and 東京 mixed漢字words",
    "שלום עולם مرحبا بالعالم ‫rtl‬",
    "e\u0301 é ñ Å ﬁ ß İstanbul ΣΑΣ ǅ",
    "a\u0000b\u0007c\u200bd\u00ade\ufeff\ufffd",
    "a\u00a0b\u2003c\u3000d\u2028e",
    "<script>alert('x')</script> <b onclick=\"y\">&amp;</b>",
    "[MASK] x[MASK]y [mask] [CLS][SEP] [UNK] [PAD]",
    "king" * 30,
    "x" * 10_000,
    "the " * 2_500,
    "$100 + 5% = ^_^ `~| @home #1",
    "“quoted” ‘single’ — dash … «guillemets» ¿qué? ،؟",
    "١٢٣ 𝔘𝔫𝔦 ꙮ \U0001f468\u200d\U0001f680",
    "\u0301\u0301 combining first",
    "하나 둘 각\u1100\u1161",
    "\ud7ff\ue000\uffff",
]


@pytest.mark.parametrize("name", ["tinyworld-nsp", "tinyworld-sop"])
def test_pairs_are_judged_as_torch_and_transformers_do(run_node, name):
    from transformers import BertForPreTraining

    model, tokenizer = selfsup.load(name)
    texts = [("rosa walked home .", "she was glad ."), ("it was a fine day .", "omar has a garden ."), (".", ".")]
    coded = [tokenizer(a, b, return_tensors="pt") for a, b in texts]
    pairs = [{"ids": one["input_ids"][0].tolist(), "segments": one["token_type_ids"][0].tolist()} for one in coded]
    found = run_node(PAIR, {"folder": str(CHECKPOINTS / name), "pairs": pairs})
    theirs = BertForPreTraining.from_pretrained(CHECKPOINTS / name, dtype=torch.float32).eval()
    for answer, one in zip(found, coded, strict=True):
        with torch.no_grad():
            words, pair = model.eval()(**one, pair=True)
            output = theirs(**one)
        for ours, reference in ((words[0], output.prediction_logits[0]), (pair[0], output.seq_relationship_logits[0])):
            assert torch.allclose(ours, reference, atol=1e-4)
        assert np.abs(np.array(answer["words"]) - words[0].numpy()).max() < 1e-3
        assert np.abs(np.array(answer["pair"]) - pair[0].numpy()).max() < 1e-3


def test_a_model_without_a_pair_head_says_so(run_node):
    question = {"folder": str(CHECKPOINTS / "tinyworld-pairs"), "pairs": [{"ids": [2, 9, 3], "segments": [0, 0, 0]}]}
    assert run_node(PAIR, question) == "this model judges no pairs of sentences"


def pools(rng: random.Random) -> str:
    ranges = (
        (0x20, 0x7F),
        (0x00, 0x20),
        (0xA0, 0x250),
        (0x300, 0x340),
        (0x370, 0x5F0),
        (0x4E00, 0x4E80),
        (0x2000, 0x2070),
        (0x1F600, 0x1F640),
        (0x61, 0x7B),
        (0x61, 0x7B),
    )
    letters = []
    for _ in range(rng.randrange(1, 40)):
        low, high = rng.choice(ranges)
        letters.append(chr(rng.randrange(low, high)))
    return "".join(letters)


def check_logits(run_node, folder, model, texts) -> None:
    found = run_node(LOGITS, {"folder": str(folder), "texts": texts})
    for ids, rows in zip(texts, found, strict=True):
        with torch.no_grad():
            output = model(torch.tensor([ids]))
        expected = getattr(output, "logits", output)[0].numpy()
        rows = np.array(rows)
        assert np.abs(rows - expected).max() < 1e-3, "the engine's logits are not torch's"
        assert (rows.argmax(1) == expected.argmax(1)).all(), "the engine's first choice is not torch's"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(3, 128, 4), (2, 36, 3)], ids=["3x128", "2x36"])
def test_logits_equal_those_of_a_random_transformers_bert(run_node, tmp_path, dtype, shape):
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(1)
    layers, width, heads = shape
    config = BertConfig(
        vocab_size=601,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=3 * width + 1,
        max_position_embeddings=64,
        initializer_range=0.2,
        layer_norm_eps=1e-5,
    )
    model = BertForMaskedLM(config).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.data.normal_(0, 0.3)
    model.to(dtype).save_pretrained(tmp_path)
    rng = random.Random(0)
    texts = [[rng.randrange(601) for _ in range(length)] for length in (1, 2, 3, 5, 16, 33, 64)]
    check_logits(run_node, tmp_path, model.float(), texts)


def test_every_checkpoint_is_shipped():
    of_tinyworld = ("bert", "gpt", "nsp", "pairs", "seq2seq", "sop", "start")
    assert shipped() == ("storybook-bert", *(f"tinyworld-{name}" for name in of_tinyworld))


@pytest.mark.parametrize("name", ["storybook-bert", "tinyworld-bert"])
def test_logits_of_the_shipped_checkpoints_on_real_text(run_node, language, name):
    model, tokenizer = selfsup.load(name)
    texts = [language.render(document.tokens[:30]) for document in language.documents(5, seed=3)]
    texts = [tokenizer(text)["input_ids"] for text in (*texts, *(s for s, _ in STORIES))]
    mask = tokenizer.mask_token_id
    masked = [[mask if t % 5 == 3 else index for t, index in enumerate(ids)] for ids in texts]
    check_logits(run_node, CHECKPOINTS / name, model.eval(), masked)


@pytest.mark.parametrize("name", ["tinyworld-bert", "storybook-bert"])
def test_tokens_equal_those_of_transformers_on_hostile_text(run_node, checkpoints, name):
    rng = random.Random(0)
    texts = HOSTILE + [pools(rng) for _ in range(400)]
    tokenizer = checkpoints[name].tokenizer.backend_tokenizer
    found = run_node(WORDS, {"folder": str(checkpoints[name].folder), "texts": texts})
    for text, words in zip(texts, found, strict=True):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        found_ids = [index for word in words for index in word["ids"]]
        assert found_ids == encoding.ids, f"other tokens for {text[:80]!r}"
        groups: list[list[int]] = []
        for index, word, before in zip(
            encoding.ids, encoding.word_ids, [-1, *encoding.word_ids], strict=False
        ):
            if word is None or word != before or word == -1:
                groups.append([])
            groups[-1].append(index)
        special = any(token in text for token in tokenizer.get_vocab() if token.startswith("["))
        if not special:  # words are numbered afresh after each special token
            assert [word["ids"] for word in words] == groups, f"other words for {text[:80]!r}"


def test_the_error_function_is_as_exact_as_it_says(run_node):
    x = np.linspace(-6, 6, 100_001)
    code = """
    const { erf } = await import(WIDGETS + "engine.mjs");
    console.log(JSON.stringify(data.map(erf)));
    """
    assert np.abs(np.array(run_node(code, x.tolist())) - torch.erf(torch.tensor(x)).numpy()).max() < 1.5e-7


def test_causal_attention_equals_torch(run_node):
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 5, 8)).astype("float32")
    code = """
    const { attention } = await import(WIDGETS + "engine.mjs");
    const [q, k, v] = data.map((rows) => Float32Array.from(rows.flat()));
    console.log(JSON.stringify(Array.from(attention(q.subarray(16), k, v, 3, 5, 8, 2, true))));
    """
    found = run_node(code, [query.tolist(), key.tolist(), value.tolist()])
    heads = [torch.tensor(x).reshape(5, 2, 4).transpose(0, 1) for x in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(0, 1)
    assert np.allclose(np.array(found).reshape(3, 2, 4), expected[2:].numpy(), atol=1e-5)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_damaged_weights_are_refused_in_one_sentence(run_node, checkpoints, tmp_path, keep):
    whole = (checkpoints["tinyworld-bert"].folder / "model.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    code = """
    const { readSafetensors } = await import(WIDGETS + "engine.mjs");
    let message = "";
    try { readSafetensors(bytes(data)); } catch (error) { message = error.message; }
    console.log(JSON.stringify(message));
    """
    assert "damaged" in run_node(code, str(tmp_path / "cut"))
