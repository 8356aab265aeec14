"""Two sentences in a row: what can be known at best about the next sentence, and about their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .. import Texts
from .automaton import SPECIAL, Automaton, Evidence, Impossible
from .language import Language


class Pairs:
    """The pairs of neighbouring sentences in Tinyworld's documents, all equally likely, and the exact truth of them.

    A negative of next sentence prediction is the first sentence of one pair beside the second of another, so that
    neither sentence alone tells anything. Sentences are sequences of words; probabilities of what cannot be are 0.
    """

    def __init__(self, language: Language):
        self.language = language
        runs = {**language.data, "whole": 0.0, "run": 0.0}  # start at any sentence, stop where the document stops
        self.firsts = Automaton(runs)
        self.both = Automaton(runs)
        self.both.final = self.both.is_end.astype(float)  # a pair stops after its second sentence, come what may
        later, self.length = _without_first(language.data["begin"], language.data["anywhere"])
        self.seconds = Automaton({**runs, "anywhere": later})
        self.topic_of = np.array(language.data["states"]["topic"])
        unseen = Evidence(np.zeros(1, int), np.zeros(1), np.ones(1))
        start = self.seconds.forward(unseen)[0][0]
        self.topics = self._by_topic(start.state, start.mass)  # (topics,) the share of each in all pairs

    def _by_topic(self, state: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return np.bincount(self.topic_of[state], mass, len(self.language.data["topics"]))

    def _whole(self, automaton: Automaton, tokens: Sequence[str], goes_on: bool = False) -> np.ndarray:
        """(topics,) P(whole sentences that begin so, and the topic); with `goes_on`, and then another sentence."""
        try:
            layers, total = automaton.forward(self.language.evidence(tokens))
        except Impossible:
            return np.zeros(len(self.topics))
        state, mass = layers[-1].state, layers[-1].mass * automaton.is_end[layers[-1].state]
        return np.exp(total) * self._by_topic(state, mass * (1 - automaton.final[state]) if goes_on else mass)

    def _first(self, a: Sequence[str]) -> np.ndarray:
        """(topics,) P(a pair begins with a, and the topic)."""
        return self._whole(self.firsts, a, goes_on=True) / (1 - 1 / self.length)

    def _second(self, b: Sequence[str]) -> np.ndarray:
        """(topics,) P(a pair ends with b, and the topic)."""
        return self._whole(self.seconds, b)

    def in_a_row(self, a: Sequence[str], b: Sequence[str]) -> float:
        """P(a pair is a, b)."""
        return float(self._whole(self.firsts, [*a, *b]).sum() / (1 - 1 / self.length)) if self._first(a).any() else 0.0

    def apart(self, a: Sequence[str], b: Sequence[str], same_topic: bool = False) -> float:
        """P(a begins a pair and b ends another one), of two pairs drawn apart, or apart from one topic."""
        first, second = self._first(a), self._second(b)
        if not same_topic:
            return float(first.sum() * second.sum())
        told = self.topics > 0  # a topic of one sentence has no pairs
        return float((first[told] * second[told] / self.topics[told]).sum())

    def posterior(self, tokens: Sequence[str], masked: Sequence[int]) -> np.ndarray:
        """P(token at each masked position | the rest of a pair), (masked, vocabulary) over token ids, in their order.

        Marks that end a sentence shall not be masked, as they tell that these are two. Raises Impossible where no
        pair agrees with what is left.
        """
        places = sorted(set(masked))
        words = self.both.tokens_given_rest(self.language.evidence(tokens, masked), places)
        answer = np.concatenate([np.zeros((len(words), SPECIAL)), words], 1)
        return answer[[places.index(place) for place in masked]]

    def is_next(self, a: Sequence[str], b: Sequence[str], same_topic: bool = False) -> float:
        """P(b follows a), when half the questions are pairs and half are apart; one half where both are impossible.

        A second sentence from elsewhere is drawn again when it is, word for word, the true one; so it is never what
        follows. The chance of that draw is taken to be small.
        """
        together, first = self.in_a_row(a, b), self._first(a).sum()
        apart = self.apart(a, b, same_topic) * (1 - together / first if first else 1)
        return together / (together + apart) if together + apart else 0.5

    def in_order(self, a: Sequence[str], b: Sequence[str]) -> float:
        """P(a came first), when half the questions show a pair exchanged; one half where both orders are impossible."""
        right, wrong = self.in_a_row(a, b), self.in_a_row(b, a)
        return right / (right + wrong) if right + wrong else 0.5

    def texts(self, n: int, seed: int) -> tuple[Texts, np.ndarray, np.ndarray]:
        """n pairs as token ids, one text each; (n,) the tokens in its first sentence; (n,) the number of its topic."""
        kept, cuts, topics, chunk = [], [], [], 0
        while len(kept) < n:
            states, words, _, _ = self.language.draw(10_000, [seed, chunk], self.firsts)
            stops = np.cumsum(self.firsts.is_end[states] & (states >= 0), 1)
            firsts, sizes = np.argmax(stops == 1, 1) + 1, np.argmax(stops == 2, 1) + 1  # tokens of one, of both
            for row in np.flatnonzero(stops[:, -1] >= 2):
                kept.append(words[row, : sizes[row]] + SPECIAL)
                cuts.append(firsts[row])
                topics.append(self.topic_of[states[row, 0]])
            chunk += 1
        return Texts.from_list(kept[:n]), np.array(cuts[:n]), np.array(topics[:n])

    def sentences(self, n: int, seed: int) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]], np.ndarray]:
        """n pairs as words: first sentences, second sentences, and (n,) the number of each pair's topic."""
        texts, cuts, topics = self.texts(n, seed)
        words = [tuple(self.language.words[t - SPECIAL] for t in texts[i]) for i in range(n)]
        return [w[:c] for w, c in zip(words, cuts)], [w[c:] for w, c in zip(words, cuts)], topics


def _without_first(begin: list, anywhere: list) -> tuple[list, float]:
    """How a sentence starts that is not a document's first, as `anywhere` is written; and a document's mean length.

    Of all sentences, one in `length` is a first one; so what is left is `anywhere` less `begin` / `length`.
    """
    first, every = Counter(), Counter()
    for total, starts in ((first, begin), (every, anywhere)):
        for state, weight, guard in zip(*starts):
            total[state, guard] += weight
    length = max(first[start] / every[start] for start in first)  # reached by the stages that always come first
    later = {start: weight - first[start] / length for start, weight in every.items()}
    share = 1 - 1 / length
    rows = [(state, weight / share, guard) for (state, guard), weight in later.items() if weight > 1e-12]
    return [list(column) for column in zip(*rows)], length
