"""Tinyworld as one object: draw texts from it, and ask it for the exact truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import Texts
from .automaton import SEP, SPECIAL, Automaton, Evidence, Impossible
from .grammar import compile_language

MASK = "[MASK]"
SHIPPED = Path(__file__).parent / "world.json"


@dataclass(frozen=True)
class Document:
    """A text with the gold annotation of every token, in lists as long as `tokens`.

    sentences: (first, last + 1) of each; order: the stage of the topic's script that each sentence tells.
    pos: part of speech; phrase: B-NP, I-NP, B-VP, ... or O; sense: of ambiguous words, else None;
    coref: the position of the mention before this one of the same person or thing, -1 for a first mention, None for
    what mentions nobody; agrees: the position of the token that this one agrees with in number, else None;
    reads: the name of the register that decided the token, else None.
    """

    tokens: tuple[str, ...]
    sentences: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    pos: tuple[str, ...]
    phrase: tuple[str, ...]
    sense: tuple[str | None, ...]
    coref: tuple[int | None, ...]
    agrees: tuple[int | None, ...]
    reads: tuple[str | None, ...]
    topic: str
    hero: str | None
    sentiment: str | None

    def __str__(self) -> str:
        return render(self.tokens)


def render(tokens: Sequence[str], names: Sequence[str] = ()) -> str:
    """Tokens as a reader expects them: no blank before a comma, a capital after a full stop and for each of `names`."""
    text, start, quoted = "", True, False
    for i, token in enumerate(tokens):
        word = token.capitalize() if (start and token.isalpha()) or token in names or token == "i" else token
        tight = (
            token in ".,!?"
            or (token == '"' and quoted)
            or (i and tokens[i - 1] == '"' and quoted)
            or not text
        )
        text += word if tight else " " + word
        quoted ^= token == '"'
        if token.isalnum() or token == MASK:
            start = False
        if token == '"' and quoted:
            start = True
        if token in ".!?":  # what follows a closing quotation mark goes on with the sentence
            start = not (quoted and i + 1 < len(tokens) and tokens[i + 1] == '"')
    return text


def phrases(pos: Sequence[str]) -> list[str]:
    """Base phrases from the parts of speech, as B-, I- and O tags: noun, verb, prepositional, adjective, adverb."""
    kinds = {
        "DET": "NP",
        "NUM": "NP",
        "NOUN": "NP",
        "NAME": "NP",
        "PRON": "NP",
        "AUX": "VP",
        "VERB": "VP",
        "PART": "VP",
        "PREP": "PP",
        "ADJ": "ADJP",
        "ADV": "ADVP",
    }
    kind = [kinds.get(tag, "O") for tag in pos]
    for i in range(len(pos) - 2, -1, -1):  # an adjective before a noun belongs to its phrase
        if pos[i] == "ADJ" and kind[i + 1] == "NP" and pos[i + 1] in ("NOUN", "ADJ"):
            kind[i] = "NP"
    tags = []
    for i, label in enumerate(kind):
        opens = (
            i == 0
            or kind[i - 1] != label
            or (
                label == "NP"
                and (
                    pos[i] in ("DET", "PRON", "NAME")
                    or pos[i - 1] == "NAME"
                    or (pos[i - 1] == "NOUN" and pos[i] != "NOUN")
                    or (pos[i - 1] == "PRON" and pos[i] not in ("NOUN", "ADJ", "NUM"))
                )
            )
        )
        tags.append("O" if label == "O" else ("B-" if opens else "I-") + label)
    return tags


class Language:
    """One size and dialect of Tinyworld. Token ids are 5 + the word's index: the special tokens come first."""

    def __init__(self, data: dict):
        self.data = data
        self.words = tuple(data["words"])
        self.index = {word: i for i, word in enumerate(self.words)}
        self.texts_automaton, self.document_automaton = Automaton(data), Automaton(data, whole=True)
        self.names = frozenset(word for word, tag in zip(data["words"], data["pos"]) if tag == "NAME")

    @property
    def name(self) -> str:
        return (
            self.data["size"] if not self.data["dialect"] else f"{self.data['size']}-{self.data['dialect']}"
        )

    @property
    def tokenizer(self):
        """The word-level tokenizer whose ids `posterior` and the models use."""
        from ...tokenization import word_level

        return word_level(list(self.words))

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words and marks; [MASK] stays whole."""
        for mark in '.,!?"':
            text = text.replace(mark, f" {mark} ")
        return [MASK if word.upper() == MASK else word.lower() for word in text.split()]

    def render(self, tokens: Sequence[str]) -> str:
        """The tokens as English text."""
        return render(tokens, self.names)

    # The exact truth.

    def evidence(self, tokens: Sequence[str], masked: Sequence[int] = ()) -> Evidence:
        """The tokens as an automaton takes them, those at `masked` unseen; raises Impossible for a word it has not."""
        hidden = set(masked) | {i for i, token in enumerate(tokens) if token == MASK}
        for i in hidden:
            if not 0 <= i < len(tokens):
                raise ValueError(
                    f"position {i} is masked, but the text has {len(tokens)} tokens: choose 0 to {len(tokens) - 1}"
                )
        for i, token in enumerate(tokens):
            if i not in hidden and token not in self.index:
                raise Impossible(i, token, f"{token!r} (token {i + 1}) is not one of its words")
        word = np.array([0 if i in hidden else self.index[token] for i, token in enumerate(tokens)], int)
        match = np.array([i not in hidden for i in range(len(tokens))], float)
        return Evidence(word, match, 1 - match)

    def _by_id(self, words: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros((*words.shape[:-1], SPECIAL)), words], -1)

    def _automaton(self, whole: bool) -> Automaton:
        return self.document_automaton if whole else self.texts_automaton

    def posterior(self, tokens: Sequence[str], masked: Sequence[int], whole: bool = False) -> np.ndarray:
        """P(token at each masked position | all the other tokens), (len(masked), vocabulary) over token ids.

        tokens: whole sentences, starting anywhere in a document (whole=True: one whole document); a token may also be
        [MASK]. Raises Impossible when no text agrees with what is left.
        """
        if not len(tokens):
            raise ValueError("the text is empty: give at least one sentence")
        evidence, places = self.evidence(tokens, masked), sorted(set(masked))
        answer = self._by_id(self._automaton(whole).tokens_given_rest(evidence, places))
        return answer[[places.index(place) for place in masked]]

    def next_word(self, prefix: Sequence[str], whole: bool = False) -> np.ndarray:
        """P(next token | prefix), (vocabulary,) over token ids; [SEP] has the probability that the text ends here."""
        words, end = self._automaton(whole).next_token(self.evidence(prefix))
        answer = self._by_id(words)
        answer[SEP] = end
        return answer

    def log_prob(self, tokens: Sequence[str], whole: bool = False) -> float:
        """log P(text) in nats; masked tokens are summed over. Raises Impossible where P is zero."""
        if not len(tokens):
            raise ValueError("the text is empty: give at least one sentence")
        return self._automaton(whole).log_prob(self.evidence(tokens))

    def surprisals(self, tokens: Sequence[str], whole: bool = False) -> np.ndarray:
        """-log P(token | the tokens before it) of each token, and of the end of the text: (time + 1,) nats.

        Raises Impossible where the text is.
        """
        if not len(tokens):
            raise ValueError("the text is empty: give at least one sentence")
        return self._automaton(whole).surprisals(self.evidence(tokens))

    def topic(self, tokens: Sequence[str], whole: bool = False) -> np.ndarray:
        """P(topic | text), (topics,) in the order of `data["topics"]`. Raises Impossible where P(text) is zero."""
        if not len(tokens):
            raise ValueError("the text is empty: give at least one sentence")
        automaton = self._automaton(whole)
        last = automaton.forward(self.evidence(tokens))[0][-1]
        weight = last.mass * automaton.final[last.state]
        if not weight.sum() > 0:
            raise Impossible(len(tokens), None)
        topics = np.array(self.data["states"]["topic"])[last.state]
        return np.bincount(topics, weight, len(self.data["topics"])) / weight.sum()

    def register(self, tokens: Sequence[str], name: str, whole: bool = False) -> np.ndarray:
        """P(value | text) of what a document holds in the register `name`, (values,) in the order of `data`.

        Raises Impossible where P(text) is zero, and ValueError for a register that lasts one sentence only.
        """
        number = [register["name"] for register in self.data["registers"]].index(name)
        if self.data["registers"][number]["scope"] != "document":
            raise ValueError(f"the register {name} has a new value in each sentence: ask for one that a document keeps")
        automaton = self._automaton(whole)
        last = automaton.forward(self.evidence(tokens))[0][-1]
        weight = last.mass * automaton.final[last.state]
        if not weight.sum() > 0:
            raise Impossible(len(tokens), None)
        return automaton.values(number, last.valuation, weight) / weight.sum()

    # Drawing texts.

    def texts(self, n: int, seed: int, whole: bool = False) -> Texts:
        """n texts as token ids: half begin a document, half begin anywhere; cut after a sentence with chance 0.1."""
        state, word, lengths, _ = self.draw(n, seed, self._automaton(whole))
        keep = np.arange(state.shape[1]) < lengths[:, None]
        return Texts(
            (word[keep] + SPECIAL).astype(np.int32), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        )

    def documents(self, n: int, seed: int, whole: bool = True) -> list[Document]:
        """n documents (whole=False: texts) with their gold annotation."""
        state, word, lengths, values = self.draw(n, seed, self._automaton(whole))
        return [self._annotate(s[:k], w[:k], v) for s, w, k, v in zip(state, word, lengths, values)]

    def draw(self, n: int, seed: int | Sequence[int], automaton: Automaton):
        """n texts from `automaton`, drawn side by side, one token at a time.

        Returns states (n, time), -1 after the end; words (n, time); lengths (n,); and the value that each register
        has in the first sentence (n, registers).
        """
        rng = np.random.default_rng(seed)
        values = np.stack([rng.choice(len(p), n, p=p) for p in automaton.prior], 1)
        first_values = values.copy()
        running = np.cumsum(automaton.edge_weight)
        before = np.concatenate([[0.0], running])[automaton.pointer]
        passes = self._guard_table(automaton)
        spread = self._spread(automaton)
        current, alive = np.full(n, automaton.size), np.arange(n)
        states, words, lengths = [], [], np.zeros(n, int)
        while len(alive):
            going = rng.random(len(alive)) >= automaton.final[current[alive]]
            alive = alive[going]
            if not len(alive):
                break
            ended = alive[automaton.is_end[current[alive]]]
            for register in automaton.per_sentence:
                values[ended, register] = rng.choice(
                    len(automaton.prior[register]), len(ended), p=automaton.prior[register]
                )
            todo = alive
            chosen = np.zeros(n, int)
            while len(todo):  # draw again where a guard says no
                low, high = before[current[todo]], before[current[todo] + 1]
                edge = np.searchsorted(running, low + rng.random(len(todo)) * (high - low), side="right")
                edge = np.clip(
                    edge, automaton.pointer[current[todo]], automaton.pointer[current[todo] + 1] - 1
                )
                chosen[todo] = edge
                todo = todo[~passes(automaton.guard[edge], values[todo])]
            current[alive] = automaton.target[chosen[alive]]
            states.append(np.full(n, -1))
            words.append(np.zeros(n, int))
            states[-1][alive] = current[alive]
            words[-1][alive] = spread(current[alive], values[alive], rng)
            lengths[alive] += 1
        return np.stack(states, 1), np.stack(words, 1), lengths, first_values

    def _guard_table(self, automaton: Automaton):
        widest = max(len(p) for p in automaton.prior)
        tests = max((len(guard) for guard in automaton.guards), default=1)
        register = np.zeros((len(automaton.guards) + 1, tests), int)
        table = np.ones((len(automaton.guards) + 1, tests, widest), bool)
        for g, guard in enumerate(automaton.guards):
            for k, (r, mask) in enumerate(guard):
                register[g, k] = r
                table[g, k] = [mask >> v & 1 for v in range(widest)]

        def passes(guard: np.ndarray, values: np.ndarray) -> np.ndarray:
            value = np.take_along_axis(values, register[guard], 1)
            return table[guard[:, None], np.arange(tests), value].all(1)

        return passes

    def _spread(self, automaton: Automaton):
        """A function that draws one word for each state and row of register values."""
        distributions = self.data["distributions"]
        widest = max(len(words) for words, _ in distributions)
        words, running = np.zeros((len(distributions), widest), int), np.ones((len(distributions), widest))
        for i, (w, p) in enumerate(distributions):
            words[i, : len(w)], running[i, : len(w)] = w, np.cumsum(p)
            running[i, len(w) - 1 :] = 1.0
        own = np.array(self.data["states"]["distribution"])
        registers = np.array(automaton.view_register + [0])
        options = np.zeros((len(registers), max(len(p) for p in automaton.prior)), int)
        for v, (_, choices) in enumerate(self.data["views"]):
            options[v, : len(choices)] = choices

        def spread(state: np.ndarray, values: np.ndarray, rng) -> np.ndarray:
            view = automaton.view[state]
            read = options[view, values[np.arange(len(state)), registers[view]]]
            which = np.where(view >= 0, read, own[state])
            return words[which, (rng.random(len(state))[:, None] >= running[which]).sum(1)]

        return spread

    def _annotate(self, states: np.ndarray, words: np.ndarray, values: np.ndarray) -> Document:
        data, notes = self.data, self.data["states"]["notes"]
        registers = [register["name"] for register in data["registers"]]
        tokens = [self.words[w] for w in words]
        pos = [notes.get(str(q), {}).get("pos") or data["pos"][w] for q, w in zip(states.tolist(), words)]
        sentences, coref, agrees, sense, reads = [], [], [], [], []
        first, mentions, labels = 0, {}, {}
        for i, q in enumerate(states.tolist()):
            note, view = notes.get(str(q), {}), data["states"]["view"][q]
            sense.append(note.get("sense"))
            reads.append(registers[data["views"][view][0]] if view >= 0 else None)
            controlled = "agrees" in note and pos[i] != "PRON"  # the "we" that twins say mentions them
            controller = note.get("agrees")
            agrees.append(labels.get(controller, mentions.get(controller)) if controlled else None)
            if "label" in note:
                labels[note["label"]] = i
            entity = None if controlled else reads[i]
            if pos[i] in ("NAME", "NOUN", "PRON") and entity in ("hero", "friend"):
                coref.append(mentions.get(entity, -1))
                mentions[entity] = i
            else:
                coref.append(None)
            if self.texts_automaton.is_end[q]:
                sentences.append((first, i + 1))
                first, labels = i + 1, {}
        topic = data["states"]["topic"][states[0]]

        def value(name: str) -> str | None:
            return (
                data["registers"][registers.index(name)]["values"][values[registers.index(name)]]
                if name in registers
                else None
            )

        return Document(
            tuple(tokens),
            tuple(sentences),
            tuple(data["states"]["stage"][states[a]] for a, _ in sentences),
            tuple(pos),
            tuple(phrases(pos)),
            tuple(sense),
            tuple(coref),
            tuple(agrees),
            tuple(reads),
            data["topics"][topic][0],
            value("hero"),
            value("mood"),
        )


@lru_cache(maxsize=4)
def load(size: str = "world", dialect: int = 0, zipf: float = 0.7) -> Language:
    """Tinyworld in one size ("world" or "village") and dialect (0 is the one with the true facts of our world)."""
    if (size, dialect, zipf) == ("world", 0, 0.7) and SHIPPED.exists():
        return Language(json.loads(SHIPPED.read_text(encoding="utf-8")))
    return Language(compile_language(size, dialect, zipf=zipf))
