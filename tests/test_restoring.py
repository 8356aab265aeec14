"""Chapter 6's record: what a model that mends texts is asked afterwards, and that the record can be made again."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.tasks import TASKS
from selfsup.finetuning import pad
from selfsup.models import EncoderDecoder, TransformerConfig
from selfsup.objectives import IGNORE
from selfsup.objectives.denoising import Denoising
from selfsup.recorded import restoring
from selfsup.recorded.restoring import RESTORING, answers_written, corpus_of, read, written_answers
from selfsup.training import Batches

SMALL = {**RESTORING.model, "layers": 1, "width": 16, "heads": 2, "feed_forward": 16}
FEW = replace(RESTORING, corpus_options={"n": 200, "sentinels": 16}, model=SMALL, steps=2, batch_size=8,
              evaluate_every=2, evaluation_texts=20)


@pytest.fixture
def few(monkeypatch):
    """Few questions, few steps, in this process."""
    small = {"READ": {"tags": 8, "questions": 8}, "WRITTEN": (8, 9), "ASKED": 12,
             "LONGER": {"times": 2, "damages": ("spans",)}, "FINE_TUNED": {"read": 2, "written": 2},
             "DAMAGES": {name: restoring.DAMAGES[name] for name in ("copying", "masking", "spans")},
             "T5": {name: restoring.T5[name] for name in ("prefix", "spans of 50%")},
             "side_by_side": map}
    for name, value in small.items():
        monkeypatch.setattr(restoring, name, value)


def test_an_answer_is_written_from_its_beginning_to_its_end():
    """x′ is the question and its text; the decoder reads [CLS] and the answer, and must say the answer and [SEP]."""
    world, tokenizer = tinyworld.load("world"), corpus_of(**FEW.corpus_options).tokenizer
    examples = TASKS["questions"](world, 20, 0, longest=40, unanswerable=0.0)
    (ids, read_by_decoder, mask), targets = written_answers(examples, tokenizer)
    for one, row, kept, before, told in zip(examples, ids, mask, read_by_decoder, targets):
        answer = list(one.second[slice(*one.gold[0])])
        names = tokenizer.convert_ids_to_tokens(row[kept.bool()].tolist())
        assert names == ["[CLS]", *one.first, "[SEP]", *one.second, "[SEP]"]
        asked = tokenizer.convert_ids_to_tokens(told[told != IGNORE].tolist())
        assert asked == [*answer, "[SEP]"]
        assert tokenizer.convert_ids_to_tokens(before[: len(asked)].tolist()) == ["[CLS]", *answer]


def test_who_writes_the_right_answer_scores_one(few, monkeypatch):
    """Generation is replaced by one that knows: exact and F1 are 1, and of one that says nothing 0."""
    corpus, world = corpus_of(**FEW.corpus_options), tinyworld.load("world")
    model = EncoderDecoder(TransformerConfig(len(corpus.tokenizer), **SMALL))
    asked = TASKS["questions"](world, 12, restoring.TEST_SEED, longest=40, unanswerable=0.0)
    (_, _, _), targets = written_answers(asked, corpus.tokenizer)
    monkeypatch.setattr(restoring, "generate", lambda *_, **__: targets.masked_fill(targets == IGNORE, 0))
    assert answers_written(model, 0, corpus.tokenizer, 8) == {"exact": 1.0, "f1": 1.0}
    monkeypatch.setattr(restoring, "generate", lambda *_, **__: torch.full((12, 1), corpus.tokenizer.sep_token_id))
    assert answers_written(model, 0, corpus.tokenizer, 8) == {"exact": 0.0, "f1": 0.0}
    too_much = torch.cat([targets[:, :1], targets[:, :1], targets.new_full((12, 1), corpus.tokenizer.sep_token_id)], 1)
    monkeypatch.setattr(restoring, "generate", lambda *_, **__: too_much)  # the first word, twice
    half = answers_written(model, 0, corpus.tokenizer, 8)
    assert half["exact"] == 0 and 0 < half["f1"] < 1
    twofold = [replace(one, gold=((0, 1), *one.gold)) for one in asked]  # as if the first word were right, too
    monkeypatch.setitem(TASKS, "questions", lambda *_, **__: twofold)
    monkeypatch.setattr(restoring, "generate", lambda *_, **__: targets.masked_fill(targets == IGNORE, 0))
    assert answers_written(model, 0, corpus.tokenizer, 8) == {"exact": 1.0, "f1": 1.0}, "only the first answer counts"


def test_a_model_learns_before_it_writes_and_before_it_is_judged(few, monkeypatch):
    """What is fine-tuned, and what is trained, moves; a seed decides how."""
    moved = []

    def spy(name):
        original = getattr(restoring, name)

        def wrapped(model, *args, **options):
            before = [weight.detach().clone() for weight in model.parameters()]
            found = original(model, *args, **options)
            moved.append((name, any(not torch.equal(*both) for both in zip(before, model.parameters()))))
            return found

        monkeypatch.setattr(restoring, name, wrapped)

    for name in ("train", "fine_tune"):
        spy(name)
    runs = [restoring.one_damage(("masking", replace(FEW, seed=seed), (8,), False)) for seed in (0, 0, 1)]
    assert moved == [("train", True), *[("fine_tune", True)] * 3] * 3
    assert runs[0] == runs[1] and runs[0]["loss"] != runs[2]["loss"]


def test_what_was_trained_is_what_is_fine_tuned(few, monkeypatch):
    """Training is replaced by one that makes all weights 1/4: fine-tuning begins there, but for the readers' heads."""
    begun = []

    def trained(model, *_, **__):
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(0.25)

    def begins(model, *_, **__):
        part = model if isinstance(model, EncoderDecoder) else model.encoder
        begun.append((type(model).__name__, {*parameters_to_vector(part.parameters()).tolist()}))

    monkeypatch.setattr(restoring, "train", trained)
    monkeypatch.setattr(restoring, "fine_tune", begins)
    found = restoring.one_damage(("masking", FEW, (8, 9), False))
    assert found["cosines"] == pytest.approx({"names": 1, "words": 1}, abs=1e-5), "measured before the training"
    assert begun == [(name, {0.25}) for name in ("EncoderDecoder", "EncoderDecoder", "Tagger", "AnswerFinder")]


def test_a_half_is_renewed_and_the_rest_stays():
    """The other half and the table of tokens stay, and the halves share that table; a seed decides the new weights."""
    model = EncoderDecoder(TransformerConfig(100, **SMALL))
    kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    for half in ("encoder", "decoder"):
        mixed = restoring.renewed(model, [half], seed=5)
        assert mixed.encoder.embeddings.token is mixed.decoder.embeddings.token
        for name, weight in mixed.state_dict().items():
            new = name.startswith(half) and "embeddings.token." not in name and weight.std() > 0  # not a bias or a norm
            assert torch.equal(weight, kept[name]) != new, name
    both = [restoring.renewed(model, ["encoder", "decoder"], seed) for seed in (5, 5, 6)]
    first, again, another = (parameters_to_vector(one.parameters()) for one in both)
    assert torch.equal(first, again) and not torch.equal(first, another)
    assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items()), "the model was changed"


def test_copying_damages_nothing_and_masking_of_half_half():
    corpus = corpus_of(**FEW.corpus_options)
    ids, mask = pad([corpus.train[i] for i in range(100)], corpus.tokenizer)
    for damage, share in (("copying", 0.0), ("masking of half", 0.5)):
        objective = Denoising(corpus.tokenizer, **restoring.DAMAGES[damage])
        split = objective.split(ids, mask, torch.Generator().manual_seed(0))
        gone = (split.inputs["input_ids"] == corpus.tokenizer.mask_token_id).sum() / (mask.sum() - 2 * len(ids))
        assert abs(gone - share) < 0.03 and (share or gone == 0)
        assert torch.equal(split.inputs["decoder_input_ids"], ids[:, :-1])


def test_what_is_asked_was_not_learned(few, monkeypatch):
    drawn, learned = [], []
    for task, draw in [*TASKS.items()]:
        def spied(language, n, seed, task=task, draw=draw, **options):
            examples = draw(language, n, seed, **options)
            drawn.append((task, n, seed, {(one.first, one.second) for one in examples}))
            return examples

        monkeypatch.setitem(TASKS, task, spied)
    monkeypatch.setattr(restoring, "fine_tune", lambda _, batch, labels, **__: learned.append(len(labels)))
    tokenizer = corpus_of(**FEW.corpus_options).tokenizer
    model = EncoderDecoder(TransformerConfig(len(tokenizer), **SMALL))
    read(model, 3)
    answers_written(model, 3, tokenizer, 9)
    assert [one[:3] for one in drawn] == [
        ("tags", 8, 40_003), ("tags", 12, 50_000), ("questions", 8, 40_003), ("questions", 12, 50_000),
        ("questions", 9, 40_003), ("questions", 12, 50_000)]
    assert learned == [8, 8, 9], "it is fine-tuned on other examples than those for it"
    for (*_, seen), (*_, asked) in zip(drawn[::2], drawn[1::2]):
        assert not seen & asked, "what is asked was learned"


def test_a_seed_decides_the_first_weights_of_a_model_and_of_its_heads(few, monkeypatch):
    """Nothing is trained here: what differs, differs from the start."""
    begun = []
    for name in ("train", "fine_tune"):
        monkeypatch.setattr(restoring, name, lambda model, *_, **__: begun.append(
            parameters_to_vector(model.parameters()).detach()))
    for seed in (0, 0, 1):
        restoring.one_damage(("masking", replace(FEW, seed=seed), (8,), False))
    models = begun[::4]  # and after each of them three that are fine-tuned
    assert torch.equal(models[0], models[1]) and not torch.equal(models[0], models[2])
    begun.clear()
    model = EncoderDecoder(TransformerConfig(len(corpus_of(**FEW.corpus_options).tokenizer), **SMALL))
    for seed in (0, 0, 1):
        read(model, seed)
    for first, again, other in (begun[::2], begun[1::2]):  # of tags, and of questions
        assert torch.equal(first, again) and not torch.equal(first, other)


def test_asking_leaves_the_model_as_it_is(few):
    corpus = corpus_of(**FEW.corpus_options)
    model = EncoderDecoder(TransformerConfig(len(corpus.tokenizer), **SMALL))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert set(read(model, 0)) == {"tags", "questions"}
    answers_written(model, 0, corpus.tokenizer, 8)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_the_record_can_be_made_again(few):
    runs = list(restoring.damages(FEW))
    assert [(run["damage"], run["seed"], run["steps"], [*run["written"]]) for run in runs] == [
        *((damage, seed, steps, labels) for seed in range(3)
          for damage, steps, labels in (("copying", 2, [8, 9]), ("masking", 2, [8, 9]), ("spans", 2, [8, 9]),
                                        (None, 0, [8, 9]), ("prefix", 4, [8, 9]), ("spans of 50%", 3, [8, 9]))),
        ("spans", 0, 4, [8, 9])]
    assert [run["damage"] for run in runs if "kept" in run] == ["spans"] * 3
    assert all(("loss" in run) == (run["damage"] is not None) for run in runs)
    assert runs[0]["targets"] > runs[2]["targets"]  # spans write only what is missing
    assert {run["damage"] for run in runs if "cosines" in run} == {"masking", "prefix", "spans of 50%"}
    assert runs[5]["targets"] > runs[2]["targets"]  # of half of a text more than of 15%
    assert runs[5]["multiplications"] == restoring.multiplications("spans of 50%", FEW)
    assert all(("multiplications" in run) == (run["damage"] is not None) for run in runs)


def test_how_alike_the_vectors_of_names_are():
    """Of two names and of two words: 1 where all vectors point one way, 0 where each points along its own axis."""
    tokenizer, world = corpus_of(**FEW.corpus_options).tokenizer, tinyworld.load("world")
    model = EncoderDecoder(TransformerConfig(len(tokenizer), **SMALL | {"width": len(tokenizer), "heads": 1}))
    table, own_axis = model.encoder.embeddings.token.weight, torch.eye(len(tokenizer))
    table.data.copy_(own_axis)
    assert restoring.mean_cosines(model, tokenizer) == {"names": 0.0, "words": 0.0}
    table.data.copy_(3 * torch.ones_like(own_axis))
    assert restoring.mean_cosines(model, tokenizer) == pytest.approx({"names": 1, "words": 1}, abs=1e-5)
    table.data.copy_(own_axis)
    names = [i for i, word in enumerate(world.words, 5) if word in ("julia", "tom", "anna", "greece")]
    assert tokenizer.convert_ids_to_tokens(names[0]) == world.words[names[0] - 5]
    table.data[names] = own_axis[0]
    found = restoring.mean_cosines(model, tokenizer)
    assert found["words"] < 0.001 < found["names"] < 0.01


def test_work_is_what_the_weights_multiply():
    """By hand: a token that is read meets the encoder and the keys and values of each decoder block's look at it; one
    that is written meets the rest of the decoder; one that is asked for meets the table of words."""
    corpus, width, hidden = corpus_of(**FEW.corpus_options), SMALL["width"], SMALL["feed_forward"]
    read = written = 0
    for text in range(20):
        ids, _ = Batches(corpus.train, corpus.tokenizer, 1, seed=0)[text]
        read, written = read + ids.shape[1], written + ids.shape[1] - 1
    a_read = 4 * width**2 + 2 * width * hidden + 2 * width**2
    a_written = 4 * width**2 + 2 * width**2 + 2 * width * hidden + width * len(corpus.tokenizer)
    by_hand = (read * a_read + written * a_written) / 20
    assert restoring.multiplications("masking", FEW, texts=20) == pytest.approx(by_hand, rel=1e-9)
    assert restoring.multiplications("shuffling", FEW, texts=20) == pytest.approx(by_hand, rel=1e-9)
    assert restoring.multiplications("drop", FEW, texts=20) < 0.7 * by_hand
