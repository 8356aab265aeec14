"""Who needs no network: chapter 4's baselines, each a way to count. All answer from labelled examples alone, but for
`said_word`, which knows the forms of Tinyworld's statements.

Each takes the examples to learn from and those asked, and returns one answer for each asked, in the form of its gold;
for questions, the words of the answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from ..corpora.tinyworld.tasks import STATEMENTS, Example
from ..finetuning import word_f1


def majority(learned: Sequence[Example], asked: Sequence[Example]) -> list[int]:
    """Always the most frequent class."""
    most = Counter(one.gold for one in learned).most_common(1)[0][0]
    return [most] * len(asked)


def counted_words(learned: Sequence[Example], asked: Sequence[Example]) -> list[int]:
    """Naive Bayes on counts of words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    rival = make_pipeline(CountVectorizer(analyzer=lambda one: one.first + one.second), MultinomialNB())
    return rival.fit(learned, [one.gold for one in learned]).predict(asked).tolist()


def shared_words(learned: Sequence[Example], asked: Sequence[Example]) -> list[int]:
    """One number for two texts: the share of the second's words that the first one has, too."""
    from sklearn.linear_model import LogisticRegression

    def shares(examples: Sequence[Example]) -> list[list[float]]:
        bare = [[{word.lower().strip(".,") for word in part} for part in (one.first, one.second)] for one in examples]
        return [[len(first & second) / len(second)] for first, second in bare]

    return LogisticRegression().fit(shares(learned), [one.gold for one in learned]).predict(shares(asked)).tolist()


def usual_tags(learned: Sequence[Example], asked: Sequence[Example]) -> list[tuple[str, ...]]:
    """Each word's most frequent tag; of a new word, the most frequent tag of all."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for one in learned:
        for word, tag in zip(one.first, one.gold):
            counts[word][tag] += 1
    most = sum(counts.values(), Counter()).most_common(1)[0][0]
    usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    return [tuple(usual.get(word, most) for word in one.first) for one in asked]


def said_word(learned: Sequence[Example], asked: Sequence[Example]) -> list[int]:
    """Does the text have the word that the statement is about, or another that such statements were about?

    The most frequent class where these two, and the kind of statement, are the same; else where these two are.
    """
    kinds = {tuple(form.split("{}")): kind for kind, form in STATEMENTS.items()}

    def parse(one: Example) -> tuple[str, str]:
        said = " ".join(one.second)
        begin, end = next(ends for ends in kinds if said.startswith(ends[0]) and said.endswith(ends[1]))
        return kinds[begin, end], said.removeprefix(begin).removesuffix(end).split()[-1]

    known: dict[str, set[str]] = defaultdict(set)
    for kind, word in map(parse, learned):
        known[kind].add(word)

    def seen(one: Example) -> tuple[str, tuple[bool, bool]]:
        kind, word = parse(one)
        return kind, (word in one.first, bool((known[kind] - {word}) & set(one.first)))

    counts: dict[object, Counter] = defaultdict(Counter)
    for one in learned:
        kind, found = seen(one)
        for key in ((kind, found), found, ()):
            counts[key][one.gold] += 1
    most = {key: golds.most_common(1)[0][0] for key, golds in counts.items()}
    return [next(most[key] for key in (where, where[1], ()) if key in most) for where in map(seen, asked)]


def known_answers(learned: Sequence[Example], asked: Sequence[Example]) -> list[tuple[str, ...]]:
    """The longest of the answers that this question once had and that stand in the text; none, if none does."""
    known: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for one in learned:
        known[one.first] |= {one.second[first:last] for first, last in one.gold[:1]}  # as many as a network is told
    told = []
    for one in asked:
        text = f" {' '.join(one.second)} "
        told.append(max((words for words in known[one.first] if f" {' '.join(words)} " in text), key=len, default=()))
    return told


def right(told: Sequence, asked: Sequence[Example]) -> float:
    """The share of the texts, or of the words, whose class is told."""
    pairs = zip(told, (one.gold for one in asked))
    each = [pair for one, gold in pairs for pair in (zip(one, gold) if isinstance(gold, tuple) else [(one, gold)])]
    return sum(one == gold for one, gold in each) / len(each)


def mean_tag_f1(told: Sequence[Sequence[str]], asked: Sequence[Example]) -> float:
    """F1 averaged over the tags that occur, as `finetuning.tag_scores` has it."""
    from sklearn.metrics import f1_score

    gold, flat = ([tag for tags in many for tag in tags] for many in ((one.gold for one in asked), told))
    return float(f1_score(gold, flat, labels=sorted(set(gold)), average="macro", zero_division=0.0))


def mean_word_f1(told: Sequence[Sequence[str]], asked: Sequence[Example]) -> float:
    """F1 over words, the best over the right answers, as `finetuning.answer_scores` has it."""
    golds = [[one.second[first:last] for first, last in one.gold] or [()] for one in asked]
    return sum(max(word_f1(words, gold) for gold in some) for words, some in zip(told, golds)) / len(asked)
