"""What a masked language model of Tinyworld can do: nine questions for probes, three for its own answers.

Every question has a gold label from the language's annotation, and, where the exact rules decide it, what the best
possible reader answers. No person has labelled anything. A question asks for n examples, and raises ValueError when n
is not a whole number from 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from numbers import Integral

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .corpora import tinyworld
from .corpora.tinyworld import Document, Language
from .corpora.tinyworld.automaton import SPECIAL
from .corpora.tinyworld.floors import MASK_ID, corrupt
from .corpora.tinyworld.grammar import HERE as GRAMMAR
from .corpora.tinyworld.tasks import SENTIMENTS, classes_of
from .finetuning import pad
from .models.bert import MaskedLanguageModel
from .models.encoder import Encoder

VERBS = {"was": "were"} | dict(
    re.findall(r"\{hero:(\w+)/(\w+)\}", (GRAMMAR / "grammar.txt").read_text(encoding="utf-8"))
)
VERBS.pop("i")  # "i" and "we" are no verbs


@dataclass(frozen=True)
class Probed:
    """A question for a probe: n labelled places in texts.

    ids, attention_mask: (texts, time) long; text: (n,) the row of each example. spans: (n, k, 2), for each example k
    runs of places, [first, last + 1]: what the probe gets is the mean vector of each. counted: (n, k', 2), the runs
    whose words a rival counts, who has no vectors. labels: (n,) long, below len(classes). best: (n,) bool, whether the
    exact rules choose the label (by chance where two are equally likely), or None where they were not asked.
    """

    ids: Tensor
    attention_mask: Tensor
    text: Tensor
    spans: Tensor
    counted: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    best: np.ndarray | None = None


@dataclass(frozen=True)
class Cloze:
    """Covered words, to be told by a model's own head; n of them in texts as `Probed` has them.

    place: (n,) column of each; real: (n,) the id of the covered word; rival: (n,) an id that is to be less likely than
    the real one, -1 where all other words are. group: (n,) a name to tell results apart by. best: (n,) whether the
    exact rules are right, a share where words are equally likely; floor: (n,) nats, their loss at the real word.
    """

    ids: Tensor
    attention_mask: Tensor
    text: Tensor
    place: Tensor
    real: Tensor
    rival: Tensor
    group: np.ndarray
    best: np.ndarray
    floor: np.ndarray


@torch.no_grad()
def vectors(encoder: Encoder, asked: Probed, batch_size: int = 100) -> Tensor:
    """(layers + 1, n, k * width): the mean vector of each example's runs, after the embeddings and each block."""
    found = {}
    for rows in _by_length(asked, batch_size):
        time = int(asked.attention_mask[rows].sum(1).max())
        states = encoder(asked.ids[rows, :time], asked.attention_mask[rows, :time], all_layers=True).double()
        before = F.pad(states.cumsum(2), (0, 0, 1, 0))  # before[t]: the sum of all vectors before place t
        here, row = _here(asked, rows)
        first, last = asked.spans[here].unbind(-1)
        mean = (before[:, row[:, None], last] - before[:, row[:, None], first]) / (last - first)[:, :, None]
        found |= zip(here.tolist(), mean.flatten(2).float().unbind(1))  # mean: (layers + 1, n here, k, width)
    return torch.stack([found[i] for i in range(len(asked.text))], 1)


def _by_length(asked: Probed | Cloze, batch_size: int) -> tuple[Tensor, ...]:
    """The rows of texts in batches of like length."""
    return asked.attention_mask.sum(1).argsort(stable=True).split(batch_size)


def _here(asked: Probed | Cloze, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of the examples that stand in some rows, and which of these rows each stands in."""
    match = asked.text[:, None] == rows
    return match.nonzero().unbind(1)


@torch.no_grad()
def answers(model: MaskedLanguageModel, asked: Cloze, by_word: Callable[[Tensor], Tensor] = lambda logits: logits,
            batch_size: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """(right, loss), (n,) bool and nats: whether the model prefers the covered word, and -log P of it.

    by_word: makes of the model's logits, (n, vocab), those of the words that the question speaks of.
    """
    n = len(asked.real)
    told, loss = np.zeros(n, bool), np.zeros(n)
    for rows in _by_length(asked, batch_size):
        time = int(asked.attention_mask[rows].sum(1).max())
        here, row = _here(asked, rows)
        states = model.encoder(asked.ids[rows, :time], asked.attention_mask[rows, :time])
        logits = by_word(model.head(states[row, asked.place[here]], model.encoder.embeddings.token.weight))
        real, rival = asked.real[here], asked.rival[here]
        of_rival = logits.gather(1, rival.clamp(min=0)[:, None])[:, 0]
        of_real = logits.gather(1, real[:, None])[:, 0]
        told[here] = torch.where(rival < 0, logits.argmax(-1) == real, of_real > of_rival)
        loss[here] = F.cross_entropy(logits, real, reduction="none")
    return told, loss


def crossing(steps: Sequence[int], scores: Sequence[float], threshold: float) -> int | None:
    """The first step from which on the score is never below `threshold`, or None (Chiang et al. 2020, section 3)."""
    reached = None
    for step, score in zip(steps, scores):
        if score < threshold:
            reached = None
        elif reached is None:
            reached = step
    return reached


def counting(learned: Probed, asked: Probed) -> np.ndarray:
    """(n,) bool: whether someone who counts words, and sees no vectors, chooses the label.

    It is a logistic regression, and how freely it may learn is decided among the examples it learns from.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, KFold

    vocabulary = 1 + max(int(one.ids.max()) for one in (learned, asked))

    def counts(one: Probed) -> csr_matrix:
        places = [(i, run * vocabulary + int(one.ids[one.text[i], at])) for i, runs in enumerate(one.counted.tolist())
                  for run, (first, last) in enumerate(runs) for at in range(first, last)]
        shape = len(one.labels), vocabulary * one.counted.shape[1]
        return csr_matrix((np.ones(len(places)), np.array(places).T), shape=shape)

    if len(learned.labels.unique()) == 1:  # nothing to choose from
        return (asked.labels == learned.labels[0]).numpy()
    folds = KFold(min(5, len(learned.labels)), shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [1, 10, 100]}, cv=folds)
    rival = search.fit(counts(learned), learned.labels.numpy())
    return rival.predict(counts(asked)) == asked.labels.numpy()


def _check(n: int) -> None:
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n is {n!r}: give a whole number from 1")


# ids of a text as a model reads it, and back to the words that the exact rules read.


def _ids(language: Language, tokens: Sequence[str]) -> list[int]:
    return [MASK_ID if token == tinyworld.MASK else SPECIAL + language.index[token] for token in tokens]


def _texts(language: Language, seed: int) -> Iterator[Document]:
    """Runs of whole sentences of the world, as many as are asked for. Questions ask for one or more of them."""
    for chunk in count():
        yield from language.documents(500, [seed, chunk], whole=False)


def _probed(language: Language, texts: Sequence[Sequence[str]], examples: Sequence[tuple], classes: Sequence[str],
            best: Sequence[bool] | None = None) -> Probed:
    """examples: (text, runs for the probe, runs for who counts, label) with word 0 as the first word of a text."""
    ids, mask = pad([_ids(language, text) for text in texts], language.tokenizer)
    text, spans, counted, labels = zip(*examples)
    numbers = [classes.index(label) for label in labels]
    return Probed(ids, mask, torch.tensor(text), torch.tensor(spans) + 1, torch.tensor(counted) + 1,  # [CLS] is first
                  torch.tensor(numbers), tuple(classes), None if best is None else np.array(best))


def _covered(tokens: Sequence[str], place: int) -> list[str]:
    return [*tokens[:place], tinyworld.MASK, *tokens[place + 1 :]]


def _of_words(language: Language, n: int, seed: int, label: Callable, classes: Sequence[str], each: int = 5) -> Probed:
    """`each` visible words of every text, drawn at random; label: (document, place) -> class."""
    _check(n)
    rng, texts, examples = np.random.default_rng(seed), [], []
    for document in _texts(language, seed):
        for place in rng.permutation(len(document.tokens))[:each].tolist():
            run = [[place, place + 1]]
            examples.append((len(texts), run, run, label(document, place)))
        texts.append(document.tokens)
        if len(examples) >= n:
            return _probed(language, texts, examples[:n], classes)


def part_of_speech(language: Language, n: int, seed: int) -> Probed:
    """The part of speech of a visible word."""
    return _of_words(language, n, seed, lambda document, place: document.pos[place], classes_of("tags", language))


def phrase(language: Language, n: int, seed: int) -> Probed:
    """Where a visible word stands in its phrase: B-NP, I-NP, B-VP, ... or O."""
    kinds = [f"{edge}-{kind}" for kind in ("NP", "VP", "PP", "ADJP", "ADVP") for edge in "BI"]
    return _of_words(language, n, seed, lambda document, place: document.phrase[place], (*kinds, "O"))


def covered_part_of_speech(language: Language, n: int, seed: int) -> Probed:
    """The part of speech of a covered word, one a text. Who counts sees the words on both sides."""
    _check(n)
    rng, texts, examples, best = np.random.default_rng(seed), [], [], []
    tag_of = np.array(language.data["pos"])
    for document in islice((d for d in _texts(language, seed) if len(d.tokens) > 2), n):
        place = int(rng.integers(1, len(document.tokens) - 1))
        exact, chance = language.posterior(document.tokens, [place])[0][SPECIAL:], Counter()
        for word in np.flatnonzero(exact):  # the real word counts for the tag that it has here
            known = word == language.index[document.tokens[place]]
            chance[document.pos[place] if known else tag_of[word]] += exact[word]
        best.append(chance.most_common(1)[0][0] == document.pos[place])
        sides = [[place - 1, place], [place + 1, place + 2]]
        examples.append((len(texts), [[place, place + 1]], sides, document.pos[place]))
        texts.append(_covered(document.tokens, place))
    return _probed(language, texts, examples, classes_of("tags", language), best)


@dataclass(frozen=True)
class _Verb:
    document: Document
    place: int
    subject: int
    other: str  # the form of the other number

    @property
    def between(self) -> str:
        """Which nouns stand between subject and verb: none, some of the other number, or only of the same."""
        words, plural = self.document.tokens, self.document.tokens[self.place] in VERBS.values()
        inside = range(self.subject + 1, self.place)
        nouns = [words[i].endswith("s") for i in inside if self.document.pos[i] == "NOUN"]  # here all plurals end so
        if not nouns:
            return "no noun"
        return "other number" if any(noun != plural for noun in nouns) else "same number"


def _verbs(language: Language, seed: int) -> Iterator[_Verb]:
    """Verbs that agree with a word before them, and at least one word in between."""
    other = VERBS | {many: one for one, many in VERBS.items()}
    for document in _texts(language, seed):
        for place, subject in enumerate(document.agrees):
            if subject is not None and 0 <= subject < place - 1 and document.tokens[place] in other:
                yield _Verb(document, place, subject, other[document.tokens[place]])
                break  # one a text


def agreement(language: Language, n: int, seed: int) -> Probed:
    """The number of a covered verb whose subject stands before it, with words in between.

    Who counts sees the word right before the verb, and apart from it all words of the text.
    """
    _check(n)
    verbs = [*islice(_verbs(language, seed), n)]
    texts, examples, best = [], [], []
    for verb in verbs:
        tokens, place = verb.document.tokens, verb.place
        exact = language.posterior(tokens, [place])[0]
        best.append(exact[SPECIAL + language.index[tokens[place]]] > exact[SPECIAL + language.index[verb.other]])
        number = "one" if tokens[place] in VERBS else "many"
        counted = [[place - 1, place], [0, len(tokens)]]
        examples.append((len(texts), [[place, place + 1]], counted, number))
        texts.append(_covered(tokens, place))
    return _probed(language, texts, examples, ("one", "many"), best)


def coreference(language: Language, n: int, seed: int) -> Probed:
    """Whom a visible pronoun means: which of the heroes, who is named earlier in the text.

    Every text has one hero, so who counts all its words finds the name; the probe has the pronoun's vector alone.
    """
    _check(n)
    registers = {one["name"]: one for one in language.data["registers"]}
    texts, examples = [], []
    for document in _texts(language, seed):
        meant = [place for place, tag in enumerate(document.pos)
                 if tag == "PRON" and document.reads[place] == "hero" and document.hero in document.tokens[:place]]
        if meant:
            run = [meant[-1], meant[-1] + 1]
            examples.append((len(texts), [run], [run, [0, len(document.tokens)]], document.hero))
            texts.append(document.tokens)
        if len(texts) == n:
            return _probed(language, texts, examples, registers["hero"]["values"], [True] * n)


@cache
def _senses(language: Language) -> dict[tuple[str, str], str]:
    """(word, topic) -> the sense that the word has there."""
    return {(word, document.topic): sense for document in language.documents(3000, 0, whole=False)
            for word, sense in zip(document.tokens, document.sense) if sense}


def sense(language: Language, n: int, seed: int) -> Probed:
    """The sense of a visible ambiguous word, as word#sense. Who counts sees the word, and all words of the text."""
    _check(n)
    table, topics = _senses(language), [name for name, _ in language.data["topics"]]
    texts, examples, best = [], [], []
    for document in _texts(language, seed):
        place = next((place for place, one in enumerate(document.sense) if one), None)
        if place is not None:
            word, chance = document.tokens[place], Counter()
            for topic, p in zip(topics, language.topic(document.tokens)):
                chance[table.get((word, topic))] += p
            best.append(chance.most_common(1)[0][0] == document.sense[place])
            run = [place, place + 1]
            counted = [run, [0, len(document.tokens)]]
            examples.append((len(texts), [run], counted, f"{word}#{document.sense[place]}"))
            texts.append(document.tokens)
        if len(texts) == n:
            classes = sorted({f"{word}#{one}" for (word, _), one in table.items()})
            return _probed(language, texts, examples, classes, best)


def topic(language: Language, n: int, seed: int) -> Probed:
    """The topic of a text."""
    topics = [name for name, _ in language.data["topics"]]
    return _of_texts(language, n, seed, topics, lambda d: d.topic, lambda d: language.topic(d.tokens))


def mood(language: Language, n: int, seed: int) -> Probed:
    """Whether the story of a text ends well or badly."""
    values = next(one["values"] for one in language.data["registers"] if one["name"] == "mood")
    assert sorted(values) == sorted(SENTIMENTS)
    return _of_texts(language, n, seed, values, lambda d: d.sentiment, lambda d: language.register(d.tokens, "mood"))


def _of_texts(language: Language, n: int, seed: int, classes: Sequence[str], label: Callable,
              exact: Callable) -> Probed:
    _check(n)
    documents = [*islice(_texts(language, seed), n)]
    best = [classes[int(np.argmax(exact(document)))] == label(document) for document in documents]
    runs = [[[0, len(document.tokens)]] for document in documents]
    examples = [(i, run, run, label(document)) for i, (run, document) in enumerate(zip(runs, documents))]
    return _probed(language, [document.tokens for document in documents], examples, classes, best)


def order(language: Language, n: int, seed: int) -> Probed:
    """Whether two neighbouring sentences stand in their order or are exchanged."""
    _check(n)
    pairs, rng = tinyworld.Pairs(language), np.random.default_rng(seed)
    texts, examples, best = [], [], []
    for first, second in zip(*pairs.sentences(pairs.draw(n, seed))):
        kept = bool(rng.random() < 0.5)
        a, b = (first, second) if kept else (second, first)
        chance = pairs.in_order(a, b)  # P(a came first | these two sentences)
        best.append((chance > 0.5) == kept if chance != 0.5 else rng.random() < 0.5)
        runs = [[0, len(a)], [len(a), len(a) + len(b)]]
        examples.append((len(texts), runs, runs, "in order" if kept else "exchanged"))
        texts.append([*a, *b])
    return _probed(language, texts, examples, ("in order", "exchanged"), best)


PROBES: dict[str, Callable[[Language, int, int], Probed]] = {
    "part of speech": part_of_speech,
    "phrase": phrase,
    "covered part of speech": covered_part_of_speech,
    "agreement": agreement,
    "coreference": coreference,
    "sense": sense,
    "topic": topic,
    "mood": mood,
    "order": order,
}


def _cloze(language: Language, asked: Sequence[tuple]) -> Cloze:
    """asked: (tokens, the covered places, and for each its (group, rival or None)); the exact rules answer too."""
    rows, examples = [], []
    for tokens, places, about in asked:
        exact = language.posterior(tokens, places)
        for place, chance, (group, rival) in zip(places, exact, about):
            real = SPECIAL + language.index[tokens[place]]
            other = -1 if rival is None else SPECIAL + language.index[rival]
            rivals = chance if rival is None else chance[[real, other]]
            ties = int((rivals >= rivals.max() - 1e-9).sum())  # who knows the rules takes any of these
            best = (chance[real] >= rivals.max() - 1e-9) / ties
            examples.append((len(rows), place + 1, real, other, group, best, -np.log(chance[real])))
        covered = [tinyworld.MASK if place in places else token for place, token in enumerate(tokens)]
        rows.append(_ids(language, covered))
    text, place, real, rival, group, best, floor = zip(*examples)
    numbers = (torch.tensor(one) for one in (text, place, real, rival))
    return Cloze(*pad(rows, language.tokenizer), *numbers, np.array(group), np.array(best), np.array(floor))


def words(language: Language, n: int, seed: int) -> Cloze:
    """The words of n texts, each covered with a chance of 15%; group: the part of speech.

    Raises ValueError, too, when chance has covered none.
    """
    _check(n)
    rng, asked = np.random.default_rng(seed), []
    for document in islice(_texts(language, seed), n):
        ids = np.array(_ids(language, document.tokens))
        _, targets = corrupt(ids, rng, len(language.words), rate=0.15, mask=1.0, random=0.0)
        places = np.flatnonzero(targets >= 0).tolist()
        if places:
            asked.append((document.tokens, places, [(document.pos[place], None) for place in places]))
    if not asked:
        raise ValueError(f"no word of {n} texts is covered: ask for more texts")
    return _cloze(language, asked)


def minimal_pairs(language: Language, n: int, seed: int) -> Cloze:
    """A verb in its number and in the other one: two texts that differ in this word, and one is impossible.

    group: "no noun" stands between the subject and the verb, one of the "other number", or only of the "same number".
    """
    _check(n)
    verbs = islice(_verbs(language, seed), n)
    return _cloze(language, [(verb.document.tokens, [verb.place],
                              [(verb.between, verb.other)]) for verb in verbs])


FACTS = ("country.capital", "animal.home", "animal.young", "thing.colour", "word.opposite")


def facts(language: Language, n: int, seed: int) -> Cloze:
    """A fact of the world whose second half is covered, its first half visible, and said nowhere else in the text.

    group: the kind of fact, one of FACTS; as many of each. Raises ValueError, too, when n is no multiple of their
    number.
    """
    _check(n)
    if n % len(FACTS):
        raise ValueError(f"n is {n}: give a multiple of {len(FACTS)}, so that there are as many of each kind of fact")
    registers, asked = {one["name"]: one for one in language.data["registers"]}, {fact: [] for fact in FACTS}
    for document in _texts(language, seed):
        for fact, found in asked.items():
            name, column = fact.split(".")
            known = dict(zip(registers[name]["values"], registers[name]["columns"][column]))
            said = [known[token] for token, read in zip(document.tokens, document.reads)
                    if read == name and token in known]
            places = [place for place, (token, read) in enumerate(zip(document.tokens, document.reads))
                      if read == name and token in said and document.tokens.count(token) == 1]
            if places and len(found) < n // len(FACTS):
                found.append((document.tokens, places[:1], [(fact, None)]))
        if all(len(found) == n // len(FACTS) for found in asked.values()):
            return _cloze(language, [one for found in asked.values() for one in found])


CLOZES: dict[str, Callable[[Language, int, int], Cloze]] = {
    "words": words,
    "minimal pairs": minimal_pairs,
    "facts": facts,
}
