"""Next token prediction: one shift, every token a question, and the entropy rate as its floor."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from selfsup.corpora import load_corpus, tinyworld
from selfsup.models import LanguageModel, TransformerConfig
from selfsup.objectives import IGNORE, load_objective
from selfsup.objectives.masking import rare_repeats
from selfsup.objectives.next_token import shift_by_one
from selfsup.training import Batches, evaluate


@given(st.lists(st.lists(st.integers(5, 9), max_size=6), min_size=1, max_size=4))
def test_each_token_is_the_answer_to_what_is_before_it(texts):
    longest = max(map(len, texts)) + 2
    rows = [[2, *text, 3] for text in texts]
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    seen, targets = shift_by_one(ids, mask)
    for row, read, told in zip(rows, seen.tolist(), targets.tolist()):
        n = len(row) - 1
        assert read[:n] == row[:-1] and told[:n] == row[1:], "the target is not the token that follows"
        assert set(told[n:]) <= {IGNORE}, "padding was asked for"


class WhoKnows(torch.nn.Module):
    """Gives the exact P(next token | the tokens before it) of Tinyworld as logits."""

    def __init__(self, language):
        super().__init__()
        self.language = language

    def forward(self, input_ids, positions):
        rows = []
        for ids, asked in zip(input_ids, positions):
            words = self.language.tokenizer.convert_ids_to_tokens(ids.tolist())
            rows += [self.language.next_word(words[1 : at + 1]) for at in asked.nonzero().flatten().tolist()]
        return torch.tensor(np.log(np.maximum(np.array(rows), 1e-30)))


def test_who_knows_the_rules_pays_the_entropy_rate():
    """The floor counts what the objective counts: each word, and the end of the text, once."""
    language, corpus = tinyworld.load("village"), load_corpus("village", n=1)
    texts, objective = corpus.held_out.select(range(12)), load_objective("next_token", corpus.tokenizer)
    score = evaluate(WhoKnows(language), objective, texts, corpus.tokenizer, batch_size=4)
    exact = tinyworld.next_token_floor(language, texts)
    assert score.targets == exact.n == texts.lengths.sum() + len(texts)
    assert abs(score.loss - exact.value) < 1e-5
    assert objective.floor in corpus.floors


def test_losses_need_no_padding_mask():
    """Padding stands behind every question: the losses in a batch are those of each text alone."""
    corpus = load_corpus("village", n=20)
    torch.manual_seed(0)
    sizes = dict(layers=2, width=16, heads=2, feed_forward=16, segments=0, dropout=0.0)
    model = LanguageModel(TransformerConfig(len(corpus.tokenizer), **sizes)).eval()
    objective = load_objective("next_token", corpus.tokenizer)
    ids, mask = Batches(corpus.train, corpus.tokenizer, 20, seed=0)[0]
    assert (mask == 0).any()
    together, alone = objective.losses(model, objective.split(ids, mask, None)), []
    for row, n in zip(ids, mask.sum(1).tolist()):
        alone.append(F.cross_entropy(model(row[None, : n - 1])[0], row[1:n], reduction="none"))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_at_a_low_rate_the_rare_words_said_before_are_still_asked():
    """A phase of training that asks for names which the text has said already, and for little else."""
    corpus = load_corpus("village", n=400)
    ids, mask = Batches(corpus.train, corpus.tokenizer, 400)[0]
    whole = load_objective("next_token", corpus.tokenizer).split(ids, mask).targets
    objective = load_objective("next_token", corpus.tokenizer, rate=0.0)
    asked = objective.split(ids, mask, torch.Generator().manual_seed(0)).targets
    share = ids.flatten().bincount() / mask.sum()
    for row, (targets, every) in enumerate(zip(asked.tolist(), whole.tolist())):
        for t, (target, token) in enumerate(zip(targets, every)):
            said_and_rare = token in ids[row, : t + 1].tolist() and share[token] <= objective.rare
            assert target == (token if token != IGNORE and said_and_rare else IGNORE)
    assert (asked != IGNORE).sum() > 50, "hardly anything was asked"
    half = load_objective("next_token", corpus.tokenizer, rate=0.5)
    drawn = half.split(ids, mask, torch.Generator().manual_seed(0)).targets
    torch.rand(3)  # what others draw decides nothing
    again, other = (half.split(ids, mask, torch.Generator().manual_seed(seed)).targets for seed in (0, 1))
    assert torch.equal(again, drawn) and not torch.equal(other, drawn)
    rarer = load_objective("next_token", corpus.tokenizer, rate=0.0, rare=0.002).split(ids, mask).targets
    assert 0 < (rarer != IGNORE).sum() < (asked != IGNORE).sum(), "rare is not read"
    rest = whole[(whole != IGNORE) & (asked == IGNORE)]
    assert abs(((drawn != IGNORE) & (asked == IGNORE)).sum() / len(rest) - 0.5) < 0.02
    assert objective.floor is None and half.floor is None, "its floor is another"
    for wrong in ({"rate": 1.5}, {"rare": -1}):
        with pytest.raises(ValueError, match="from 0 to 1"):
            load_objective("next_token", corpus.tokenizer, **wrong)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_what_is_said_before_and_rare_is_what_repeats_before_and_is_rare(rate):
    """A word that stands before its place stands twice in its text: to ask for both compares all tokens once more."""
    corpus = load_corpus("village", n=200)
    objective = load_objective("next_token", corpus.tokenizer, rate=rate)
    batches = Batches(corpus.train, corpus.tokenizer, 50)
    for step in range(len(batches)):
        ids, mask = batches[step]
        before = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(-1)
        asked = (before & rare_repeats(ids, mask, objective.rare))[:, 1:]
        asked |= torch.rand(asked.shape, generator=torch.Generator().manual_seed(step)) < rate
        every = shift_by_one(ids, mask)[1]
        found = objective.split(ids, mask, torch.Generator().manual_seed(step)).targets
        assert torch.equal(found, every.where(asked, torch.tensor(IGNORE)))
