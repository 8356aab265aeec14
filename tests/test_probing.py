"""Probes: what scikit-learn finds, what was planted, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from selfsup.corpora import tinyworld
from selfsup.finetuning import pad
from selfsup.models.encoder import Encoder
from selfsup.models.shapes import TransformerConfig
from selfsup.probing import (
    PORTIONS,
    control_labels,
    description_length,
    fit_probe,
    interval,
    right,
    told_by_layer,
    word_baseline,
    word_vectors,
)

WIDTH, CLASSES = 12, 4


def drawn(n=600, seed=0, signal=0.0):
    """Vectors of noise, (n, WIDTH), and labels, which stand in the first columns as strongly as `signal` says."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, WIDTH, generator=generator)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    vectors[torch.arange(n), labels] += signal
    return vectors, labels


@pytest.mark.parametrize("penalty", [0.5, 50.0])
def test_a_linear_probe_is_scikit_learns(penalty):
    vectors, labels = drawn(signal=1.5)
    vectors = vectors * torch.linspace(0.1, 30, WIDTH) + 5
    scaler = StandardScaler().fit(vectors)
    theirs = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000)
    theirs.fit(scaler.transform(vectors), labels)
    other, _ = drawn(seed=1, signal=1.5)
    ours = fit_probe(vectors, labels, CLASSES, penalty=penalty)(other).softmax(-1)
    assert np.abs(ours.numpy() - theirs.predict_proba(scaler.transform(other))).max() < 1e-3


def test_a_planted_label_is_found_and_its_absence_is_not():
    (seen, labels), (other, asked) = drawn(seed=0, signal=6.0), drawn(seed=1, signal=6.0)
    assert right(fit_probe(seen, labels, CLASSES), other, asked).mean() > 0.98
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    assert right(fit_probe(seen, shuffled, CLASSES), other, asked).mean() < 0.35, "shuffled labels tell nothing"
    noise, _ = drawn(seed=2)
    assert right(fit_probe(noise, labels, CLASSES), drawn(seed=3)[0], asked).mean() < 0.35, "nor does noise"


def test_each_layer_is_asked_by_a_probe_of_its_own():
    """A label that stands in the second layer alone is told there, and by chance in the first."""
    (seen, labels), (other, gold) = drawn(seed=0, signal=1.5), drawn(seed=1, signal=1.5)
    noise = [drawn(seed=seed)[0] for seed in (2, 3)]
    nothing, told = told_by_layer(torch.stack([noise[0], seen]), labels, torch.stack([noise[1], other]), gold, CLASSES,
                                  penalty=2.0)
    assert (told == right(fit_probe(seen, labels, CLASSES, penalty=2.0), other, gold)).all() and told.mean() > 0.6
    assert nothing.shape == gold.shape and nothing.mean() < 0.35


def test_a_hidden_layer_learns_what_no_line_can_part():
    vectors = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    labels = (vectors[:, 0] * vectors[:, 1] > 0).long()
    assert right(fit_probe(vectors, labels, 2), vectors, labels).mean() < 0.7
    assert right(fit_probe(vectors, labels, 2, hidden=16, penalty=0.1), vectors, labels).mean() > 0.95
    a, b = (fit_probe(vectors, labels, 2, hidden=4, seed=3)(vectors) for _ in range(2))
    assert torch.equal(a, b), "equal seeds, equal probes"


def test_a_control_label_is_the_words_own():
    words = torch.randint(50, (3000,), generator=torch.Generator().manual_seed(0))
    labels = (words % 5 == 0).long()
    control = control_labels(words, labels, 2000)
    for word in range(50):
        assert len(set(control[words == word].tolist())) == 1
    assert not torch.equal(control, labels) and torch.equal(control, control_labels(words, labels, 2000))
    every = control_labels(torch.arange(2000), labels, 2000)
    assert abs(every.float().mean() - labels.float().mean()) < 0.03, "drawn as often as the real ones"
    vectors, _ = drawn(3000)
    probe = fit_probe(vectors[:2000], control[:2000], 2)
    commonest = max(control[2000:].float().mean(), 1 - control[2000:].float().mean())
    assert right(probe, vectors[2000:], control[2000:]).mean() <= commonest + 0.02, "vectors without words tell nothing"


def test_the_words_usual_label():
    words, labels = torch.tensor([3, 3, 3, 7, 9]), torch.tensor([1, 1, 0, 2, 1])
    assert word_baseline(words, labels, torch.tensor([3, 7, 8, 50])).tolist() == [1, 2, 1, 1]


def test_the_online_code_by_hand():
    vectors, labels = drawn(500, signal=3.0)
    bits, compression = description_length(vectors, labels, CLASSES)
    ends = sorted({max(1, round(share * 500)) for share in PORTIONS})
    assert ends[0] == 1 and ends[-1] == 500
    by_hand = 1 * np.log2(CLASSES)
    for known, end in zip(ends, ends[1:]):
        told = fit_probe(vectors[:known], labels[:known], CLASSES)(vectors[known:end]).softmax(-1)
        by_hand -= float(told[torch.arange(end - known), labels[known:end]].log2().sum())
    assert bits == pytest.approx(by_hand, rel=1e-4)
    assert compression == pytest.approx(500 * 2 / bits)
    assert description_length(drawn(500, seed=5)[0], labels, CLASSES)[1] < 1.0 < 2.0 < compression, "noise costs more"


def test_the_interval_is_of_texts():
    rng = np.random.default_rng(0)
    texts = np.repeat(np.arange(200), 10)
    alone = rng.random(2000) < 0.7
    low, high = interval(alone, texts)
    half = 1.96 * (0.7 * 0.3 / 2000) ** 0.5
    assert low < alone.mean() < high and (high - low) / 2 == pytest.approx(half, rel=0.2)
    together = np.repeat(rng.random(200) < 0.7, 10)
    low, high = interval(together, texts)
    assert (high - low) / 2 == pytest.approx(half * 10**0.5, rel=0.2), "the words of one text count as one"
    assert interval(np.ones(6), np.zeros(6, dtype=int)) == (1, 1)


def test_vectors_are_those_of_each_text_alone():
    tokenizer = tinyworld.load("world").tokenizer
    shape = TransformerConfig(len(tokenizer), layers=2, width=16, heads=2, feed_forward=16, dropout=0.0)
    encoder = Encoder(shape).eval()
    texts = [[7, 8, 9], [10], [11, 12, 13, 14, 15]]
    found = word_vectors(encoder, *pad(texts, tokenizer), batch_size=2)
    assert found.shape == (3, 9, 16) and not found.requires_grad
    for text, at in zip(texts, (0, 3, 4)):
        ids = torch.tensor([[tokenizer.cls_token_id, *text, tokenizer.sep_token_id]])
        alone = encoder(ids, all_layers=True)[:, 0, 1:-1]
        assert torch.allclose(found[:, at : at + len(text)], alone, atol=1e-5)


@pytest.mark.parametrize(
    "vectors, labels, why",
    [(torch.zeros(3, 2), torch.zeros(2).long(), "3 vectors and 2 labels"), (torch.zeros(0, 2), torch.zeros(0).long(),
     "0 vectors"), (torch.zeros(2, 2), torch.tensor([0, 4]), "from 0 to 4 came for 4 classes")],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused(vectors, labels, why):
    with pytest.raises(ValueError, match=why):
        fit_probe(vectors, labels, CLASSES)
