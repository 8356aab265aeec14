"""The best that any model can do in Tinyworld: entropy floors and Bayes-optimal accuracies, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import Texts
from .automaton import SPECIAL, Evidence
from .language import Language
from .pairs import Pairs

MASK_ID = 4
PRUNE = 1e-9  # places below this share are dropped under soft evidence, which changes no loss by 1e-5 nats


@dataclass(frozen=True)
class Estimate:
    """A mean over random texts: value, standard error of that mean, and the number of terms."""

    value: float
    error: float
    n: int

    @classmethod
    def of(cls, terms: Sequence[float], groups: Sequence[int] | None = None) -> Estimate:
        """The mean of `terms`; terms of one group (one text) may depend on each other."""
        terms = np.asarray(terms, float)
        groups = np.arange(len(terms)) if groups is None else np.asarray(groups)
        sums = np.bincount(groups, terms - terms.mean())
        return cls(float(terms.mean()), float(np.sqrt((sums**2).sum()) / len(terms)), len(terms))

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.4f}"


def exact_losses(
    language: Language,
    corrupted: np.ndarray,
    targets: np.ndarray,
    *,
    rate: float = 0.15,
    mask: float = 0.8,
    random: float = 0.1,
    prune: float = PRUNE,
) -> np.ndarray:
    """-log P(real token | the corrupted text, and that this position was chosen), (number of targets,) nats.

    corrupted: (time,) token ids of one text without [CLS], [SEP] and padding; targets: (time,) the real id where the
    corruption chose the token, else a negative number. Each token was chosen independently with probability `rate`,
    then became [MASK] with probability `mask`, a uniform random word with probability `random`, else stayed. Whether a
    word that is not [MASK] was chosen is not known: it is soft evidence (Devlin et al. 2019, section 3.1).
    """
    words, keep = len(language.words), 1 - mask - random
    masked, chosen = corrupted == MASK_ID, np.flatnonzero(targets >= 0)
    if not len(chosen):
        return np.zeros(0)
    evidence = Evidence(
        np.where(masked, 0, corrupted - SPECIAL),
        np.where(masked, 0.0, 1 - rate + rate * keep),
        np.where(masked, 1.0, rate * random / words),
    )
    real, losses = targets[chosen] - SPECIAL, np.zeros(len(chosen))
    asked = [
        i for i, t in enumerate(chosen) if masked[t] or random > 0
    ]  # without random words a word that stayed is certain
    given_rest = language.texts_automaton.tokens_given_rest(
        evidence, [int(chosen[i]) for i in asked], prune if random else 0.0
    )
    for i, chance in zip(asked, given_rest):
        t = chosen[i]
        if not masked[t]:
            seen = corrupted[t] - SPECIAL
            chance = chance * (random / words + keep * (np.arange(words) == seen))
            chance = chance / chance.sum()
        losses[i] = -np.log(chance[real[i]])
    return losses


def corrupt(
    tokens: np.ndarray, rng: np.random.Generator, words: int, *, rate: float, mask: float, random: float
):
    """(corrupted, targets) of one text, as `exact_losses` takes them; targets are -100 where nothing was chosen."""
    corrupted, targets = tokens.copy(), np.full(len(tokens), -100)
    for t in range(len(tokens)):
        if rng.random() < rate:
            targets[t] = tokens[t]
            fate = rng.random()
            if fate < mask:
                corrupted[t] = MASK_ID
            elif fate < mask + random:
                corrupted[t] = SPECIAL + rng.integers(words)
    return corrupted, targets


def masking_floor(
    language: Language,
    texts: Texts,
    seed: int = 0,
    *,
    rate: float = 0.15,
    mask: float = 0.8,
    random: float = 0.1,
) -> Estimate:
    """The lowest cross-entropy that a masked language model can reach on such texts, in nats per chosen token."""
    rng, losses, groups = np.random.default_rng(seed), [], []
    for i in range(len(texts)):
        corrupted, targets = corrupt(texts[i], rng, len(language.words), rate=rate, mask=mask, random=random)
        terms = exact_losses(language, corrupted, targets, rate=rate, mask=mask, random=random)
        losses.append(terms)
        groups.append(np.full(len(terms), i))
    return Estimate.of(np.concatenate(losses), np.concatenate(groups))


def next_token_floor(language: Language, texts: Texts) -> Estimate:
    """The entropy rate: -log P(text) per token, the end of the text counted as one token, in nats."""
    totals = np.array(
        [-language.log_prob([language.words[t - SPECIAL] for t in texts[i]]) for i in range(len(texts))]
    )
    counts = texts.lengths + 1
    rate = totals.sum() / counts.sum()
    error = np.sqrt(((totals - rate * counts) ** 2).sum()) / counts.sum()
    return Estimate(float(rate), float(error), int(counts.sum()))


def sop_accuracy(pairs: Pairs, n: int = 1000, seed: int = 0) -> Estimate:
    """The best accuracy at telling two neighbouring sentences from the same two exchanged (order prediction)."""
    right = [pairs.in_order(a, b) for a, b in zip(*pairs.sentences(pairs.draw(n, seed)))]
    return Estimate.of(_verdicts(right))


def nsp_accuracy(pairs: Pairs, n: int = 1000, seed: int = 0, negatives: str = "place") -> Estimate:
    """The best accuracy at telling the next sentence from the second of another pair (next sentence prediction).

    negatives: of which other pair, see `Pairs`. Half of the n questions show a true next sentence.
    """
    drawn = pairs.draw(n, seed)
    first, second = pairs.sentences(drawn)
    groups = drawn.groups(negatives)
    rng, right = np.random.default_rng(seed), []
    for i in range(n):
        others = [j for j in np.flatnonzero(groups == groups[i]) if second[j] != second[i]] if i % 2 else []
        b = second[rng.choice(others)] if others else second[i]
        true = pairs.is_next(first[i], b, negatives)
        right.append(1 - true if others else true)
    return Estimate.of(_verdicts(right))


def _verdicts(right: Sequence[float]) -> np.ndarray:
    """(n,) 1 where the right answer has more than half of the probability, 0 where less, and a half where half."""
    return (1 + np.sign(np.asarray(right) - 0.5)) / 2
