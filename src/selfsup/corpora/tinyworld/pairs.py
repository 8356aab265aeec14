"""Two sentences in a row: what can be known at best about the next sentence, and about their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import Texts
from .automaton import SPECIAL, Automaton, Evidence, Impossible
from .language import Language

NEGATIVES = ("place", "topic", "anywhere")


@dataclass(frozen=True)
class DrawnPairs:
    """Pairs of sentences: token ids, one text each, and of each pair, (n,): tokens in its first sentence, topic, place.

    place: the number of the stage that the second sentence tells, in the script of its topic.
    """

    texts: Texts
    cuts: np.ndarray
    topics: np.ndarray
    places: np.ndarray

    def groups(self, negatives: str) -> np.ndarray:
        """(n,) numbers: a pair's negative is of its own group. Raises ValueError for other negatives than these."""
        groups = {"place": self.places, "topic": self.topics, "anywhere": np.zeros_like(self.topics)}
        if negatives not in groups:
            raise ValueError(f"negatives of the same {negatives!r}: choose {', '.join(NEGATIVES)}")
        return groups[negatives]


def group_of(negatives: str, *drawn: DrawnPairs) -> Callable[[Any], list[int]]:
    """Tells the group of each row of a batch of ids (batch, time), [CLS] pair [SEP] [PAD]…, by its tokens."""
    table = {}
    for one in drawn:
        table |= zip((tuple(one.texts[i].tolist()) for i in range(len(one.texts))), one.groups(negatives).tolist())

    def groups(ids: Any) -> list[int]:
        return [table[tuple(token for token in row if token >= SPECIAL)] for row in ids.tolist()]

    return groups


class Pairs:
    """The pairs of neighbouring sentences in Tinyworld's documents, all equally likely, and the exact truth of them.

    A negative of next sentence prediction is the first sentence of one pair beside the second of another: of one that
    tells the same stage of its story ("place"), of one of the same topic ("topic"), or of any ("anywhere").
    Sentences are sequences of words; what is no sentence, or cannot be, has probability 0.
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
        self.place_of = np.array(language.data["states"]["stage"])
        self.size = len(language.data["topics"]), int(self.place_of.max()) + 1
        unseen = Evidence(np.zeros(1, int), np.zeros(1), np.ones(1))
        start = self.seconds.forward(unseen)[0][0]
        self.share = self._table(start.state, start.mass)  # (topics, places) of second sentences

    def _table(self, state: np.ndarray, mass: np.ndarray) -> np.ndarray:
        table = np.zeros(self.size)
        np.add.at(table, (self.topic_of[state], self.place_of[state]), mass)
        return table

    def _sentence(self, automaton: Automaton, tokens: Sequence[str]):
        """log P(tokens so far) and the last layer's places at which one sentence ends, or None."""
        try:
            layers, total = automaton.forward(self.language.evidence(tokens))
        except Impossible:
            return None
        if not layers:
            return None
        whole, last = not any(automaton.is_end[layer.state].any() for layer in layers[:-1]), layers[-1]
        return (total, last, automaton.is_end[last.state]) if whole else None

    def _first(self, a: Sequence[str]) -> np.ndarray:
        """(topics, places) P(a pair begins with a, is of the topic, and goes on at the place)."""
        found = self._sentence(self.firsts, a)
        if found is None:
            return np.zeros(self.size)
        total, last, ends = found
        source, target, weight, _ = self.firsts.expand(last.state[ends], last.valuation[ends])
        return np.exp(total) * self._table(target, last.mass[ends][source] * weight) / (1 - 1 / self.length)

    def _second(self, b: Sequence[str]) -> np.ndarray:
        """(topics, places) P(a pair ends with b, which is of the topic and the place)."""
        found = self._sentence(self.seconds, b)
        return np.zeros(self.size) if found is None else (
            np.exp(found[0]) * self._table(found[1].state[found[2]], found[1].mass[found[2]]))

    def says(self, tokens: Sequence[str]) -> bool:
        """Whether the tokens are a sentence of the language."""
        found = self._sentence(self.firsts, tokens)
        return found is not None and bool(found[2].any())

    def in_a_row(self, a: Sequence[str], b: Sequence[str]) -> float:
        """P(a pair is a, b)."""
        if not (self._first(a).any() and self._second(b).any()):
            return 0.0
        try:
            layers, total = self.firsts.forward(self.language.evidence([*a, *b]))
        except Impossible:
            return 0.0
        last = layers[-1]
        return float(np.exp(total) * last.mass[self.firsts.is_end[last.state]].sum() / (1 - 1 / self.length))

    def apart(self, a: Sequence[str], b: Sequence[str], negatives: str = "place") -> float:
        """P(a begins a pair and b ends another one), where that is of the same place, the same topic, or anywhere."""
        first, second, share = self._first(a), self._second(b), self.share
        if negatives == "anywhere":
            return float(first.sum() * second.sum())
        first, second, share = (table.sum({"place": 0, "topic": 1}[negatives]) for table in (first, second, share))
        told = share > 0
        return float((first[told] * second[told] / share[told]).sum())

    def posterior(self, tokens: Sequence[str], masked: Sequence[int]) -> np.ndarray:
        """P(token at each masked position | the rest of a pair), (masked, vocabulary) over token ids, in their order.

        Marks that end a sentence shall not be masked, as they tell that these are two. Raises Impossible where no
        pair agrees with what is left.
        """
        places = sorted(set(masked))
        words = self.both.tokens_given_rest(self.language.evidence(tokens, masked), places)
        answer = np.concatenate([np.zeros((len(words), SPECIAL)), words], 1)
        return answer[[places.index(place) for place in masked]]

    def is_next(self, a: Sequence[str], b: Sequence[str], negatives: str = "place") -> float:
        """P(b follows a), when half the questions are pairs and half are apart; one half where both are impossible.

        A second sentence from elsewhere is drawn again when it is, word for word, the true one; so it is never what
        follows. The chance of that draw is taken to be small.
        """
        together, first = self.in_a_row(a, b), self._first(a).sum()
        apart = self.apart(a, b, negatives) * (1 - together / first if first else 1)
        return together / (together + apart) if together + apart else 0.5

    def is_next_knowing(
        self, known: Sequence[str], a: Sequence[str], b: Sequence[str], negatives: str = "place"
    ) -> float:
        """`is_next` for a judge who is told nothing but P(topic, place | a) and P(topic, place | b), or one of the two.

        known: "topic" and "place", or one of them.
        """
        tables = self._first(a), self._second(b), self.share

        def agree(names: set[str]) -> float:
            others = tuple(axis for axis, name in enumerate(("topic", "place")) if name not in names)
            first, second, share = (table.sum(others) for table in tables)
            return float(np.divide(first * second, share, out=np.zeros_like(share), where=share > 0).sum())

        together, apart = agree(set(known)), agree(set(known) & {negatives})
        return together / (together + apart) if together + apart else 0.5

    def in_order(self, a: Sequence[str], b: Sequence[str]) -> float:
        """P(a came first), when half the questions show a pair exchanged; one half where both orders are impossible."""
        right, wrong = self.in_a_row(a, b), self.in_a_row(b, a)
        return right / (right + wrong) if right + wrong else 0.5

    def draw(self, n: int, seed: int) -> DrawnPairs:
        """n pairs; equal seeds draw equal pairs."""
        kept, told, chunk = [], [], 0
        while len(kept) < n:
            states, words, _, _ = self.language.draw(10_000, [seed, chunk], self.firsts)
            stops = np.cumsum(self.firsts.is_end[states] & (states >= 0), 1)
            cuts, sizes = np.argmax(stops == 1, 1) + 1, np.argmax(stops == 2, 1) + 1  # tokens of one, of both
            for row in np.flatnonzero(stops[:, -1] >= 2):
                kept.append(words[row, : sizes[row]] + SPECIAL)
                second = states[row, cuts[row]]
                told.append((cuts[row], self.topic_of[second], self.place_of[second]))
            chunk += 1
        return DrawnPairs(Texts.from_list(kept[:n]), *np.array(told[:n]).T)

    def sentences(self, drawn: DrawnPairs) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """The pairs as words: all first sentences, and all second ones."""
        words = [tuple(self.language.words[t - SPECIAL] for t in drawn.texts[i]) for i in range(len(drawn.texts))]
        return [w[:cut] for w, cut in zip(words, drawn.cuts)], [w[cut:] for w, cut in zip(words, drawn.cuts)]


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
