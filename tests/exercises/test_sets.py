"""The assignable sets: solutions pass, known wrong answers fail with a message that names the mistake."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "exercises"
BLOCK = re.compile(r"^( *)# BEGIN SOLUTION\n.*?# END SOLUTION\n?", re.M | re.S)


@dataclass
class Question:
    """One task: its text, the solution, what a student starts from, and the checks as (source, hidden)."""

    text: str
    solution: str
    start: str
    checks: list[tuple[str, bool]]


def read(name: str) -> tuple[str, dict[str, Question]]:
    """(imports, questions by name) of a set in otter's raw-cell format."""
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    imports = next(cell.source for cell in cells if cell.id == "imports")
    questions: dict[str, Question] = {}
    current, state = None, None
    for cell in cells:
        source = cell.source
        if cell.cell_type == "raw":
            first = source.splitlines()[0]
            if first == "# BEGIN QUESTION":
                current = re.search(r"^name: (\w+)$", source, re.M)[1]
                questions[current] = Question("", "", "", [])
            state = first.removeprefix("# ")
        elif current and state == "BEGIN QUESTION":
            questions[current].text += source
        elif current and state == "BEGIN SOLUTION" and cell.cell_type == "code":  # beside code, a model answer in words
            questions[current].solution += source + "\n"
            blank = BLOCK.sub(r"\1...\n", source)
            questions[current].start += re.sub(r"= .*# SOLUTION$", "= ...", blank, flags=re.M) + "\n"
        elif current and state == "BEGIN TESTS":
            questions[current].checks.append((source, "hidden: true" in source))
    return imports, questions


SETS = {path.stem: read(path.stem) for path in sorted(FOLDER.glob("*.ipynb"))}
ALL = [(name, task) for name, (_, tasks) in SETS.items() for task in tasks]


def grade(name: str, task: str, answer: str, hidden: bool = True) -> list[str]:
    """What the checks of a task say about an answer: one message for each that fails."""
    imports, questions = SETS[name]
    student: dict = {}
    exec(imports, student)
    exec(answer, student)
    messages = []
    for source, is_hidden in questions[task].checks:
        if is_hidden and not hidden:
            continue
        alone: dict = {}  # as otter does: a check knows nothing but its arguments
        exec("\n".join(line for line in source.splitlines() if "# IGNORE" not in line), alone)
        (function,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        try:
            alone[function.name](*(student[argument.arg] for argument in function.args.args))
        except AssertionError as error:
            messages.append(str(error).splitlines()[0])
        except Exception as error:
            messages.append(f"{type(error).__name__}: {error}")
    return messages


@pytest.mark.parametrize("name", SETS)
def test_set_is_in_the_assignable_format(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    raw = [cell.source.splitlines()[0] for cell in cells if cell.cell_type == "raw"]
    assert raw[0] == "# ASSIGNMENT CONFIG" and "ok_format: false" in cells[0].source
    one = ["# BEGIN QUESTION", "# BEGIN SOLUTION", "# END SOLUTION", "# BEGIN TESTS", "# END TESTS", "# END QUESTION"]
    assert raw[1:] == one * len(SETS[name][1]), "each task has its six raw cells, in order"
    assert 4 <= len(SETS[name][1]) <= 6
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.parametrize(("name", "task"), ALL)
def test_solution_passes(name, task):
    assert grade(name, task, SETS[name][1][task].solution) == []


@pytest.mark.parametrize(("name", "task"), ALL)
def test_blank_answer_fails(name, task):
    question = SETS[name][1][task]
    assert "SOLUTION" not in question.start
    assert grade(name, task, question.start), "what the student starts from must not pass"


@pytest.mark.parametrize(("name", "task"), ALL)
def test_has_an_open_and_a_hidden_check(name, task):
    assert {hidden for _, hidden in SETS[name][1][task].checks} == {True, False}


ONE, TWO, THREE = "01_supervised_vs_self_supervised", "02_masking", "03_sentence_pairs"
WRONG = {
    "the word itself among its neighbours": (ONE, "windows", "is c itself", """
def windows(words, reach=2):
    return [(words[max(0, t - reach) : t + 1 + reach], word) for t, word in enumerate(words)]
"""),
    "an index below zero": (ONE, "windows", "below zero", """
def windows(words, reach=2):
    return [(words[t - reach : t] + words[t + 1 : t + 1 + reach], word) for t, word in enumerate(words)]
"""),
    "the reach ignored": (ONE, "windows", "reach says how many", """
def windows(words, reach=2):
    return [(words[max(0, t - 2) : t] + words[t + 1 : t + 3], word) for t, word in enumerate(words)]
"""),
    "the argument changed": (ONE, "odd_one_out", "has changed", """
def odd_one_out(sentences, stranger, rng):
    place = int(rng.integers(len(sentences)))
    sentences[place] = stranger
    return sentences, place
"""),
    "a sentence too many": (ONE, "odd_one_out", "there are still 3", """
def odd_one_out(sentences, stranger, rng):
    place = int(rng.integers(len(sentences)))
    return [*sentences[:place], stranger, *sentences[place:]], place
"""),
    "the last place never": (ONE, "odd_one_out", "equally likely", """
def odd_one_out(sentences, stranger, rng):
    place = int(rng.integers(len(sentences) - 1))
    return [*sentences[:place], stranger, *sentences[place + 1 :]], place
"""),
    "a pair too many": (ONE, "equal_rate", "6 pairs", """
def equal_rate(words, sentences):
    return sentences / words
"""),
    "one target for all": (ONE, "useless_split", "no question", """
def useless_split(words):
    return list(words), [True] * len(words)


def undo(seen):
    return [True] * len(seen)
"""),
    "a rule that knows the words": (ONE, "useless_split", "nobody has ever seen", """
NOUNS = {"twins", "market"}


def useless_split(words):
    return list(words), [word in NOUNS or "o" in word for word in words]


def undo(seen):
    return [word in {"twins", "market", "to", "old"} for word in seen]
"""),
    "the head frozen too": (ONE, "freeze", "head must still learn", """
def freeze(classifier):
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    return 0
"""),
    "only the blocks frozen": (ONE, "freeze", "encoder still learns", """
def freeze(classifier):
    for parameter in classifier.encoder.blocks.parameters():
        parameter.requires_grad_(False)
    return sum(p.numel() for p in classifier.parameters() if p.requires_grad)
"""),
    "by chance, not exactly": (TWO, "mask_exactly", "exactly 2 targets", """
def mask_exactly(ids, count, generator):
    chosen = (torch.rand(ids.shape, generator=generator) < 0.3) & (ids > 4)
    return ids.masked_fill(chosen, 4), ids.masked_fill(~chosen, -100)
"""),
    "special tokens chosen": (TWO, "mask_exactly", "special token", """
def mask_exactly(ids, count, generator):
    places = torch.rand(ids.shape, generator=generator).topk(count).indices
    chosen = torch.zeros_like(ids, dtype=torch.bool).scatter_(1, places, True)
    return ids.masked_fill(chosen, 4), ids.masked_fill(~chosen, -100)
"""),
    "always the first words": (TWO, "mask_exactly", "equally likely", """
def mask_exactly(ids, count, generator):
    ordinary = (ids > 4).cumsum(1)
    chosen = (ids > 4) & (ordinary <= count)
    return ids.masked_fill(chosen, 4), ids.masked_fill(~chosen, -100)
"""),
    "the ids overwritten": (TWO, "mask_exactly", "have changed", """
def mask_exactly(ids, count, generator):
    lots = torch.rand(ids.shape, generator=generator).masked_fill(ids < 5, -1)
    chosen = torch.zeros_like(ids, dtype=torch.bool).scatter_(1, lots.topk(count).indices, True)
    targets = ids.masked_fill(~chosen, -100)
    ids[chosen] = 4
    return ids, targets
"""),
    "lengths counted twice": (TWO, "mask_spans", "overlapping", """
def mask_spans(length, share, mean, rng):
    covered, total = np.zeros(length, bool), 0
    while total < share * length:
        run = rng.geometric(1 / mean)
        start = rng.integers(length // 5)
        covered[start : start + run] = True
        total += run
    return covered
"""),
    "single words, no runs": (TWO, "mask_spans", "on average", """
def mask_spans(length, share, mean, rng):
    covered = np.zeros(length, bool)
    while covered.sum() < share * length:
        covered[rng.integers(length)] = True
    return covered
"""),
    "bits": (TWO, "uncertainty", "bits", """
floor = 1.5
price = 3.3365
"""),
    "shares and probabilities exchanged": (TWO, "uncertainty", "true shares weigh", """
floor = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
price = -0.98 * math.log(0.5) - 2 * 0.01 * math.log(0.25) + 1
"""),
    "no count raised": (TWO, "unigram", "become 4 and 2", """
def unigram_loss(train, held_out, vocab_size):
    counts = np.bincount(train, minlength=vocab_size)
    return float(-np.log(counts / counts.sum())[held_out].mean())
"""),
    "only seen words share the probability": (TWO, "unigram", "sum to one", """
def unigram_loss(train, held_out, vocab_size):
    counts = np.bincount(train, minlength=vocab_size) + 1
    return float(-np.log(counts / counts[np.unique(train)].sum())[held_out].mean())
"""),
    "the context alone": (TWO, "believe", "seeing it says much", """
def believe(q, V):
    return q
"""),
    "the random word is never the real one": (TWO, "believe", "the real one too", """
def believe(q, V):
    return q * 0.5 / (q * 0.5 + (1 - q) * 0.5 / V)
"""),
    "pairs without the overlap": (THREE, "order_pairs", "3 pairs of neighbours", """
def order_pairs(sentences, rng):
    return [(a, b, False) for a, b in zip(sentences[::2], sentences[1::2])]
"""),
    "exchanged, but not told": (THREE, "order_pairs", "changed must say", """
def order_pairs(sentences, rng):
    return [(b, a, False) for a, b in itertools.pairwise(sentences)]
"""),
    "all pairs or none": (THREE, "order_pairs", "by itself", """
def order_pairs(sentences, rng):
    changed = bool(rng.random() < 0.5)
    return [(b, a, True) if changed else (a, b, False) for a, b in itertools.pairwise(sentences)]
"""),
    "the true one by accident": (THREE, "wrong_answers", "no wrong answer", """
def wrong_answers(seconds, rng):
    return [seconds[rng.integers(len(seconds))] for _ in seconds]
"""),
    "another place, the same words": (THREE, "wrong_answers", "no wrong answer", """
def wrong_answers(seconds, rng):
    return [seconds[(i + 1 + rng.integers(len(seconds) - 1)) % len(seconds)] for i in range(len(seconds))]
"""),
    "always the next one": (THREE, "wrong_answers", "equally likely", """
def wrong_answers(seconds, rng):
    different = [[s for s in seconds[i + 1 :] + seconds[:i] if s != true] for i, true in enumerate(seconds)]
    return [others[0] if others else None for others in different]
"""),
    "always b": (THREE, "truncate", "longer one loses words first", """
def truncate(a, b, room):
    return list(a), list(b)[: max(0, room - len(a))]
"""),
    "words off the given lists": (THREE, "truncate", "copy them first", """
def truncate(a, b, room):
    while len(a) + len(b) > room:
        (a if len(a) > len(b) else b).pop()
    return list(a), list(b)
"""),
    "every wrong pair is told": (THREE, "topic_only", "one half", """
def topic_only(k):
    return 1.0
"""),
    "true pairs forgotten": (THREE, "topic_only", "all true pairs", """
def topic_only(k):
    return 1 - 1 / k if k > 1 else 0.5
"""),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_answer_is_told_what_is_wrong(mistake):
    name, task, part, answer = WRONG[mistake]
    messages = grade(name, task, answer)
    assert any(part in message for message in messages), f"the checks say {messages}, nothing about {part!r}"
