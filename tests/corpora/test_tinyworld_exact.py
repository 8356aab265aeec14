"""The exact answers against brute force: every text of small random grammars is listed, with its probability."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.corpora.tinyworld.automaton import SEP, SPECIAL, Evidence, Impossible
from selfsup.corpora.tinyworld.floors import exact_losses, nsp_accuracy, sop_accuracy
from selfsup.corpora.tinyworld.grammar import compile_language
from selfsup.corpora.tinyworld.language import MASK, Language, load
from selfsup.corpora.tinyworld.pairs import NEGATIVES, Pairs

LEXICON = """
[lists]
fruit = ["apple", "pear"]
thing = ["pear", "cup", "hat"]
[pos]
NOUN = "apple pear cup hat ann sue bob twins red tom den sea hill paw fox cow she he they"
VERB = "saw had is are"
ADJ = "glad sad calm good bad"
PUNCT = ". ! ?"
[registers.hero]
scope = "document"
values = { she = ["ann", "sue"], he = ["bob"], they = ["twins"] }
weights = { she = 3, he = 2, they = 1 }
number = { they = "many" }
views.she = { she = "she", he = "he", they = "they" }
[registers.mood]
scope = "document"
values = { good = ["good"], bad = ["bad"] }
lists.feeling = { good = ["glad", "calm"], bad = ["calm", "sad"] }
[registers.beast]
scope = "sentence"
rows = [ {name="fox", home="den"}, {name="cow", home="hill"}, {name="red", home="hill"} ]
permute = ["home"]
[village]
topics = []
"""
HEROES = [
    (name, group, weight)
    for group, names, weight in (("she", ["ann", "sue"], 1.5), ("he", ["bob"], 2.0), ("they", ["twins"], 1.0))
    for name in names
]
BEASTS = [("fox", "den"), ("cow", "hill"), ("red", "hill")]
GROUPS = {"hero": {"she", "he", "they"}, "mood": {"good", "bad"}}


def spread(words, exponent=0.7):
    weights = [(rank + 2) ** -exponent for rank in range(len(words))]
    return [(word, weight / sum(weights)) for word, weight in zip(words, weights)]


def emissions(item, hero, mood, beast):
    """[(word, probability)] of one token place, given the registers."""
    return {
        "<fruit>": spread(["apple", "pear"]),
        "<thing>": spread(["pear", "cup", "hat"]),
        "{hero}": [(hero[0], 1)],
        "{hero.she}": [({"she": "she", "he": "he", "they": "they"}[hero[1]], 1)],
        "{hero:is/are}": [("are" if hero[1] == "they" else "is", 1)],
        "{beast}": [(beast[0], 1)],
        "{beast.home}": [(beast[1], 1)],
        "{mood.feeling}": spread(["glad", "calm"] if mood == "good" else ["calm", "sad"]),
    }.get(item, [(item, 1)])


def expand(sequence, hero, mood, beast):
    """{tokens: probability} of a sequence of items and choices, given the registers."""
    whole = {(): 1.0}
    for item in sequence:
        if isinstance(item, str):
            part = {(word,): p for word, p in emissions(item, hero, mood, beast)}
        else:
            part = choose(item, hero, mood, beast)
        grown = defaultdict(float)
        for (a, p), (b, q) in itertools.product(whole.items(), part.items()):
            grown[a + b] += p * q
        whole = grown
    return whole


def choose(branches, hero, mood, beast):
    value = {"hero": hero[1], "mood": mood}
    open_ = [(w, sequence) for w, guard, sequence in branches if guard is None or value[guard[0]] in guard[1]]
    answer = defaultdict(float)
    for weight, sequence in open_:
        for tokens, p in expand(sequence, hero, mood, beast).items():
            answer[tokens] += p * weight / sum(w for w, _ in open_)
    return answer


def sentences(stage, hero, mood):
    answer = defaultdict(float)
    for beast in BEASTS:
        for tokens, p in choose(stage, hero, mood, beast).items():
            answer[tokens] += p / len(BEASTS)
    return answer


def walks(chances, first=0):
    """[(stages told, probability)] from stage `first` to the end of the topic."""
    answer = []
    for told in itertools.product([True, False], repeat=len(chances) - first):
        p = math.prod(c if t else 1 - c for c, t in zip(chances[first:], told))
        if p:
            answer.append(([first + i for i, t in enumerate(told) if t], p))
    return answer


def texts(topics, whole):
    """{tokens: probability} of every text."""
    begin, run = (1.0, 0.0) if whole else (0.5, 0.1)
    starts = []  # (topic, stages to come, probability)
    visits = sum(chance for topic in topics for chance, _ in topic)
    for topic in topics:
        chances = [chance for chance, _ in topic]
        starts += [(topic, told, begin * p / len(topics)) for told, p in walks(chances)]
        for s, chance in enumerate(chances):
            starts += [
                (topic, [s, *told], (1 - begin) * chance / visits * p) for told, p in walks(chances, s + 1)
            ]
    answer = defaultdict(float)
    total = sum(weight for _, _, weight in HEROES)
    for (name, group, weight), mood in itertools.product(HEROES, ["good", "bad"]):
        for topic, told, p in starts:
            parts = [sentences(topic[s][1], (name, group), mood) for s in told]
            for k in range(1, len(told) + 1):
                stop = (1 - run) ** (k - 1) * (run if k < len(told) else 1.0)
                if stop and p:
                    for pieces in itertools.product(*(part.items() for part in parts[:k])):
                        tokens = sum((piece for piece, _ in pieces), ())
                        answer[tokens] += weight / total / 2 * p * stop * math.prod(q for _, q in pieces)
    return answer


def notation(sequence):
    return " ".join(
        item if isinstance(item, str) else "( " + " | ".join(map(branch, item)) + " )" for item in sequence
    )


def branch(parts):
    weight, guard, sequence = parts
    return (
        f"{weight}: "
        + (f"{{{guard[0]}={','.join(sorted(guard[1]))}}} " if guard else "")
        + notation(sequence)
    )


def grammar(topics):
    lines = []
    for t, topic in enumerate(topics):
        lines.append(f"topic t{t}")
        for s, (chance, schemas) in enumerate(topic):
            lines += [f"stage s{s}" if chance == 1 else f"stage s{s}? {chance}", *map(branch, schemas)]
    return "\n".join(lines)


words = st.sampled_from(
    [
        "saw",
        "had",
        "cup",
        "<fruit>",
        "<thing>",
        "{hero}",
        "{hero.she}",
        "{hero:is/are}",
        "{beast}",
        "{beast.home}",
        "{mood.feeling}",
    ]
)


@st.composite
def choices(draw, inner):
    """Alternatives; sometimes guarded, then with one unguarded branch so that every value has one."""
    sequences = draw(st.lists(inner, min_size=1, max_size=3))
    register = draw(st.sampled_from([None, None, "hero", "mood"]))
    branches = [[draw(st.integers(1, 3)), None, sequence] for sequence in sequences]
    if register:
        for entry in branches[1:]:
            entry[1] = (
                register,
                frozenset(draw(st.sets(st.sampled_from(sorted(GROUPS[register])), min_size=1))),
            )
    return [tuple(entry) for entry in branches]


short = st.lists(words, max_size=2)
sequence = st.lists(st.one_of(words, words, choices(short)), min_size=1, max_size=3)
schemas = choices(
    st.tuples(sequence, st.sampled_from([".", ".", "!"])).map(lambda parts: [*parts[0], parts[1]])
)
stage = st.tuples(st.just(1.0), schemas)
optional = st.tuples(st.sampled_from([0.25, 0.5]), schemas)
topic = (
    st.tuples(stage, optional).map(list) | st.tuples(stage).map(list) | st.tuples(optional, stage).map(list)
)
worlds = st.lists(topic, min_size=1, max_size=2).filter(lambda topics: sum(len(t) for t in topics) <= 3)


def build(topics):
    return Language(compile_language(lexicon=LEXICON, grammar=grammar(topics)))


def conditional(table, pattern, language):
    """P(token | rest) at each None of `pattern`, by summing over all texts that agree with it."""
    answer = np.zeros((sum(token is None for token in pattern), len(language.words) + SPECIAL))
    for tokens, p in table.items():
        if len(tokens) == len(pattern) and all(b is None or a == b for a, b in zip(tokens, pattern)):
            for row, t in enumerate(i for i, token in enumerate(pattern) if token is None):
                answer[row, language.index[tokens[t]] + SPECIAL] += p
    return answer / answer.sum(1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(worlds, st.booleans(), st.randoms(use_true_random=False))
def test_posterior_and_log_prob_equal_brute_force(topics, whole, random):
    table = texts(topics, whole)
    assert sum(table.values()) == pytest.approx(1, abs=1e-9), "the brute force itself must sum to one"
    language = build(topics)
    for tokens in random.sample(sorted(table), min(4, len(table))):
        assert language.log_prob(tokens, whole) == pytest.approx(math.log(table[tokens]), abs=1e-8)
        masked = sorted(random.sample(range(len(tokens)), random.randint(1, len(tokens))))
        pattern = [None if i in masked else token for i, token in enumerate(tokens)]
        expected = conditional(table, pattern, language)
        assert np.abs(language.posterior(tokens, masked, whole) - expected).max() < 1e-8
        evidence = math.log(
            sum(
                p
                for other, p in table.items()
                if len(other) == len(tokens) and all(b is None or a == b for a, b in zip(other, pattern))
            )
        )
        assert language.log_prob([token or MASK for token in pattern], whole) == pytest.approx(
            evidence, abs=1e-8
        )


@settings(max_examples=40, deadline=None)
@given(worlds, st.booleans(), st.randoms(use_true_random=False))
def test_next_word_equals_brute_force_and_sums_to_one(topics, whole, random):
    table, language = texts(topics, whole), build(topics)
    for tokens in random.sample(sorted(table), min(4, len(table))):
        prefix = tokens[: random.randint(0, len(tokens))]
        expected = np.zeros(len(language.words) + SPECIAL)
        for other, p in table.items():
            if other[: len(prefix)] == prefix:
                expected[
                    SEP if len(other) == len(prefix) else language.index[other[len(prefix)]] + SPECIAL
                ] += p
        answer = language.next_word(prefix, whole)
        assert answer.sum() == pytest.approx(1, abs=1e-9)
        assert np.abs(answer - expected / expected.sum()).max() < 1e-8


@settings(max_examples=40, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_soft_evidence_equals_brute_force(topics, random):
    """The loss at a chosen position sums, over all texts, the chance of being corrupted into what is seen."""
    table, language = texts(topics, False), build(topics)
    rate, mask, swap = 0.3, 0.6, 0.2
    keep, size = 1 - mask - swap, len(language.words)
    tokens = random.choice(sorted(table))
    real = np.array([language.index[token] + SPECIAL for token in tokens])
    corrupted, targets = real.copy(), np.full(len(real), -100)
    for t in range(len(real)):
        if random.random() < 0.5:
            targets[t] = real[t]
            corrupted[t] = random.choice([4, real[t], SPECIAL + random.randrange(size)])
    expected = []
    for t in np.flatnonzero(targets >= 0):
        chance = np.zeros(size + SPECIAL)
        for other, p in table.items():
            if len(other) == len(tokens):
                for i, word in enumerate(other):
                    same = language.index[word] + SPECIAL == corrupted[i]
                    if corrupted[i] == 4:
                        p *= rate * mask
                    elif i == t:
                        p *= rate * (keep * same + swap / size)
                    else:
                        p *= (1 - rate) * same + rate * (keep * same + swap / size)
                chance[language.index[other[t]] + SPECIAL] += p
        expected.append(-math.log(chance[real[t]] / chance.sum()))
    losses = exact_losses(language, corrupted, targets, rate=rate, mask=mask, random=swap, prune=0)
    assert np.abs(losses - expected).max(initial=0) < 1e-7


@settings(max_examples=15, deadline=None)
@given(worlds, st.booleans())
def test_drawn_texts_have_the_right_frequencies(topics, whole):
    table, language = texts(topics, whole), build(topics)
    n, counts = 4000, defaultdict(int)
    for ids in (lambda drawn: [drawn[i] for i in range(n)])(language.texts(n, seed=1, whole=whole)):
        counts[tuple(language.words[i - SPECIAL] for i in ids)] += 1
    assert set(counts) <= set(table), "a text was drawn that the grammar does not contain"
    for tokens, p in table.items():
        assert abs(counts[tokens] - n * p) < 5.5 * math.sqrt(n * p * (1 - p)) + 3, tokens


def neighbours(topics):
    """{(topic, place of b, a, b): probability} of every pair of neighbouring sentences, all pairs alike."""
    answer = defaultdict(float)
    total = sum(weight for _, _, weight in HEROES)
    for (name, group, weight), mood, (t, topic) in itertools.product(HEROES, ["good", "bad"], enumerate(topics)):
        for told, p in walks([chance for chance, _ in topic]):
            parts = [(s, sentences(topic[s][1], (name, group), mood)) for s in told]
            for (_, first), (place, second) in itertools.pairwise(parts):
                for (a, q), (b, r) in itertools.product(first.items(), second.items()):
                    answer[t, place, a, b] += weight / total / 2 * p * q * r
    whole = sum(answer.values())
    return {key: p / whole for key, p in answer.items()}


@settings(max_examples=60, deadline=None)
@given(worlds.filter(lambda topics: any(len(topic) > 1 for topic in topics)), st.randoms(use_true_random=False))
def test_pairs_equal_brute_force(topics, random):
    table, pairs = neighbours(topics), Pairs(build(topics))
    both = defaultdict(float)
    first, second, share = ({kind: defaultdict(float) for kind in NEGATIVES} for _ in range(3))
    for (topic, place, a, b), p in table.items():
        both[a, b] += p
        for kind, group in (("topic", topic), ("place", place), ("anywhere", 0)):
            first[kind][group, a] += p
            second[kind][group, b] += p
            share[kind][group] += p
    assert pairs.share.sum(1) == pytest.approx([share["topic"][t] for t in range(len(topics))], abs=1e-8)
    for _ in range(4):
        a, b = random.choice(sorted({a for a, _ in both})), random.choice(sorted({b for _, b in both}))
        assert pairs.in_a_row(a, b) == pytest.approx(both[a, b], abs=1e-8)
        assert pairs.in_a_row(b, a) == pytest.approx(both[b, a], abs=1e-8), "exchanged"
        begins, agree = sum(p for (one, _), p in both.items() if one == a), {}
        for kind in NEGATIVES:
            groups = [group for group, p in share[kind].items() if p]
            apart = sum(first[kind][g, a] * second[kind][g, b] / share[kind][g] for g in groups)
            agree[kind] = apart
            assert pairs.apart(a, b, kind) == pytest.approx(apart, abs=1e-8), kind
            if both[a, b]:
                odds = apart * (1 - both[a, b] / begins) / both[a, b]
                assert pairs.is_next(a, b, kind) == pytest.approx(1 / (1 + odds), abs=1e-6), kind
        for known, kind in itertools.product(("topic", "place"), NEGATIVES):
            told, apart = agree[known], agree[known if kind == known else "anywhere"]
            if told + apart > 1e-12:
                found = pairs.is_next_knowing([known], a, b, kind)
                assert found == pytest.approx(told / (told + apart), abs=1e-6), (known, kind)
        if both[a, b]:
            assert pairs.in_order(a, b) == pytest.approx(both[a, b] / (both[a, b] + both[b, a]), abs=1e-6)
            tokens, at = [*a, *b], random.randrange(len(a + b))
            expected = defaultdict(float)
            for (one, two), p in both.items():
                other = [*one, *two]
                if other == tokens[:at] + other[at : at + 1] + tokens[at + 1 :]:
                    expected[other[at]] += p
            found = pairs.posterior(tokens, [at])[0]
            # where one sentence could become two, or two one, the text need not be a pair
            marks = [SPECIAL + pairs.language.index[mark] for mark in ".!" if mark in pairs.language.index]
            ends = tokens[at] in (".", "!") or found[marks].sum() > 0
            for word in pairs.language.words:
                chance = expected[word] / sum(expected.values())
                assert ends or found[SPECIAL + pairs.language.index[word]] == pytest.approx(chance, abs=1e-7)


@settings(max_examples=10, deadline=None)
@given(worlds.filter(lambda topics: any(len(topic) > 1 for topic in topics)))
def test_drawn_pairs_have_the_right_frequencies(topics):
    table, pairs = neighbours(topics), Pairs(build(topics))
    n, counts = 4000, defaultdict(int)
    drawn = pairs.draw(n, seed=1)
    for key in zip(drawn.topics.tolist(), drawn.places.tolist(), *pairs.sentences(drawn)):
        counts[key] += 1
    assert set(counts) <= set(table), "a pair was drawn that no document has"
    for key, p in table.items():
        assert abs(counts[key] - n * p) < 5.5 * math.sqrt(n * p * (1 - p)) + 3, key


def test_exact_answers_promise_the_accuracy_that_they_reach():
    """Over true and false questions the mean of the likelier answer's chance is the share of right answers."""
    pairs, n = Pairs(load("village")), 300
    first, second = pairs.sentences(pairs.draw(2 * n, seed=1))
    nsp = [pairs.is_next(a, b, "anywhere") for a, b in zip(first[:n], second[:n])]
    nsp += [1 - pairs.is_next(a, b, "anywhere") for a, b, true in zip(first[:n], second[n:], second[:n]) if b != true]
    sop = [pairs.in_order(a, b) for a, b in zip(first, second)]
    best = {kind: nsp_accuracy(pairs, n, negatives=kind) for kind in NEGATIVES}
    for right, reached in ((nsp, best["anywhere"]), (sop, sop_accuracy(pairs, n))):
        promised = np.maximum(right, 1 - np.array(right)).mean()
        assert abs(promised - np.mean(np.array(right) > 0.5)) < 4 * reached.error
        assert abs(promised - reached.value) < 4 * reached.error
    assert best["topic"].value < best["anywhere"].value and best["place"].value < best["anywhere"].value


def test_half_sentences_are_no_pair():
    language = build([[(1.0, [(1, None, ["{hero}", "saw", "<fruit>", "."])]), (1.0, [(1, None, ["cup", "."])])]])
    pairs = Pairs(language)
    assert pairs.in_a_row("ann saw apple .".split(), "cup .".split()) > 0
    assert pairs.in_a_row("ann saw".split(), "apple . cup .".split()) == 0
    assert pairs.in_a_row("ann saw apple .".split(), []) == pairs.apart([], "cup .".split()) == 0
    assert pairs.is_next("ann saw".split(), "apple . cup .".split()) == 0.5
    assert pairs.in_order("cup .".split(), "cup .".split()) == 0.5


def test_impossible_text_names_the_first_word_that_makes_it_so():
    language = build([[(1.0, [(1, None, ["{hero}", "saw", "<fruit>", "."])])]])
    for tokens, position in (
        ("ann saw cup .", 2),
        ("ann apple saw .", 1),
        ("ann saw apple . apple", 4),
        ("ann saw zebra .", 2),
    ):
        with pytest.raises(Impossible) as error:
            language.log_prob(tokens.split())
        assert error.value.position == position, tokens
    with pytest.raises(Impossible, match="stops in the middle"):
        language.log_prob("ann saw".split())
    with pytest.raises(Impossible):
        language.posterior("cup saw apple .".split(), [2])


def test_a_fully_masked_text_binds_no_register():
    language = build([[(1.0, [(1, None, ["{hero}", "saw", "{beast.home}", "{mood.feeling}", "."])])]])
    evidence = Evidence(np.zeros(5, int), np.zeros(5), np.ones(5))
    layers, _ = language.texts_automaton.forward(evidence)
    assert [len(layer.state) for layer in layers] == [1] * 5
