"""Fine-tuning: a head on an encoder, few labels, nothing but what was asked for changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.tasks import TASKS, Example, classes_of
from selfsup.finetuning import (
    AnswerFinder,
    Classifier,
    Tagger,
    accuracy,
    answer_scores,
    as_batch,
    best_spans,
    fine_tune,
    pad,
    predict,
    score,
    span_scores,
    tag_scores,
    with_head,
    word_counting_accuracy,
    word_f1,
)
from selfsup.models.encoder import Encoder
from selfsup.models.shapes import TransformerConfig
from selfsup.objectives import IGNORE
from selfsup.tokenization import train_wordpiece


def classifier(seed: int = 0, dropout: float = 0.0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(Encoder(TransformerConfig(50, layers=1, width=16, heads=2, feed_forward=32, dropout=dropout)), 2)


def batch(n: int = 12, time: int = 6) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    ids = torch.randint(5, 50, (n, time), generator=torch.Generator().manual_seed(1))
    labels = torch.arange(n) % 2
    ids[:, 2] = 5 + labels  # one word tells the label
    return (ids, torch.ones_like(ids)), labels


def test_pad_puts_texts_between_cls_and_sep():
    tokenizer = tinyworld.load("village").tokenizer
    ids, mask = pad([[7, 8, 9], [10]], tokenizer)
    assert ids.tolist() == [[2, 7, 8, 9, 3], [2, 10, 3, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_padding_counts_for_nothing():
    model = classifier().eval()
    ids = torch.tensor([[2, 7, 8, 3]])
    padded, mask = torch.tensor([[2, 7, 8, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    assert torch.allclose(model(ids, torch.ones_like(ids)), model(padded, mask), atol=1e-5)


def test_learns_what_one_word_tells():
    model, (texts, labels) = classifier(), batch()
    fine_tune(model, texts, labels, steps=60, learning_rate=3e-3)
    assert accuracy(model, texts, labels) == 1.0


def test_a_head_alone_learns_from_vectors():
    vectors, labels = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    vectors[:, 0] += 4 * labels
    head = torch.nn.Linear(4, 2)
    fine_tune(head, (vectors,), labels, steps=60, learning_rate=0.1)
    assert (head(vectors).argmax(-1) == labels).all()


def test_equal_seeds_give_equal_weights():
    (texts, labels), states = batch(), []
    for elsewhere in range(2):
        model = classifier(dropout=0.3)
        torch.manual_seed(elsewhere)  # what else is random in the process does not matter, and is left as it was
        fine_tune(model, texts, labels, steps=5, batch_size=5, seed=3)
        states.append(model.state_dict())
        after, _ = torch.rand(1), torch.manual_seed(elsewhere)
        assert after == torch.rand(1)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_it_is_adamw_at_a_rate_that_falls_to_zero_in_the_order_of_the_seed():
    (texts, labels), steps, rate = batch(), 6, 1e-2
    model, by_hand = classifier(), classifier()
    fine_tune(model, texts, labels, steps=steps, batch_size=5, learning_rate=rate, seed=3)
    generator = torch.Generator().manual_seed(3)
    order = torch.cat([torch.randperm(12, generator=generator) for _ in range(3)])  # epochs, one after the other
    optimizer = torch.optim.AdamW(by_hand.parameters())
    for step, rows in enumerate(order[: 5 * steps].split(5)):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        logits = by_hand(*(part[rows] for part in texts))
        torch.nn.functional.cross_entropy(logits, labels[rows]).backward()
        optimizer.step()
    for (name, ours), other in zip(model.named_parameters(), by_hand.parameters()):
        assert torch.allclose(ours, other, atol=1e-5), name


def test_another_seed_gives_other_weights():
    (texts, labels), weights = batch(), []
    for seed in (0, 1):
        model = classifier()
        fine_tune(model, texts, labels, steps=3, batch_size=5, seed=seed)
        weights.append(model.head.weight)
    assert not torch.equal(*weights)


@pytest.mark.parametrize("n, labelled, size", [(12, 11, 5), (11, 12, 5), (0, 0, 5), (12, 12, 0), (12, 12, -1)])
def test_each_text_needs_a_label(n, labelled, size):
    ((ids, mask), labels), model = batch(), classifier()
    with pytest.raises(ValueError, match=f"{n} texts, {labelled} labels and a batch size of {size} came: give"):
        fine_tune(model, (ids[:n], mask[:n]), labels[:labelled], batch_size=size)


def test_each_epoch_sees_every_text_once():
    seen = []

    class Spy(Classifier):
        def forward(self, input_ids, attention_mask):
            seen.extend(input_ids[:, 0].tolist())
            return super().forward(input_ids, attention_mask)

    torch.manual_seed(0)
    model = Spy(Encoder(TransformerConfig(50, layers=1, width=16, heads=2, feed_forward=32)), 2)
    ids = torch.arange(10, 22)[:, None].repeat(1, 4)
    fine_tune(model, (ids, torch.ones_like(ids)), torch.zeros(12, dtype=torch.long), steps=3, batch_size=4)
    assert sorted(seen) == list(range(10, 22))


def test_accuracy_is_the_share_of_right_answers():
    class Says(torch.nn.Module):
        def forward(self, ids, mask):
            return torch.nn.functional.one_hot(ids[:, 0], 2).float()

    ids = torch.tensor([[0], [1], [1], [0]])
    assert accuracy(Says(), (ids, torch.ones_like(ids)), torch.tensor([0, 1, 0, 0])) == 0.75


def test_fine_tuning_and_scoring_leave_the_mode_alone():
    (texts, labels), model = batch(), classifier()
    long = torch.ones(2, 200, dtype=torch.long)  # more than the model takes
    for training in (True, False):
        model.train(training)
        fine_tune(model, texts, labels, steps=1)
        accuracy(model, texts, labels)
        assert model.training is training
        for work in (lambda: fine_tune(model, (long, long), labels[:2]), lambda: predict(model, (long, long))):
            with pytest.raises(ValueError, match="200 tokens"):
                work()
            assert model.training is training, "an error leaves the model in another mode"


def test_counting_words_finds_the_word_that_tells_and_knows_no_order():
    (ids, mask), labels = batch()
    shuffled = ids.flip(1)
    assert word_counting_accuracy((ids, mask), labels, (shuffled, mask), labels) == 1.0
    short = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])  # the first text has one word
    learned = torch.tensor([[5, 0, 0, 0], [6, 6, 6, 6]]), short
    asked = torch.tensor([[6, 0, 0, 0], [5, 5, 5, 5]]), short
    told = word_counting_accuracy(learned, torch.tensor([0, 1]), asked, torch.tensor([1, 0]))
    assert told == 1.0, "padding counts as a word"
    unknown = torch.full_like(ids, 60)  # words that it never saw leave it with the commoner label
    assert word_counting_accuracy((ids[:5], mask[:5]), labels[:5], (unknown, mask), labels) == 0.5


@pytest.fixture(scope="module")
def village():
    return tinyworld.load("village")


def small(kind, *classes, vocabulary=200, seed=0):
    torch.manual_seed(seed)
    shape = TransformerConfig(vocabulary, layers=1, width=16, heads=2, feed_forward=32, dropout=0.0)
    return kind(Encoder(shape), *classes)


def test_labels_stand_where_the_words_stand(village):
    tokenizer = village.tokenizer
    tagged = TASKS["tags"](village, 20, 1)
    classes = sorted({tag for one in tagged for tag in one.gold})
    (ids, mask, types), labels = as_batch(tagged, tokenizer, classes)
    for row, one in enumerate(tagged):
        words = tokenizer.convert_ids_to_tokens(ids[row][labels[row] != IGNORE])
        assert tuple(words) == one.first
        assert tuple(classes[c] for c in labels[row][labels[row] != IGNORE]) == one.gold
    assert (types == 0).all() and (labels[mask == 0] == IGNORE).all()
    asked = TASKS["questions"](village, 40, 1)
    (ids, mask, types), labels = as_batch(asked, tokenizer)
    for row, one in enumerate(asked):
        start, end = labels[row].tolist()
        told = tuple(tokenizer.convert_ids_to_tokens(ids[row, start : end + 1]))
        assert told == (one.second[slice(*one.gold[0])] if one.gold else ("[CLS]",))
        assert (types[row, start : end + 1] == bool(one.gold)).all()
    _, labels = as_batch(TASKS["sentiment"](village, 20, 1), tokenizer)
    assert labels.tolist() == [one.gold for one in TASKS["sentiment"](village, 20, 1)]
    with pytest.raises(ValueError, match="NOUN"):
        as_batch(tagged, tokenizer, [tag for tag in classes if tag != "NOUN"])


def test_classes_may_be_numbers_of_numpys(village):
    examples = [Example(one.first, (), np.int64(one.gold)) for one in TASKS["sentiment"](village, 5, 1)]
    _, labels = as_batch(examples, village.tokenizer)
    assert labels.dtype == torch.long and labels.tolist() == [one.gold for one in examples]


WORDS = ("the", "boat", "came", ".")
TAGGED, ASKED = Example(WORDS, (), ("DET",) * 4), Example(("who", "came", "?"), WORDS, ((0, 2),))


@pytest.mark.parametrize(("examples", "message"), [
    ([], "no examples: give at least one"),
    ([TAGGED, Example(WORDS, (), ("DET",) * 3)], "3 tags came for 4 words"),
    ([Example(WORDS, (), ("DET",) * 5)], "5 tags came for 4 words"),
    ([Example(WORDS, (), 0), Example(WORDS, WORDS, 1)], "some examples have a second text and some have none"),
    ([Example(WORDS, WORDS, 0), Example(WORDS, (), 1)], "some examples have a second text and some have none"),
    ([ASKED, Example(WORDS, WORDS, ((3, 5),))], r"an answer is at \(3, 5\) of a text of 4 words"),
    ([Example(WORDS, WORDS, ((-1, 2),))], r"an answer is at \(-1, 2\)"),
    ([Example(WORDS, WORDS, ((0, 1), (2, 2)))], r"an answer is at \(2, 2\)"),
])  # fmt: skip
def test_examples_that_do_not_fit_are_refused(village, examples, message):
    with pytest.raises(ValueError, match=message):
        as_batch(examples, village.tokenizer, ["DET"])


def test_labels_of_words_need_one_token_a_word(village):
    letters = " ".join("abcdefghijklmnopqrstuvwxyz")
    pieces = train_wordpiece([f"{letters} the . , ! ?"], 60, min_frequency=1)
    for task in TASKS:
        examples = TASKS[task](village, 4, 1)
        if task in ("sentiment", "entailment"):
            assert as_batch(examples, pieces)[1].tolist() == [one.gold for one in examples]
            continue
        with pytest.raises(ValueError, match="words came as [0-9]+ tokens.*give a word-level tokenizer"):
            as_batch(examples, pieces, classes_of(task, village))


def test_best_span_equals_trying_them_all():
    torch.manual_seed(0)
    logits, types = torch.randn(40, 2, 12), torch.zeros(40, 12, dtype=torch.long)
    types[:, 5:12] = 1  # the last of them is [SEP]
    for row, found in enumerate(best_spans(logits, types, longest=3).tolist()):
        spans = [(0, 0), *((a, b) for a in range(5, 11) for b in range(a, min(a + 3, 11)))]
        assert tuple(found) == max(spans, key=lambda s: logits[row, 0, s[0]] + logits[row, 1, s[1]])


def test_an_answer_has_eight_words_at_most_and_is_found_on_any_device():
    logits, types = torch.zeros(1, 2, 20), torch.zeros(1, 20, dtype=torch.long)
    types[:, 5:] = 1
    logits[0, 0, 5], logits[0, 1, 13], logits[0, 1, 12] = 10.0, 10.0, 5.0
    assert best_spans(logits, types).tolist() == [[5, 12]], "nine words are too many, eight are not"
    assert span_scores(logits.to("meta"), types.to("meta")).device.type == "meta"


class Elsewhere(torch.Tensor):
    """A tensor as on a GPU: NumPy cannot have it before it is fetched."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def numpy(self):
        raise TypeError("this tensor is on another device")


def test_what_is_on_another_device_is_scored():
    class Says(torch.nn.Module):
        def forward(self, ids, mask):
            return torch.nn.functional.one_hot(ids, 3).float()

    (ids, mask), labels = batch()
    away = [tensor.as_subclass(Elsewhere) for tensor in (ids % 3, mask, ids % 3, labels)]
    assert tag_scores(Says(), tuple(away[:2]), away[2], "abc")["macro"] == 1.0
    texts = ids.as_subclass(Elsewhere), away[1]
    assert word_counting_accuracy(texts, away[3], texts, away[3]) == 1.0


def test_answers_are_scored_as_squad_scores_them():
    assert word_f1("a red kite".split(), "the kite".split()) == pytest.approx(2 / 3)  # 1 of 2, and 1 of 1
    assert word_f1("the kite".split(), "a kite .".split()) == 1.0
    assert word_f1((), ()) == 1.0 and word_f1((), ("kite",)) == 0.0 and word_f1(("kite",), ()) == 0.0
    assert word_f1("red red".split(), ["red"]) == pytest.approx(2 / 3)  # a word counts as often as it stands there

    class Says(AnswerFinder):
        def __init__(self, spans):
            super(AnswerFinder, self).__init__()
            self.spans = spans

        def forward(self, ids, mask, types):
            logits = torch.zeros(len(ids), 2, ids.shape[1])
            for row, span in enumerate(self.spans):
                logits[row, [0, 1], list(span)] = 10.0
            return logits

    text = tuple("ann saw a red kite .".split())  # [CLS] what ? [SEP] puts it at 4
    examples = [Example(("what", "?"), text, ((2, 5), (0, 1))), Example(("what", "?"), text, ((2, 5),)),
                Example(("what", "?"), text, ())]
    ids = torch.zeros(3, 11, dtype=torch.long)
    types = torch.zeros_like(ids)
    types[:, 4:11] = 1  # the text and its [SEP]
    scores = answer_scores(Says([(4, 4), (8, 8), (0, 0)]), (ids, torch.ones_like(ids), types), examples)
    assert scores == {"exact_match": pytest.approx(2 / 3), "f1": pytest.approx((1 + 2 / 3 + 1) / 3)}
    with pytest.raises(ValueError):
        answer_scores(Says([(4, 4), (8, 8), (0, 0)]), (ids, torch.ones_like(ids), types), examples[:2])


def test_scores_of_tags_are_scikit_learns():
    from sklearn.metrics import f1_score

    class Says(torch.nn.Module):
        def forward(self, ids, mask):
            return torch.nn.functional.one_hot(ids, 3).float()

    ids, gold = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]]), torch.tensor([[0, 1, 1, 2], [1, 0, IGNORE, 2]])
    scores = tag_scores(Says(), (ids, torch.ones_like(ids)), gold, ["a", "b", "c"])
    told, right = [0, 1, 2, 2, 1, 1, 2], [0, 1, 1, 2, 1, 0, 2]
    expected = f1_score(right, told, average=None)
    assert scores == pytest.approx(dict(zip("abc", expected)) | {"macro": expected.mean()})
    assert scores["a"] == pytest.approx(2 / 3)  # by hand: one of one told is right, one of two is found
    assert accuracy(Says(), (ids, torch.ones_like(ids)), gold) == pytest.approx(5 / 7)


def test_the_second_text_is_told_by_its_token_types():
    model = small(Classifier, 2).eval()
    ids = torch.randint(5, 200, (1, 8))
    mask, types = torch.ones_like(ids), torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    assert not torch.allclose(model(ids, mask, types), model(ids, mask))


@pytest.mark.parametrize("task", TASKS)
def test_each_kind_of_task_is_learned(task, village):
    examples = TASKS[task](village, 24, 3)
    classes = sorted({tag for one in examples for tag in one.gold}) if task == "tags" else ()
    batch, labels = as_batch(examples, village.tokenizer, classes)
    heads = {"tags": (Tagger, len(classes)), "questions": (AnswerFinder,)}
    kind, *sizes = heads.get(task, (Classifier, 3))
    states = []
    for _ in range(2):
        model = small(kind, *sizes, vocabulary=len(village.tokenizer))
        fine_tune(model, batch, labels, steps=150, batch_size=8, learning_rate=1e-2)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), "equal seeds, equal weights"
    told = predict(model, batch)
    right = (told == labels) | (labels == IGNORE)
    assert right.float().mean() > 0.9


def test_what_is_frozen_stays_and_the_rest_moves():
    model, (texts, labels) = classifier(), batch()
    model.encoder.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fine_tune(model, texts, labels, steps=3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("encoder"), name


def test_one_score_for_each_kind_of_task(village):
    for task in TASKS:
        classes = classes_of(task, village)
        examples = TASKS[task](village, 12, 3)
        batch, labels = as_batch(examples, village.tokenizer, classes)
        torch.manual_seed(0)
        model = with_head(Encoder(TransformerConfig(200, layers=1, width=16, heads=2, feed_forward=32)), task, classes)
        if task == "tags":
            expected = tag_scores(model, batch, labels, classes)["macro"]
        else:
            expected = answer_scores(model, batch, examples)["f1"] if not classes else accuracy(model, batch, labels)
        assert score(model, batch, labels, examples, classes) == expected
    with pytest.raises(ValueError, match="no head for the task 'tagging': choose one of sentiment, tags"):
        with_head(model.encoder, "tagging", ["a"])
