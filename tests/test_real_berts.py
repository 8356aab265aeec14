"""Probes of BERTs in `transformers`: each word's own vector, what was planted, and folders that hold no BERT."""

from __future__ import annotations

import json
import pickle

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers

from selfsup import probing
from selfsup.corpora.tinyworld.tasks import Example
from selfsup.models import ModelUnavailable, pretrained
from selfsup.probing import fit_probe, interval, load_encoder, piece_vectors, probe_checkpoints, right

WORDS = [f"w{number}" for number in range(300)]  # word i has the tag i % 3
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "run", "##s", "##ning", "mr", ".", "cafe"]
TAGS = ("A", "B", "C")
PICKLED = "pytorch_model.bin"


def write_folder(folder, model, pickled=False):
    """A checkpoint in the form of the MultiBERTs: vocab.txt, and their weights in a pickle if `pickled`."""
    model.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        tensors = dict(model.state_dict())
        if model is not model.base_model:
            tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]  # which old checkpoints hold
        torch.save(tensors, folder / PICKLED)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY + WORDS) + "\n")
    described = {"do_lower_case": True, "model_max_length": 64, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


def bert(kind="BertForPreTraining", seed=0):
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY + WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bert"), bert(), pickled=True)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A checkpoint whose embeddings tell the tag of every word, and which has never been taught anything."""
    model = bert(seed=1)
    for number in range(len(WORDS)):
        model.bert.embeddings.word_embeddings.weight.data[len(VOCABULARY) + number, number % 3] += 1
    return write_folder(tmp_path_factory.mktemp("planted"), model)


def sentences(words, n, seed):
    """n sentences of five of those words, with their tags."""
    drawn = np.random.default_rng(seed).choice(words, (n, 5))
    return [Example(tuple(f"w{number}" for number in row), (), tuple(TAGS[number % 3] for number in row))
            for row in drawn.tolist()]  # fmt: skip


LEARNED, JUDGED = sentences(range(200), 120, seed=0), sentences(range(200, 300), 80, seed=1)  # no word in both

HARD = [["The", "dog", "runs"], ["Mr.", "running", "dog", "s"], ["run"], ["dog"] * 62,
        ["\u2603", "x" * 150, "runsrunning", "caf\u00e9."], [".", "20 000", "run run", "Runnings"]]  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_word_has_the_vector_of_its_first_piece(folder, batch_size):
    """Against transformers, a sentence at a time without padding, each word cut into its pieces alone."""
    encoder, tokenizer = load_encoder(folder)
    found, at = piece_vectors(encoder, tokenizer, HARD, batch_size), 0
    for words in HARD:
        pieces = [tokenizer.tokenize(word) for word in words]
        assert all(pieces)
        places = [1 + sum(map(len, pieces[:number])) for number in range(len(words))]
        ids = tokenizer.convert_tokens_to_ids(["[CLS]", *sum(pieces, []), "[SEP]"])
        with torch.no_grad():
            alone = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer, states in enumerate(alone):
            difference = (found[layer, at : at + len(words)] - states[0, places]).abs().max()
            assert difference < 1e-5, f"layer {layer} of {words}: another vector than that of the first piece"
        at += len(words)
    assert found.shape == (3, at, 24) and found.dtype == torch.float32 and not found.requires_grad
    cut = [tokenizer.tokenize(word) for word in HARD[4]]
    assert cut == [["[UNK]"], ["[UNK]"], ["[UNK]"], ["cafe", "."]], "of what cannot be cut, one piece is left"
    assert [tokenizer.tokenize(word) for word in HARD[0]] == [["the"], ["dog"], ["run", "##s"]]


@pytest.mark.parametrize("word", ["", " ", "\u200b", "\x00"])
def test_a_word_of_which_nothing_is_left_is_refused(folder, word):
    with pytest.raises(ValueError, match="cut into pieces: leave the sentence .*dog.* out") as error:
        piece_vectors(*load_encoder(folder), [["dog"], ["the", word, "dog"]], batch_size=1)
    assert repr(word) in str(error.value)


def test_a_sentence_that_the_model_cannot_read_is_refused(folder):
    with pytest.raises(ValueError, match="the sentence 'dog dog dog dog dog dog …' has 65 pieces"):
        piece_vectors(*load_encoder(folder), [["dog"], ["dog"] * 63])


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForMaskedLM", "BertModel"])
def test_reads_every_kind_of_checkpoint_without_a_warning(tmp_path, capfd, kind, pickled):
    model = bert(kind)
    encoder, _ = load_encoder(write_folder(tmp_path, model, pickled))
    said = "".join(capfd.readouterr()).lower()
    assert not any(word in said for word in ("some weights", "unexpected", "missing", "newly initialized")), said
    assert type(encoder).__name__ == "BertModel" and not encoder.training
    theirs = model.base_model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in encoder.state_dict().items())


def test_half_precision_is_read_as_float32(tmp_path):
    encoder, _ = load_encoder(write_folder(tmp_path, bert().half()))
    assert {tensor.dtype for tensor in encoder.parameters()} == {torch.float32}


def test_reads_a_shipped_checkpoint():
    encoder, tokenizer = load_encoder("storybook-bert")
    ours, _ = pretrained.load("storybook-bert")
    found = piece_vectors(encoder, tokenizer, [["The", "old", "boat", "."]])
    ids = tokenizer([["The", "old", "boat", "."]], is_split_into_words=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        alone = ours.encoder(ids, all_layers=True)[:, 0]
    assert torch.allclose(found[:, 0], alone[:, 1], atol=1e-5) and torch.allclose(found[:, -1], alone[:, -2], atol=1e-5)


def test_what_was_planted_is_found_and_what_was_not_is_not(planted):
    rows = {(row["checkpoint"], row["layer"]): row for row in probe_checkpoints([planted], LEARNED, JUDGED)}
    assert [*rows] == [("commonest tag", None), ("usual tag", None), *((str(planted), layer) for layer in range(3)),
                       *(("random weights", layer) for layer in range(3))]  # fmt: skip
    for layer in range(3):
        accuracy, low, high = rows[str(planted), layer]["accuracy"]
        assert accuracy > 0.95, f"layer {layer} tells the tag of words that it has not learned from"
        assert low <= accuracy <= high
        assert rows[str(planted), layer]["selectivity"][1] > 0.3, "their control labels stand in no vector"
        assert rows["random weights", layer]["accuracy"][0] < 0.5, "nor do the tags where nothing was planted"
    assert rows["usual tag", None] == {**rows["commonest tag", None], "checkpoint": "usual tag"}, "all words are new"
    for row in rows.values():
        assert row["selectivity"][0] == pytest.approx(row["accuracy"][0] - row["control"][0])
        assert row["selectivity"][1] <= row["selectivity"][0] <= row["selectivity"][2]


def test_shuffled_tags_are_not_found(planted):
    def shuffled(examples, seed):
        drawn = np.random.default_rng(seed).choice(TAGS, (len(examples), 5)).tolist()
        return [Example(one.first, (), tuple(tags)) for one, tags in zip(examples, drawn)]

    rows = [*probe_checkpoints([planted], shuffled(LEARNED, 2), shuffled(JUDGED, 3), layers=[0, 2])]
    assert all(row["accuracy"][0] < 0.45 for row in rows) and {row["layer"] for row in rows} == {None, 0, 2}


def test_a_row_by_hand(folder, planted):
    judged = sentences(range(300), 20, seed=4)
    rows = [*probe_checkpoints([folder, planted], LEARNED, judged, layers=[1], penalty=5.0)]
    assert [row["checkpoint"] for row in rows[2:]] == [str(folder), str(planted), "random weights"]
    vectors = piece_vectors(*load_encoder(planted), [one.first for one in LEARNED + judged])[1]
    labels = torch.tensor([TAGS.index(tag) for one in LEARNED + judged for tag in one.gold])
    known = 5 * len(LEARNED)
    found = right(fit_probe(vectors[:known], labels[:known], 3, penalty=5.0), vectors[known:], labels[known:])
    assert rows[3]["accuracy"] == (found.mean(), *interval(found, np.repeat(np.arange(20), 5))), "drawn by sentence"
    usual = {word: tag for one in LEARNED for word, tag in zip(one.first, one.gold)}
    commonest = TAGS[int(labels[:known].bincount().argmax())]
    told = [usual.get(word, commonest) == tag for one in judged for word, tag in zip(one.first, one.gold)]
    assert rows[1]["accuracy"][0] == pytest.approx(np.mean(told)), "the word's usual tag"
    known_words = np.mean([word in usual for one in judged for word in one.first])
    assert rows[1]["control"][0] >= known_words, "a word's control label is known as soon as the word is"


def test_words_are_told_apart_in_lower_case(folder):
    upper = [Example(tuple(word.upper() for word in one.first), (), one.gold) for one in LEARNED]
    usual = [row for row in probe_checkpoints([folder], LEARNED, upper, layers=[0]) if row["checkpoint"] == "usual tag"]
    assert usual[0]["accuracy"][0] == usual[0]["control"][0] == 1.0


def test_equal_seeds_give_equal_random_weights(folder):
    def ask(seed):
        before = torch.get_rng_state()
        rows = [*probe_checkpoints([folder], LEARNED, LEARNED, layers=[2], seed=seed, steps=5)]
        assert torch.equal(torch.get_rng_state(), before), "the reader's own random numbers stay as they were"
        return rows

    assert ask(0) == ask(0) and ask(0)[-1]["accuracy"] != ask(1)[-1]["accuracy"]


@pytest.mark.parametrize("given, why", [
    (([], LEARNED, JUDGED), "one checkpoint or more"), ((["f"], [], JUDGED), "one checkpoint or more"),
    ((["f"], LEARNED, []), "one checkpoint or more"),
])  # fmt: skip
def test_what_is_empty_is_refused(given, why):
    with pytest.raises(ValueError, match=why):
        next(probe_checkpoints(*given))


def test_a_layer_that_is_not_there_is_refused(folder):
    with pytest.raises(ValueError, match=r"layers \[0, 3\] were asked for, and .* has 0 to 2"):
        list(probe_checkpoints([folder], LEARNED, JUDGED, layers=[0, 3]))


def test_without_a_network_nothing_begins(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "_refused", {})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(probing, "load_encoder", lambda name: pytest.fail("it was begun"))
    name = "google/multiberts-seed_0-step_20k"
    with pytest.raises(ModelUnavailable, match=f"could not get '{name}' from the Hugging Face hub") as error:
        next(probe_checkpoints([folder, name], LEARNED, JUDGED))
    assert "\n" not in str(error.value)


class Trap:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def lacks_a_tensor(folder):
    tensors = torch.load(folder / PICKLED)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    torch.save(tensors, folder / PICKLED)


def has_another_shape(folder):
    tensors = torch.load(folder / PICKLED)
    tensors["bert.encoder.layer.1.output.dense.weight"] = torch.zeros(3, 3)
    torch.save(tensors, folder / PICKLED)


def is_cut_short(folder):
    (folder / PICKLED).write_bytes((folder / PICKLED).read_bytes()[:2000])


def runs_code(folder):
    (folder / PICKLED).write_bytes(pickle.dumps(Trap(folder / "ran"), protocol=2))


def has_no_weights(folder):
    (folder / PICKLED).unlink()


def is_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "t5"}))


def has_an_unknown_class(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchBert"]}))


def has_no_configuration(folder):
    (folder / "config.json").unlink()


def has_a_damaged_configuration(folder):
    (folder / "config.json").write_text('{"model_type": "bert"')


def has_no_tokenizer(folder):
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize("damage", [lacks_a_tensor, has_another_shape, is_cut_short, runs_code, has_no_weights,
                                    is_another_model, has_an_unknown_class, has_no_configuration,
                                    has_a_damaged_configuration, has_no_tokenizer])  # fmt: skip
def test_a_folder_that_holds_no_whole_bert_is_refused_in_a_sentence(tmp_path, damage):
    damage(write_folder(tmp_path, bert(), pickled=True))
    with pytest.raises(ValueError) as error:
        load_encoder(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value), error.value
    assert not (tmp_path / "ran").exists(), "weights ran code"
