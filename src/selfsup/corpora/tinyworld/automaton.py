"""Exact answers by forward-backward over a weighted automaton with registers.

A *place* is (state, valuation): which token slot emitted this token, and which values each register may still have.
Registers stay unbound until an observed token (or a guard) tells their values apart: then the set of values splits
into parts that explain it equally well. So a masked token, which tells nothing, costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

SPECIAL = 5  # [PAD] [UNK] [CLS] [SEP] [MASK] come before the words
SEP = 3


class Impossible(ValueError):
    """A text of probability zero. position: the first token that makes it so; word: that token (None: the end)."""

    def __init__(self, position: int, word: str | None, reason: str = ""):
        self.position, self.word = position, word
        what = (
            f"{word!r} (token {position + 1}) cannot stand here"
            if word
            else "the text stops in the middle of a sentence"
        )
        super().__init__(f"impossible in Tinyworld: {reason or what}")


@dataclass(frozen=True)
class Evidence:
    """What is known of each token: P(observation | token is x) = match * [x == word] + other.

    word: (time,) word indices; match, other: (time,). A seen token has (1, 0), a masked one (0, 1).
    """

    word: np.ndarray
    match: np.ndarray
    other: np.ndarray


@dataclass
class Layer:
    """The places alive at one position. source, weight: the edges that led here, by row of the layer before.

    chance: P(this position's evidence | the evidence before it).
    """

    state: np.ndarray
    valuation: np.ndarray
    mass: np.ndarray
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    chance: float


class Automaton:
    """The compiled language (`compile_language`), ready for questions.

    whole: ask about whole documents only; otherwise about texts: runs of whole sentences that start at a document's
    beginning (half of them) or at any sentence, and are cut after each sentence with probability 0.1.
    """

    def __init__(self, language: dict, whole: bool = False):
        self.words = language["words"]
        states, registers = language["states"], language["registers"]
        self.size, self.vocabulary = len(states["view"]), len(self.words)
        self.prior = [np.array(register["prior"]) for register in registers]
        self.per_sentence = [i for i, register in enumerate(registers) if register["scope"] == "sentence"]
        self.everything = tuple((1 << len(prior)) - 1 for prior in self.prior)
        self.guards = [tuple(map(tuple, guard)) for guard in language["guards"]]
        self._read_emissions(language)
        self._read_edges(language, whole)
        self._valuations, self._valuation_index = [self.everything], {self.everything: 0}
        self._memory: dict = {}

    def _read_emissions(self, language: dict) -> None:
        """plain[w, q]: P(w | q) for states without a register. can[w, q]: whether q may emit w at all."""
        distributions = [(np.array(words), np.array(p)) for words, p in language["distributions"]]
        self.view = np.array(language["states"]["view"])
        self.plain = np.zeros((self.vocabulary, self.size))
        for q, index in enumerate(language["states"]["distribution"]):
            if index >= 0:
                self.plain[distributions[index][0], q] = distributions[index][1]
        self.can = self.plain > 0
        self.view_register, self.view_words, self.levels = [], [], []
        for number, (register, options) in enumerate(language["views"]):
            table = np.zeros((len(options), self.vocabulary))
            for value, index in enumerate(options):
                table[value, distributions[index][0]] = distributions[index][1]
            levels: dict[int, list[tuple[float, int]]] = {}
            for word in np.flatnonzero(table.any(0)):
                masks: dict[float, int] = {}
                for value in np.flatnonzero(table[:, word]):
                    masks[table[value, word]] = masks.get(table[value, word], 0) | 1 << int(value)
                levels[int(word)] = list(masks.items())
            self.view_register.append(register)
            self.view_words.append(table)
            self.levels.append(levels)
            self.can[np.ix_(table.any(0), self.view == number)] = True
        self.emission = sparse.csr_matrix(self.plain.T)

    def _read_edges(self, language: dict, whole: bool) -> None:
        """Edges by source in CSR form; the last row leads from nowhere to the first token."""
        cut = 0.0 if whole else language["run"]
        begin = 1.0 if whole else language["whole"]
        self.final = np.zeros(self.size + 1)
        self.is_end = np.zeros(self.size + 1, bool)
        ends, chance = language["ends"]
        self.is_end[ends] = True
        self.final[ends] = np.array(chance) + (1 - np.array(chance)) * cut
        start = [
            np.full(len(language["begin"][0]) + len(language["anywhere"][0]), self.size),
            np.concatenate([language["begin"][0], language["anywhere"][0]]),
            np.concatenate(
                [np.array(language["begin"][1]) * begin, np.array(language["anywhere"][1]) * (1 - begin)]
            ),
            np.concatenate([language["begin"][2], language["anywhere"][2]]),
        ]
        source, target, weight, guard = [np.concatenate([a, b]) for a, b in zip(language["edges"], start)]
        source, target, guard = source.astype(int), target.astype(int), guard.astype(int)
        weight = np.where(self.is_end[source], weight * (1 - cut), weight)
        order = np.argsort(source, kind="stable")
        self.pointer = np.searchsorted(source[order], np.arange(self.size + 2))
        self.target, self.edge_weight, self.guard = target[order], weight[order], guard[order]

    # Valuations are interned: a number stands for a tuple of bit masks, one a register.

    def _intern(self, masks: tuple[int, ...]) -> int:
        index = self._valuation_index.setdefault(masks, len(self._valuations))
        if index == len(self._valuations):
            self._valuations.append(masks)
        return index

    def _share(self, register: int, mask: int) -> float:
        """The prior probability of the values in the mask."""
        key = ("share", register, mask)
        if key not in self._memory:
            self._memory[key] = sum(
                p for value, p in enumerate(self.prior[register].tolist()) if mask >> value & 1
            )
        return self._memory[key]

    def _given(self, register: int, mask: int) -> np.ndarray:
        """(values,) P(value | it is in the mask)."""
        key = ("given", register, mask)
        if key not in self._memory:
            prior = self.prior[register] * [mask >> value & 1 for value in range(len(self.prior[register]))]
            self._memory[key] = prior / prior.sum()
        return self._memory[key]

    def _narrow(self, valuation: int, register: int, mask: int) -> tuple[int, float] | None:
        """Keep only the values in the mask: (new valuation, probability of that)."""
        masks = self._valuations[valuation]
        kept = masks[register] & mask
        if not kept:
            return None
        if kept == masks[register]:
            return valuation, 1.0
        narrowed = self._intern(masks[:register] + (kept,) + masks[register + 1 :])
        return narrowed, self._share(register, kept) / self._share(register, masks[register])

    def _pass_guard(self, valuation: int, guard: int) -> list[tuple[int, float]]:
        chance = 1.0
        for register, mask in self.guards[guard]:
            narrowed = self._narrow(valuation, register, mask)
            if narrowed is None:
                return []
            valuation, chance = narrowed[0], chance * narrowed[1]
        return [(valuation, chance)]

    def _read(
        self, valuation: int, view: int, word: int, match: float, other: float
    ) -> list[tuple[int, float]]:
        """Split the valuation by how well each value of the view's register explains the evidence."""
        register, outcomes, unexplained = self.view_register[view], [], -1
        for level, mask in self.levels[view].get(word, ()) if match else ():
            unexplained &= ~mask
            narrowed = self._narrow(valuation, register, mask)
            if narrowed:
                outcomes.append((narrowed[0], narrowed[1] * (match * level + other)))
        narrowed = self._narrow(valuation, register, unexplained) if other else None
        return outcomes + ([(narrowed[0], narrowed[1] * other)] if narrowed else [])

    def _new_sentence(self, valuation: int) -> int:
        masks = list(self._valuations[valuation])
        for register in self.per_sentence:
            masks[register] = self.everything[register]
        return self._intern(tuple(masks))

    def _refine(self, edges: tuple, rows: np.ndarray, second: np.ndarray, split, key) -> tuple:
        """Apply `split(valuation, second)` to the edges in `rows`; each may become none, one or several."""
        if not rows.any():
            return edges
        valuation = edges[3]
        pairs, member = np.unique(valuation * 65536 + np.where(rows, second, 65535), return_inverse=True)
        outcomes = []
        for pair in pairs.tolist():
            before, other = pair >> 16, pair & 65535
            if other == 65535:
                outcomes.append([(before, 1.0)])
                continue
            name = (key, pair)
            if name not in self._memory:
                self._memory[name] = split(before, other)
            outcomes.append(self._memory[name])
        counts = np.array([len(outcome) for outcome in outcomes])
        after, factor = np.array([pair for outcome in outcomes for pair in outcome]).reshape(-1, 2).T
        first, many = np.cumsum(counts) - counts, counts[member]
        edge = np.repeat(np.arange(len(member)), many)
        outcome = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many) + first[member][edge]
        source, target, weight, _ = (column[edge] for column in edges)
        return source, target, weight * factor[outcome], after[outcome].astype(int)

    def expand(self, state: np.ndarray, valuation: np.ndarray, allowed: np.ndarray | None = None) -> tuple:
        """All edges out of the places: (row of the source, target state, weight, valuation after guards)."""
        first, count = self.pointer[state], self.pointer[state + 1] - self.pointer[state]
        source = np.repeat(np.arange(len(state)), count)
        edge = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[source]
        if allowed is not None:
            kept = allowed[self.target[edge]]
            source, edge = source[kept], edge[kept]
        edges = source, self.target[edge], self.edge_weight[edge], valuation[source]
        guard = self.guard[edge]
        if self.per_sentence and self.is_end[state].any():
            valuations, row = np.unique(valuation, return_inverse=True)
            fresh = np.array([self._new_sentence(v) for v in valuations.tolist()])[row]
            edges = (*edges[:3], np.where(self.is_end[state][source], fresh[source], edges[3]))
        return self._refine(edges, guard >= 0, guard, self._pass_guard, "guard")

    def _step(self, state, valuation, word: int, match: float, other: float) -> tuple:
        """One token further under the evidence: the edges, before equal places are merged."""
        edges = self.expand(state, valuation, None if other else self.can[word])
        views = self.view[edges[1]]
        source, target, weight, valuation = edges
        if match:
            weight = np.where(views < 0, weight * (match * self.plain[word][target] + other), weight)
        else:
            weight = weight * other
            return source, target, weight, valuation

        def split(valuation: int, view: int) -> list[tuple[int, float]]:
            return self._read(valuation, view, word, match, other)

        return self._refine(
            (source, target, weight, valuation), views >= 0, views, split, (word, match, other)
        )

    def forward(self, evidence: Evidence, prune: float = 0.0) -> tuple[list[Layer], float]:
        """The layers of places alive, each scaled to mass 1, and the log of the evidence's probability so far.

        prune: places below this share of the mass are dropped (0: none), which only soft evidence needs.
        """
        if len(self._valuations) > 20_000:  # what is remembered may be forgotten between two questions
            self._valuations, self._valuation_index, self._memory = (
                [self.everything],
                {self.everything: 0},
                {},
            )
        state, valuation, mass = np.array([self.size]), np.zeros(1, int), np.ones(1)
        layers, total = [], 0.0
        for t, (word, match, other) in enumerate(
            zip(*(a.tolist() for a in (evidence.word, evidence.match, evidence.other)))
        ):
            source, target, weight, after = self._step(state, valuation, word, match, other)
            key = target * 2**32 + after
            places, row = np.unique(key, return_inverse=True)
            flow = np.bincount(row, mass[source] * weight, len(places))
            scale = flow.sum()
            if not scale > 0:
                raise Impossible(t, self.words[word])
            if prune:
                kept = flow > prune * scale
                renumber = np.cumsum(kept) - 1
                edges = kept[row]
                source, weight, row = source[edges], weight[edges], renumber[row[edges]]
                places, flow = places[kept], flow[kept]
                scale = flow.sum()
            state, valuation, mass = places >> 32, places & 0xFFFFFFFF, flow / scale
            layers.append(Layer(state, valuation, mass, source, row, weight / scale, float(scale)))
            total += np.log(scale)
        return layers, total

    def values(self, register: int, valuation: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(values,) how the places' weights spread over the values that the register may still have."""
        masks = [self._valuations[v][register] for v in valuation.tolist()]
        return sum(w * self._given(register, mask) for w, mask in zip(weight.tolist(), masks))

    def log_prob(self, evidence: Evidence) -> float:
        """log P(evidence), in nats; raises Impossible where it is zero."""
        return -float(self.surprisals(evidence).sum())

    def surprisals(self, evidence: Evidence) -> np.ndarray:
        """-log P(evidence at each position | the evidence before it), and of the end: (time + 1,) nats."""
        layers, _ = self.forward(evidence)
        end = float((layers[-1].mass * self.final[layers[-1].state]).sum())
        if not end > 0:
            raise Impossible(len(layers), None)
        return -np.log([*(layer.chance for layer in layers), end])

    def tokens_given_rest(self, evidence: Evidence, positions: list[int], prune: float = 0.0) -> np.ndarray:
        """P(token | the evidence at all other positions), (len(positions), words).

        At a position whose evidence is hard (other = 0) only the values that explain it are left, so ask only
        at masked or soft positions.
        """
        layers, _ = self.forward(evidence, prune)
        wanted = {position: row for row, position in enumerate(positions)}
        read = sorted(
            {
                self.view_register[view]
                for position in wanted
                for view in set(self.view[layers[position].state])
                if view >= 0
            }
        )
        columns, width = {}, 1
        for register in read:
            columns[register] = slice(width, width + len(self.prior[register]))
            width += len(self.prior[register])
        answer = np.zeros((len(positions), self.vocabulary))
        last = layers[-1]
        # future[:, 0]: P(what follows | place); the other columns split that by each register's eventual value
        future = np.empty((len(last.state), width))
        future[:, 0] = self.final[last.state]
        self._split_by_value(future, last.valuation, columns)
        if not (last.mass @ future[:, 0]) > 0:
            raise Impossible(len(layers), None)
        for t in range(len(layers) - 1, -1, -1):
            layer = layers[t]
            if t in wanted:
                answer[wanted[t]] = self._token(layer, future, columns, evidence, t)
            if t == 0:
                break
            before = layers[t - 1]
            flow = layer.weight[:, None] * future[layer.target]  # edges are sorted by source
            first = np.flatnonzero(np.diff(layer.source, prepend=-1))
            future = np.zeros((len(before.state), width))
            future[layer.source[first]] = np.add.reduceat(flow, first)
            ends, forgotten = (
                self.is_end[before.state],
                {r: columns[r] for r in self.per_sentence if r in columns},
            )
            if forgotten and ends.any():  # a register of one sentence says nothing about the next
                rows = future[ends]
                self._split_by_value(rows, before.valuation[ends], forgotten)
                future[ends] = rows
        return answer / answer.sum(1, keepdims=True)

    def _split_by_value(self, future: np.ndarray, valuation: np.ndarray, columns: dict[int, slice]) -> None:
        """Fill the columns of each register with future[:, 0] * P(value | valuation)."""
        valuations, row = np.unique(valuation, return_inverse=True)
        for register, part in columns.items():
            table = np.stack(
                [self._given(register, self._valuations[v][register]) for v in valuations.tolist()]
            )
            future[:, part] = future[:, :1] * table[row]

    def _token(
        self, layer: Layer, future: np.ndarray, columns: dict[int, slice], evidence: Evidence, t: int
    ) -> np.ndarray:
        """(words,) proportional to P(token t | all other evidence): the evidence at t itself is divided out."""
        word, match, other = int(evidence.word[t]), float(evidence.match[t]), float(evidence.other[t])
        views = self.view[layer.state]
        joint = layer.mass * future[:, 0] / (match * self.plain[word][layer.state] + other)
        answer = np.bincount(layer.state[views < 0], joint[views < 0], self.size) @ self.emission
        for view in np.unique(views[views >= 0]):
            rows = views == view
            values = layer.mass[rows] @ future[rows, columns[self.view_register[view]]]
            table = self.view_words[view]
            answer = answer + (values / (match * table[:, word] + other)) @ table
        return answer

    def next_token(self, evidence: Evidence) -> tuple[np.ndarray, float]:
        """(P(next token = each word), P(the text ends here)) after the evidence, which may be empty."""
        if len(evidence.word):
            layer = self.forward(evidence)[0][-1]
            state, valuation, mass = layer.state, layer.valuation, layer.mass
        else:
            state, valuation, mass = np.array([self.size]), np.zeros(1, int), np.ones(1)
        source, target, weight, after = self.expand(state, valuation)
        flow, views = mass[source] * weight, self.view[target]
        answer = np.bincount(target[views < 0], flow[views < 0], self.size) @ self.emission
        for view in np.unique(views[views >= 0]):
            register = self.view_register[view]
            for valuation in np.unique(after[views == view]):
                mask = self._valuations[valuation][register]
                share = flow[(views == view) & (after == valuation)].sum()
                answer = answer + share * (self._given(register, mask) @ self.view_words[view])
        return answer, float((mass * self.final[state]).sum())
