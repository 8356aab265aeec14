"""The n-gram against counting by hand, and both rivals as language models."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.corpora import load_corpus
from selfsup.finetuning import pad
from selfsup.models import TransformerConfig
from selfsup.models.predecessors import NGram, RecurrentLanguageModel
from selfsup.objectives import load_objective
from selfsup.training import evaluate

V = 9


def batch(texts):
    longest = max(map(len, texts)) + 2
    ids = torch.tensor([[2, *text, 3] + [0] * (longest - len(text) - 2) for text in texts])
    return ids, (ids != 0).long()


def slow(texts, past, n, discount):
    """(vocab,) by the definition, with dictionaries; past: the tokens before, [CLS] at the front as often as needed."""
    if n == 0:
        return [1 / V] * V
    grams = Counter()
    for text in texts:
        row = [2] * max(n - 1, 1) + [*text, 3]
        for at in range(max(n - 1, 1), len(row)):
            grams[tuple(row[at - n + 1 : at + 1])] += 1
    before = tuple(([2] * n + past)[len(past) + 1 :]) if n > 1 else ()
    seen = [grams[(*before, token)] for token in range(V)]
    lower = slow(texts, past, n - 1, discount)
    if not sum(seen):
        return lower
    freed = discount * sum(count > 0 for count in seen)
    return [(max(count - discount, 0) + freed * other) / sum(seen) for count, other in zip(seen, lower)]


@given(st.lists(st.lists(st.integers(5, V - 1), min_size=1, max_size=6), min_size=1, max_size=4),
       st.lists(st.integers(5, V - 1), min_size=1, max_size=5), st.integers(1, 4), st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_the_n_gram_is_its_definition(texts, asked, n, discount):
    model = NGram(V, n, discount).fit(*batch(texts))
    told = model(torch.tensor([[2, *asked]])).exp()[0]
    for at in range(len(asked) + 1):
        expected = torch.tensor(slow(texts, [2, *asked[:at]], n, discount), dtype=torch.float64)
        torch.testing.assert_close(told[at], expected)
    torch.testing.assert_close(told.sum(-1), torch.ones(len(asked) + 1, dtype=torch.float64))


def test_longer_pasts_help_and_none_beats_the_floor():
    corpus = load_corpus("village", n=4000)
    objective, some = load_objective("next_token", corpus.tokenizer), corpus.held_out.select(range(200))
    ids = pad([list(corpus.train[i]) for i in range(len(corpus.train))], corpus.tokenizer)
    losses = []
    for n in (1, 2, 3):
        model = NGram(len(corpus.tokenizer), n).fit(*ids)
        losses.append(evaluate(model, objective, some, corpus.tokenizer).loss)
    assert losses[0] > losses[1] + 0.5 > losses[2] + 0.5 and losses[2] > corpus.floors["next_token"]


def test_the_recurrent_model_never_looks_ahead():
    torch.manual_seed(0)
    model = RecurrentLanguageModel(TransformerConfig(V, layers=2, width=8, heads=1, feed_forward=1, segments=0)).eval()
    ids = torch.randint(5, V, (3, 7))
    changed = ids.clone()
    changed[:, 4:] = (changed[:, 4:] - 4) % 4 + 5
    with torch.no_grad():
        before, after = model(ids), model(changed)
        assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])
        asked = torch.rand(3, 7) < 0.5
        torch.testing.assert_close(model(ids, positions=asked), before[asked])


@pytest.mark.parametrize(("n", "discount"), [(0, 0.5), (2, 0.0), (2, 1.0)])
def test_what_cannot_be(n, discount):
    with pytest.raises(ValueError, match="give n from 1 and a discount between 0 and 1"):
        NGram(V, n, discount)
    with pytest.raises(ValueError, match="choose a smaller n"):
        NGram(1000, 7)
