"""The assignable sets: solutions pass, known wrong answers fail with a message that names the mistake."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
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
FOUR, FIVE = "04_fine_tuning", "05_embryology"
SIX, SEVEN = "06_denoising", "07_next_token"
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
    "the others replaced": (ONE, "odd_one_out", "stay as they are", """
def odd_one_out(sentences, stranger, rng):
    place = int(rng.integers(len(sentences)))
    return [stranger if t == place else "one" for t in range(len(sentences))], place
"""),
    "chance of its own": (ONE, "odd_one_out", "equal seeds", """
def odd_one_out(sentences, stranger, rng):
    place = np.random.randint(len(sentences))
    return [*sentences[:place], stranger, *sentences[place + 1 :]], place
"""),
    "the place is the target": (ONE, "useless_split", "neither its place", """
def useless_split(words):
    return list(words), list(range(len(words)))
def undo(seen):
    return list(range(len(seen)))
"""),
    "the neighbour is the target": (ONE, "useless_split", "nor a neighbour", """
def useless_split(words):
    return list(words), undo(words)
def undo(seen):
    return [len(word) > 3 for word in [*seen[1:], seen[0]]]
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
    "the generator is not used": (TWO, "mask_exactly", "equal seeds", """
def mask_exactly(ids, count, generator):
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen.scatter_(1, torch.rand(ids.shape).masked_fill(ids < 5, -1).topk(count).indices, True)
    return ids.masked_fill(chosen, 4), ids.masked_fill(~chosen, -100)
"""),
    "neighbours only": (TWO, "mask_exactly", "all six pairs", """
def mask_exactly(ids, count, generator):
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    for row, marks in zip(ids, chosen):
        places = (row >= 5).nonzero().flatten()
        first = int(torch.randint(len(places), (1,), generator=generator))
        marks[[int(places[(first + i) % len(places)]) for i in range(count)]] = True
    return ids.masked_fill(chosen, 4), ids.masked_fill(~chosen, -100)
"""),
    "lengths uniform": (TWO, "mask_spans", "a quarter are 1", """
def mask_spans(length, share, mean, rng):
    covered = np.zeros(length, bool)
    while covered.sum() < share * length:
        start = rng.integers(length)
        covered[start : start + rng.integers(1, int(2 * mean))] = True
    return covered
"""),
    "beginnings in the first half": (TWO, "mask_spans", "uniform over the text", """
def mask_spans(length, share, mean, rng):
    covered = np.zeros(length, bool)
    while covered.sum() < share * length:
        start = rng.integers(length // 2)
        covered[start : start + rng.geometric(1 / mean)] = True
    return covered
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
    "eval() as if it froze": (FOUR, "let_learn", "nothing is frozen", """
def let_learn(model, blocks):
    model.encoder.eval()
    return [name for name, p in model.named_parameters() if p.requires_grad]
"""),
    "an attribute of the module": (FOUR, "let_learn", "nothing is frozen", """
def let_learn(model, blocks):
    model.encoder.requires_grad = False
    return [name for name, p in model.named_parameters() if p.requires_grad]
"""),
    "the head frozen with the rest": (FOUR, "let_learn", "the head must learn", """
def let_learn(model, blocks):
    model.requires_grad_(False)
    for block in model.encoder.blocks[len(model.encoder.blocks) - blocks :]:
        block.requires_grad_(True)
    return [name for name, p in model.named_parameters() if p.requires_grad]
"""),
    "everything frozen": (FOUR, "let_learn", "nothing learns", """
def let_learn(model, blocks):
    model.requires_grad_(False)
    return []
"""),
    "the embeddings forgotten": (FOUR, "let_learn", "part of the encoder", """
def let_learn(model, blocks):
    model.encoder.blocks[: len(model.encoder.blocks) - blocks].requires_grad_(False)
    return [name for name, p in model.named_parameters() if p.requires_grad]
"""),
    "the blocks at the wrong end": (FOUR, "let_learn", "next to the head", """
def let_learn(model, blocks):
    model.encoder.requires_grad_(False)
    model.encoder.blocks[:blocks].requires_grad_(True)
    return [name for name, p in model.named_parameters() if p.requires_grad]
"""),
    "the last zero are all": (FOUR, "let_learn", "[-0:]", """
def let_learn(model, blocks):
    model.encoder.requires_grad_(False)
    model.encoder.blocks[-blocks:].requires_grad_(True)
    return [name for name, p in model.named_parameters() if p.requires_grad]
"""),
    "what is frozen, not what learns": (FOUR, "let_learn", "parameters that learn, in", """
def let_learn(model, blocks):
    model.encoder.requires_grad_(False)
    model.encoder.blocks[len(model.encoder.blocks) - blocks :].requires_grad_(True)
    return [name for name, p in model.named_parameters() if not p.requires_grad]
"""),
    "[CLS] forgotten": (FOUR, "labels_for", "one place too early", """
def labels_for(tags, pieces, time):
    labels, place = torch.full((time,), -100), 0
    for tag, count in zip(tags, pieces):
        labels[place] = tag
        place += count
    return labels
"""),
    "0 where nothing is asked": (FOUR, "labels_for", "a tag like any other", """
def labels_for(tags, pieces, time):
    labels, place = torch.zeros(time, dtype=torch.long), 1
    for tag, count in zip(tags, pieces):
        labels[place] = tag
        place += count
    return labels
"""),
    "padding has no label": (FOUR, "labels_for", "positions too", """
def labels_for(tags, pieces, time):
    labels = [-100]
    for tag, count in zip(tags, pieces):
        labels += [tag] + [-100] * (count - 1)
    return labels + [-100]
"""),
    "a tag for each piece": (FOUR, "labels_for", "label its first piece", """
def labels_for(tags, pieces, time):
    labels, place = torch.full((time,), -100), 1
    for tag, count in zip(tags, pieces):
        labels[place : place + count] = tag
        place += count
    return labels
"""),
    "as if a word were one piece": (FOUR, "labels_for", "begin at 1, 2 and 5", """
def labels_for(tags, pieces, time):
    return [-100, *tags] + [-100] * (time - 1 - len(tags))
"""),
    "labels that are no whole numbers": (FOUR, "labels_for", "whole numbers", """
def labels_for(tags, pieces, time):
    labels = torch.full((time,), -100.0)
    place = 1
    for tag, count in zip(tags, pieces):
        labels[place] = tag
        place += count
    return labels
"""),
    "start and end by themselves": (FOUR, "best_span", "ends before it starts", """
def best_span(start, end, text, threshold):
    first, last = max(text, key=lambda i: start[i]), max(text, key=lambda i: end[i])
    return (first, last) if start[first] + end[last] > start[0] + end[0] + threshold else None
"""),
    "the best start, then an end": (FOUR, "best_span", "not always part of the best answer", """
def best_span(start, end, text, threshold):
    first = max(text, key=lambda i: start[i])
    last = max(range(first, text.stop), key=lambda i: end[i])
    return (first, last) if start[first] + end[last] > start[0] + end[0] + threshold else None
"""),
    "an answer in the question": (FOUR, "best_span", "1 to 3 is the question", """
def best_span(start, end, text, threshold):
    spans = [(i, j) for i in range(1, len(start)) for j in range(i, len(start))]
    i, j = max(spans, key=lambda span: start[span[0]] + end[span[1]])
    return (i, j) if start[i] + end[j] > start[0] + end[0] + threshold else None
"""),
    "always an answer": (FOUR, "best_span", "the text does not say", """
def best_span(start, end, text, threshold):
    spans = [(i, j) for i in text for j in range(i, text.stop)]
    return max(spans, key=lambda span: start[span[0]] + end[span[1]])
"""),
    "one past the last word": (FOUR, "best_span", "both belong to it", """
def best_span(start, end, text, threshold):
    spans = [(i, j) for i in text for j in range(i, text.stop)]
    i, j = max(spans, key=lambda span: start[span[0]] + end[span[1]])
    return (i, j + 1) if start[i] + end[j] > start[0] + end[0] + threshold else None
"""),
    "no single word": (FOUR, "best_span", "a single word", """
def best_span(start, end, text, threshold):
    spans = [(i, j) for i in text for j in range(i + 1, text.stop)]
    i, j = max(spans, key=lambda span: start[span[0]] + end[span[1]])
    return (i, j) if start[i] + end[j] > start[0] + end[0] + threshold else None
"""),
    "an answer at the threshold": (FOUR, "best_span", "must be *more* than the threshold", """
def best_span(start, end, text, threshold):
    spans = [(first, last) for first in text for last in text if first <= last]
    best = max(spans, key=lambda span: start[span[0]] + end[span[1]])
    return best if start[best[0]] + end[best[1]] >= start[0] + end[0] + threshold else None
"""),
    "the threshold on the wrong side": (FOUR, "best_span", "and the threshold is", """
def best_span(start, end, text, threshold):
    spans = [(i, j) for i in text for j in range(i, text.stop)]
    i, j = max(spans, key=lambda span: start[span[0]] + end[span[1]])
    return (i, j) if start[i] + end[j] + threshold > start[0] + end[0] else None
"""),
    "a set of words": (FOUR, "answer_f1", "a bag is no set", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    return max(2 * len({*told} & {*gold}) / (len({*told}) + len({*gold})) for gold in golds)
"""),
    "a repeated word shared twice": (FOUR, "answer_f1", "a bag is no set", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    return max(2 * sum(word in gold for word in told) / (len(told) + len(gold)) for gold in golds)
"""),
    "precision alone": (FOUR, "answer_f1", "harmonic mean of 2/3 and 1", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    return max(sum((Counter(told) & Counter(gold)).values()) / len(told) for gold in golds)
"""),
    "the ordinary mean": (FOUR, "answer_f1", "harmonic mean of 2/3 and 1", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    shared = [sum((Counter(told) & Counter(gold)).values()) for gold in golds]
    return max((s / len(told) + s / len(gold)) / 2 for s, gold in zip(shared, golds))
"""),
    "place by place": (FOUR, "answer_f1", "has no order", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    return max(2 * sum(a == b for a, b in zip(told, gold)) / (len(told) + len(gold)) for gold in golds)
"""),
    "divided by no words": (FOUR, "answer_f1", "there is nothing to tell", """
def answer_f1(told, golds):
    golds = golds or [[]]
    return max(2 * sum((Counter(told) & Counter(gold)).values()) / (len(told) + len(gold)) for gold in golds)
"""),
    "divided by no shared word": (FOUR, "answer_f1", "no word in common", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    scores = []
    for gold in golds:
        shared = sum((Counter(told) & Counter(gold)).values())
        precision, recall = shared / len(told), shared / len(gold)
        scores.append(2 * precision * recall / (precision + recall))
    return max(scores)
"""),
    "the mean over the right answers": (FOUR, "answer_f1", "the best F1 counts", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    shared = [sum((Counter(told) & Counter(gold)).values()) for gold in golds]
    return sum(2 * s / (len(told) + len(gold)) for s, gold in zip(shared, golds)) / len(golds)
"""),
    "words off the right answers": (FOUR, "answer_f1", "copy them first", """
def answer_f1(told, golds):
    if not told or not golds:
        return float(not told and not golds)
    scores = []
    for gold in golds:
        length = len(gold)
        shared = sum(gold.remove(word) is None for word in told if word in gold)
        scores.append(2 * shared / (len(told) + length))
    return max(scores)
"""),
    "down and up exchanged": (FOUR, "adapter", "x goes through down first", """
def merge(W, up, down):
    return W + down @ up
"""),
    "the matrix itself changed": (FOUR, "adapter", "W has changed", """
def merge(W, up, down):
    W += up @ down
    return W
"""),
    "both random": (FOUR, "adapter", "what it gave before", """
def begin(outputs, inputs, rank):
    return torch.randn(outputs, rank), torch.randn(rank, inputs)
"""),
    "both zero": (FOUR, "adapter", "never learn", """
def begin(outputs, inputs, rank):
    return torch.zeros(outputs, rank), torch.zeros(rank, inputs)
"""),
    "rows all alike": (FOUR, "adapter", "begin with random ones", """
def begin(outputs, inputs, rank):
    return torch.zeros(outputs, rank), torch.ones(rank, inputs)
"""),
    "the matrix counted too": (FOUR, "adapter", "W does not learn", """
def adapter_weights(outputs, inputs, rank):
    return outputs * inputs + rank * (outputs + inputs)
"""),
    "starts compared as if unpaired": (FOUR, "compare", "take the differences first", """
def compare(first, second):
    error = (np.var(first, ddof=1) / len(first) + np.var(second, ddof=1) / len(second)) ** 0.5
    return np.mean(first) - np.mean(second), error
"""),
    "the spread divided by n": (FOUR, "compare", "ddof=1", """
def compare(first, second):
    differences = np.subtract(first, second)
    return differences.mean(), differences.std() / len(differences) ** 0.5
"""),
    "the spread for the error of the mean": (FOUR, "compare", "divide by the root", """
def compare(first, second):
    differences = np.subtract(first, second)
    return differences.mean(), differences.std(ddof=1)
"""),
    "two standard errors": (FOUR, "compare", "less than 4.30", """
def unclear_from(labels, first, second):
    results = [compare(a, b) for a, b in zip(first, second)]
    clear = [i for i, (mean, error) in enumerate(results) if abs(mean) > 2 * error]
    place = clear[-1] + 1 if clear else 0
    return labels[place] if place < len(labels) else None
"""),
    "the first that is unclear": (FOUR, "compare", "clear again", """
def unclear_from(labels, first, second):
    for number, a, b in zip(labels, first, second):
        mean, error = compare(a, b)
        if abs(mean) <= 4.30 * error:
            return number
    return None
"""),
    "only the first start can win": (FOUR, "compare", "a clear difference too", """
def unclear_from(labels, first, second):
    results = [compare(a, b) for a, b in zip(first, second)]
    clear = [i for i, (mean, error) in enumerate(results) if mean > 4.30 * error]
    place = clear[-1] + 1 if clear else 0
    return labels[place] if place < len(labels) else None
"""),
    "the first crossing": (FIVE, "crossing", "is the first crossing", """
def crossing(steps, scores, threshold):
    return next((step for step, score in zip(steps, scores) if score >= threshold), None)
"""),
    "the last step below": (FIVE, "crossing", "the last step *below*", """
def crossing(steps, scores, threshold):
    below = [step for step, score in zip(steps, scores) if score < threshold]
    return None if scores[-1] < threshold else below[-1] if below else steps[0]
"""),
    "a place for a step": (FIVE, "crossing", "the place in the list", """
def crossing(steps, scores, threshold):
    below = [-1, *(i for i, score in enumerate(scores) if score < threshold)][-1]
    return below + 1 if below + 1 < len(steps) else None
"""),
    "above, not at the threshold": (FIVE, "crossing", "at least* the threshold", """
def crossing(steps, scores, threshold):
    below = [-1, *(i for i, score in enumerate(scores) if score <= threshold)][-1]
    return steps[below + 1] if below + 1 < len(steps) else None
"""),
    "the argmax of nothing": (FIVE, "crossing", "never gets to", """
def crossing(steps, scores, threshold):
    above = np.array(scores) >= threshold
    stays = np.logical_and.accumulate(above[::-1])[::-1]
    return steps[int(stays.argmax())]
"""),
    "the last time upwards": (FIVE, "crossing", "below 0.5 again", """
def crossing(steps, scores, threshold):
    up = [i for i, score in enumerate(scores) if score >= threshold and (i == 0 or scores[i - 1] < threshold)]
    return steps[up[-1]] if up else None
"""),
    "step 0 taken for nothing": (FIVE, "crossing", "a step like any other", """
def crossing(steps, scores, threshold):
    found = None
    for step, score in reversed(list(zip(steps, scores))):
        if score < threshold:
            break
        found = step
    return found or None
"""),
    "a curve that must first be below": (FIVE, "crossing", "above 0.5 from the start", """
def crossing(steps, scores, threshold):
    up = [i for i in range(1, len(steps)) if scores[i - 1] < threshold <= scores[i]]
    return steps[up[-1]] if up and scores[-1] >= threshold else None
"""),
    "a control label for each place": (FIVE, "control_labels", "once for each word type", """
def control_labels(words, labels, seed):
    return np.random.default_rng(seed).choice(labels, len(words)).tolist()
"""),
    "the real labels exchanged": (FIVE, "control_labels", "once for each word type", """
def control_labels(words, labels, seed):
    return np.random.default_rng(seed).permutation(labels).tolist()
"""),
    "the real labels themselves": (FIVE, "control_labels", "nothing to do with them", """
def control_labels(words, labels, seed):
    return labels
"""),
    "control labels of no seed": (FIVE, "control_labels", "the same seed gave other labels", """
def control_labels(words, labels, seed):
    rng, drawn = np.random.default_rng(), sorted(labels)
    table = {word: drawn[rng.integers(len(drawn))] for word in sorted(set(words))}
    return [table[word] for word in words]
"""),
    "one draw for ever": (FIVE, "control_labels", "all seeds give the same", """
def control_labels(words, labels, seed):
    kinds = sorted(set(labels))
    return [kinds[sum(map(ord, word)) % len(kinds)] for word in words]
"""),
    "all control labels equally frequent": (FIVE, "control_labels", "not from the set of them", """
def control_labels(words, labels, seed):
    types = sorted(set(words))
    table = dict(zip(types, np.random.default_rng(seed).choice(sorted(set(labels)), len(types)).tolist()))
    return [table[word] for word in words]
"""),
    "each word type counted once": (FIVE, "control_labels", "not one for each word type", """
def control_labels(words, labels, seed):
    usual = dict(zip(words, labels))
    types = sorted(usual)
    table = dict(zip(types, np.random.default_rng(seed).permutation([usual[word] for word in types]).tolist()))
    return [table[word] for word in words]
"""),
    "in the order of the texts": (FIVE, "control_labels", "in another order", """
def control_labels(words, labels, seed):
    rng, drawn = np.random.default_rng(seed), sorted(labels)
    table = {}
    for word in words:
        if word not in table:
            table[word] = drawn[rng.integers(len(drawn))]
    return [table[word] for word in words]
"""),
    "in the order of a set": (FIVE, "control_labels", "A set has no order", """
def control_labels(words, labels, seed):
    types = list(set(words))
    table = dict(zip(types, np.random.default_rng(seed).choice(sorted(labels), len(types)).tolist()))
    return [table[word] for word in words]
"""),
    "selectivity as a quotient": (FIVE, "control_labels", "selectivity is a difference", """
def selectivity(told, labels, control_told, control):
    return np.mean(np.array(told) == labels) / np.mean(np.array(control_told) == control)
"""),
    "selectivity the other way round": (FIVE, "control_labels", "the other way round", """
def selectivity(told, labels, control_told, control):
    return np.mean(np.array(control_told) == control) - np.mean(np.array(told) == labels)
"""),
    "the control probe held against the real labels": (FIVE, "control_labels", "held against the control labels", """
def selectivity(told, labels, control_told, control):
    return np.mean(np.array(told) == labels) - np.mean(np.array(control_told) == labels)
"""),
    "a selectivity never below zero": (FIVE, "control_labels", "can be negative", """
def selectivity(told, labels, control_told, control):
    return max(0.0, np.mean(np.array(told) == labels) - np.mean(np.array(control_told) == control))
"""),
    "the text itself changed": (FIVE, "minimal_pair", "make a new one", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    other = tokens
    other[place] = other_number[tokens[place]]
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "every such verb changed": (FIVE, "minimal_pair", "only the verb at", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    other = [other_number[tokens[place]] if word == tokens[place] else word for word in tokens]
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "the subject changed with the verb": (FIVE, "minimal_pair", "both texts are right", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    other = [*tokens[:place], other_number[tokens[place]], *tokens[place + 1 :]]
    swap = {"board": "boards", "boards": "board"}
    return [swap.get(word, word) for word in other]
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "another tense": (FIVE, "minimal_pair", "another tense", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    change = {"was": "is", "were": "are", "visits": "visited"}
    other = [*tokens[:place], change.get(tokens[place], "will"), *tokens[place + 1 :]]
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "a word that is none": (FIVE, "minimal_pair", "no word of Tinyworld", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    verb = tokens[place]
    verb = verb[:-1] if verb.endswith("s") else verb + "s"
    other = [*tokens[:place], verb, *tokens[place + 1 :]]
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "only from singular to plural": (FIVE, "minimal_pair", "must be read backwards", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    other = [*tokens[:place], PLURALS.get(tokens[place], tokens[place]), *tokens[place + 1 :]]
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "the number of the nearest noun": (FIVE, "minimal_pair", "number that it has not", """
def minimal_pair(tokens, place, language):
    verb = "were" if tokens[place - 1].endswith("s") else "was"
    return [*tokens[:place], verb, *tokens[place + 1 :]]
"""),
    "the other text shortened": (FIVE, "minimal_pair", "exchange one word", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    other = tokens[:place] + [other_number[tokens[place]]]
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "the other text as a string": (FIVE, "minimal_pair", "a list of words was expected", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    return language.render([*tokens[:place], other_number[tokens[place]], *tokens[place + 1 :]])
    try:
        language.log_prob(other)
    except Impossible:
        return other
    return None
"""),
    "never asked whether it is impossible": (FIVE, "minimal_pair", "the subject is covered: it can be", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    return [*tokens[:place], other_number[tokens[place]], *tokens[place + 1 :]]
"""),
    "less likely taken for impossible": (FIVE, "minimal_pair", "is less likely than", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    other = [*tokens[:place], other_number[tokens[place]], *tokens[place + 1 :]]
    try:
        return other if language.log_prob(other) < language.log_prob(tokens) - 0.1 else None
    except Impossible:
        return other
"""),
    "any covered word is reason enough": (FIVE, "minimal_pair", "what is covered does not matter", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    if "[MASK]" in tokens:
        return None
    return [*tokens[:place], other_number[tokens[place]], *tokens[place + 1 :]]
"""),
    "impossible and possible exchanged": (FIVE, "minimal_pair", "log_prob raises Impossible", """
def minimal_pair(tokens, place, language):
    other_number = PLURALS | {plural: singular for singular, plural in PLURALS.items()}
    other = [*tokens[:place], other_number[tokens[place]], *tokens[place + 1 :]]
    try:
        language.log_prob(other)
    except Impossible:
        return None
    return other
"""),
    "words held out, not texts": (FIVE, "evaluate", "Hold out whole texts", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = rng.random(len(labels)) < 0.25
    learned = vectors[~asked]
    vectors = (vectors - learned.mean(0)) / learned.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    return (float(found.mean()), *interval(found, np.unique(texts[asked], return_inverse=True)[1]))
"""),
    "asked about what was learned": (FIVE, "evaluate", "Hold out whole texts", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    learned = vectors[~asked]
    vectors = (vectors - learned.mean(0)) / learned.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[(labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    return (float(found.mean()), *interval(found, np.unique(texts[asked], return_inverse=True)[1]))
"""),
    "standardised with what is asked": (FIVE, "evaluate", "from the words that the probe learns from", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    vectors = (vectors - vectors.mean(0)) / vectors.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    return (float(found.mean()), *interval(found, np.unique(texts[asked], return_inverse=True)[1]))
"""),
    "what is asked standardised by itself": (FIVE, "evaluate", "from the words that the probe learns from", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    vectors = vectors.copy()
    for part in (asked, ~asked):
        vectors[part] = (vectors[part] - vectors[part].mean(0)) / vectors[part].std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    return (float(found.mean()), *interval(found, np.unique(texts[asked], return_inverse=True)[1]))
"""),
    "not standardised at all": (FIVE, "evaluate", "standardise the vectors", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    return (float(found.mean()), *interval(found, np.unique(texts[asked], return_inverse=True)[1]))
"""),
    "words as if they were independent": (FIVE, "evaluate", "the interval is by text", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    learned = vectors[~asked]
    vectors = (vectors - learned.mean(0)) / learned.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    half = 1.96 * found.std() / len(found) ** 0.5
    return found.mean(), found.mean() - half, found.mean() + half
"""),
    "all texts counted, not the held-out ones": (FIVE, "evaluate", "the interval is by text", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    learned = vectors[~asked]
    vectors = (vectors - learned.mean(0)) / learned.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    scores = [found[texts[asked] == text].mean() for text in np.unique(texts[asked])]
    half = 1.96 * np.std(scores) / count**0.5
    return found.mean(), found.mean() - half, found.mean() + half
"""),
    "the spread of the texts for the error of their mean": (FIVE, "evaluate", "divide the deviation by the root", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    learned = vectors[~asked]
    vectors = (vectors - learned.mean(0)) / learned.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    scores = [found[texts[asked] == text].mean() for text in np.unique(texts[asked])]
    half = 1.96 * np.std(scores, ddof=1)
    return found.mean(), found.mean() - half, found.mean() + half
"""),
    "the mean over texts, not over words": (FIVE, "evaluate", "nearer to a mean over texts", """
def evaluate(vectors, labels, texts, seed):
    rng = np.random.default_rng(seed)
    count = texts.max() + 1
    asked = np.isin(texts, rng.permutation(count)[: count // 4])
    learned = vectors[~asked]
    vectors = (vectors - learned.mean(0)) / learned.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    scores = [found[texts[asked] == text].mean() for text in np.unique(texts[asked])]
    half = 1.96 * np.std(scores, ddof=1) / len(scores) ** 0.5
    return np.mean(scores), np.mean(scores) - half, np.mean(scores) + half
"""),
    "always the first texts": (FIVE, "evaluate", "drawn by chance, from `seed`", """
def evaluate(vectors, labels, texts, seed):
    count = texts.max() + 1
    asked = texts < count // 4
    learned = vectors[~asked]
    vectors = (vectors - learned.mean(0)) / learned.std(0)
    names = np.unique(labels)
    means = np.stack([vectors[~asked & (labels == name)].mean(0) for name in names])
    told = names[np.linalg.norm(vectors[asked][:, None] - means, axis=-1).argmin(1)]
    found = told == labels[asked]
    return (float(found.mean()), *interval(found, np.unique(texts[asked], return_inverse=True)[1]))
"""),
    "nats for bits": (FIVE, "code_length", "A bit is ln 2 nats", """
def code_length(losses, counts, classes):
    bits = counts[0] * np.log2(classes)
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[portion - 1][portion]
    return bits
"""),
    "everything in nats": (FIVE, "code_length", "A bit is ln 2 nats", """
def code_length(losses, counts, classes):
    bits = counts[0] * np.log(classes)
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[portion - 1][portion]
    return bits
"""),
    "the first portion for nothing": (FIVE, "code_length", "the first portion is missing", """
def code_length(losses, counts, classes):
    bits = 0.0
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[portion - 1][portion] / np.log(2)
    return bits
"""),
    "means added up": (FIVE, "code_length", "take each times its count", """
def code_length(losses, counts, classes):
    bits = np.log2(classes)
    for portion in range(1, len(counts)):
        bits += losses[portion - 1][portion] / np.log(2)
    return bits
"""),
    "bits for each label": (FIVE, "code_length", "take each times its count", """
def code_length(losses, counts, classes):
    bits = counts[0] * np.log2(classes)
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[portion - 1][portion] / np.log(2)
    return bits / sum(counts)
"""),
    "the first portion by a probe that knows it": (FIVE, "code_length", "Before it nothing is known", """
def code_length(losses, counts, classes):
    bits = counts[0] * losses[0][0] / np.log(2)
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[portion - 1][portion] / np.log(2)
    return bits
"""),
    "each portion by a probe that has seen it": (FIVE, "code_length", "has learned from it", """
def code_length(losses, counts, classes):
    bits = counts[0] * np.log2(classes)
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[portion][portion] / np.log(2)
    return bits
"""),
    "the last probe for all": (FIVE, "code_length", "has learned from it", """
def code_length(losses, counts, classes):
    bits = counts[0] * np.log2(classes)
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[-1][portion] / np.log(2)
    return bits
"""),
    "the first probe for all": (FIVE, "code_length", "there is a better probe", """
def code_length(losses, counts, classes):
    bits = counts[0] * np.log2(classes)
    for portion in range(1, len(counts)):
        bits += counts[portion] * losses[0][portion] / np.log(2)
    return bits
"""),
    "compression the other way round": (FIVE, "code_length", "large when the code is short", """
def compression(losses, counts, classes):
    return code_length(losses, counts, classes) / (sum(counts) * np.log2(classes))
"""),
    "the first portion left out of the comparison": (FIVE, "code_length", "compare with *all* 40 labels", """
def compression(losses, counts, classes):
    return sum(counts[1:]) * np.log2(classes) / code_length(losses, counts, classes)
"""),
    "no code longer than without a probe": (FIVE, "code_length", "compression is below 1", """
def compression(losses, counts, classes):
    return max(1.0, sum(counts) * np.log2(classes) / code_length(losses, counts, classes))
"""),
    "the raw difference": (FIVE, "matched_difference", "the raw difference of the two kinds", """
def matched_difference(function, frequency, steps, edges):
    return steps[~function].mean() - steps[function].mean()
"""),
    "function minus content": (FIVE, "matched_difference", "content minus function", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours) and len(theirs):
            differences.append(ours.mean() - theirs.mean())
            weights.append(len(ours))
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "all bins alike": (FIVE, "matched_difference", "weighs three times as much", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours) and len(theirs):
            differences.append(theirs.mean() - ours.mean())
            weights.append(1)
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "weighted by all words of a bin": (FIVE, "matched_difference", "as it has *function* words", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours) and len(theirs):
            differences.append(theirs.mean() - ours.mean())
            weights.append(len(ours) + len(theirs))
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "weighted by content words": (FIVE, "matched_difference", "as it has *function* words", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours) and len(theirs):
            differences.append(theirs.mean() - ours.mean())
            weights.append(len(theirs))
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "bins without a partner as no difference": (FIVE, "matched_difference", "so it has no weight", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        both = len(ours) and len(theirs)
        differences.append(theirs.mean() - ours.mean() if both else 0.0)
        weights.append(len(ours))
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "the mean of no words": (FIVE, "matched_difference", "leave that bin out", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours):
            differences.append(sum(theirs) / np.float64(len(theirs)) - ours.mean())
            weights.append(len(ours))
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "no difference where nothing is compared": (FIVE, "matched_difference", "nothing can be compared", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours) and len(theirs):
            differences.append(theirs.mean() - ours.mean())
            weights.append(len(ours))
    return float(np.average(differences, weights=weights)) if weights else 0.0
"""),
    "the edge in the bin below": (FIVE, "matched_difference", "not to that below", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges, right=True)
    differences, weights = [], []
    for number in range(1, len(edges)):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours) and len(theirs):
            differences.append(theirs.mean() - ours.mean())
            weights.append(len(ours))
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "words beyond the last edge": (FIVE, "matched_difference", "in no bin: leave them out", """
def matched_difference(function, frequency, steps, edges):
    bins = np.digitize(frequency, edges)
    differences, weights = [], []
    for number in range(1, len(edges) + 1):
        ours, theirs = steps[(bins == number) & function], steps[(bins == number) & ~function]
        if len(ours) and len(theirs):
            differences.append(theirs.mean() - ours.mean())
            weights.append(len(ours))
    return float(np.average(differences, weights=weights)) if weights else None
"""),
    "only later counts as far": (FIVE, "matched_difference", "compare without the sign", """
def p_value(function, frequency, steps, edges, rng, draws=200):
    real_difference = matched_difference(function, frequency, steps, edges)
    bins, far = np.digitize(frequency, edges), 0
    for _ in range(draws):
        exchanged = function.copy()
        for number in np.unique(bins):
            exchanged[bins == number] = rng.permutation(function[bins == number])
        far += matched_difference(exchanged, frequency, steps, edges) >= real_difference
    return far / draws
"""),
    "only what is farther": (FIVE, "matched_difference", "or farther* counts", """
def p_value(function, frequency, steps, edges, rng, draws=200):
    real_difference = matched_difference(function, frequency, steps, edges)
    bins, far = np.digitize(frequency, edges), 0
    for _ in range(draws):
        exchanged = function.copy()
        for number in np.unique(bins):
            exchanged[bins == number] = rng.permutation(function[bins == number])
        far += abs(matched_difference(exchanged, frequency, steps, edges)) > abs(real_difference)
    return far / draws
"""),
    "nearer, not farther": (FIVE, "matched_difference", "of the 8 ways", """
def p_value(function, frequency, steps, edges, rng, draws=200):
    real_difference = matched_difference(function, frequency, steps, edges)
    bins, far = np.digitize(frequency, edges), 0
    for _ in range(draws):
        exchanged = function.copy()
        for number in np.unique(bins):
            exchanged[bins == number] = rng.permutation(function[bins == number])
        far += abs(matched_difference(exchanged, frequency, steps, edges)) < abs(real_difference)
    return far / draws
"""),
    "how many, not which share": (FIVE, "matched_difference", "divide by the number of draws", """
def p_value(function, frequency, steps, edges, rng, draws=200):
    real_difference = matched_difference(function, frequency, steps, edges)
    bins, far = np.digitize(frequency, edges), 0
    for _ in range(draws):
        exchanged = function.copy()
        for number in np.unique(bins):
            exchanged[bins == number] = rng.permutation(function[bins == number])
        far += abs(matched_difference(exchanged, frequency, steps, edges)) >= abs(real_difference)
    return far
"""),
    "the kinds exchanged among all words": (FIVE, "matched_difference", "within bins", """
def p_value(function, frequency, steps, edges, rng, draws=200):
    real_difference = matched_difference(function, frequency, steps, edges)
    bins, far = np.digitize(frequency, edges), 0
    for _ in range(draws):
        exchanged = rng.permutation(function)
        found = matched_difference(exchanged, frequency, steps, edges)
        far += found is not None and abs(found) >= abs(real_difference)
    return far / draws
"""),
    "the kinds themselves exchanged": (FIVE, "matched_difference", "copy it first", """
def p_value(function, frequency, steps, edges, rng, draws=200):
    real_difference = matched_difference(function, frequency, steps, edges)
    bins, far = np.digitize(frequency, edges), 0
    for _ in range(draws):
        exchanged = function
        for number in np.unique(bins):
            exchanged[bins == number] = rng.permutation(function[bins == number])
        far += abs(matched_difference(exchanged, frequency, steps, edges)) >= abs(real_difference)
    return far / draws
"""),
    "the other world": (FIVE, "matched_difference", "made without an effect", """
real = "B"
"""),
    "a [MASK] where a word went": (SIX, "delete", "says where a word was", """
def delete(text, rate, rng):
    return [word if rng.random() >= rate else "[MASK]" for word in text], [*text, "[SEP]"]
"""),
    "the deleted words are the target": (SIX, "delete", "missing words alone", """
def delete(text, rate, rng):
    gone = rng.random(len(text)) < rate
    return [w for w, out in zip(text, gone) if not out], [*(w for w, out in zip(text, gone) if out), "[SEP]"]
"""),
    "no end is written": (SIX, "delete", "no model learns to stop", """
def delete(text, rate, rng):
    return [word for word in text if rng.random() >= rate], list(text)
"""),
    "words off the given text": (SIX, "delete", "has changed", """
def delete(text, rate, rng):
    written = [*text, "[SEP]"]
    for place in reversed(range(len(text))):
        if rng.random() < rate:
            del text[place]
    return text, written
"""),
    "what is left is shuffled": (SIX, "delete", "keeps the order", """
def delete(text, rate, rng):
    left = rng.permutation(len(text))[: round((1 - rate) * len(text))]
    return [text[place] for place in left], [*text, "[SEP]"]
"""),
    "a share that is always the same": (SIX, "delete", "the number varies", """
def delete(text, rate, rng):
    gone = rng.choice(len(text), round(rate * len(text)), replace=False)
    return [word for place, word in enumerate(text) if place not in gone], [*text, "[SEP]"]
"""),
    "the rate is what stays": (SIX, "delete", "the share that goes", """
def delete(text, rate, rng):
    return [word for word in text if rng.random() < rate], [*text, "[SEP]"]
"""),
    "a list that shrinks under the loop": (SIX, "delete", "skips the next one", """
def delete(text, rate, rng):
    left = list(text)
    for place, _ in enumerate(left):
        if rng.random() < rate:
            left.pop(place)
    return left, [*text, "[SEP]"]
"""),
    "the first of two equal words": (SIX, "delete", "`list.remove` takes the first", """
def delete(text, rate, rng):
    left = list(text)
    for word in text:
        if rng.random() < rate:
            left.remove(word)
    return left, [*text, "[SEP]"]
"""),
    "chance from elsewhere": (SIX, "delete", "let `rng` draw", """
def delete(text, rate, rng):
    return [word for word in text if np.random.random() >= rate], [*text, "[SEP]"]
"""),
    "a mask a word": (SIX, "infill", "one stands for a whole span", """
def infill(text, spans):
    seen = list(text)
    for start, length in reversed(spans):
        seen[start : start + length] = ["[MASK]"] * max(length, 1)
    return seen, [*text, "[SEP]"]
"""),
    "nothing for no word": (SIX, "infill", "length 0 is missing", """
def infill(text, spans):
    seen = list(text)
    for start, length in reversed(spans):
        if length:
            seen[start : start + length] = ["[MASK]"]
    return seen, [*text, "[SEP]"]
"""),
    "a word for no word": (SIX, "infill", "'beside' is gone", """
def infill(text, spans):
    seen = list(text)
    for start, length in reversed(spans):
        seen[start : start + max(length, 1)] = ["[MASK]"]
    return seen, [*text, "[SEP]"]
"""),
    "places that have moved": (SIX, "infill", "from the last span to the first", """
def infill(text, spans):
    seen = list(text)
    for start, length in spans:
        seen[start : start + length] = ["[MASK]"]
    return seen, [*text, "[SEP]"]
"""),
    "a length as if it were an end": (SIX, "infill", "a start and a *length*", """
def infill(text, spans):
    seen = list(text)
    for start, length in reversed(spans):
        seen[start:length] = ["[MASK]"]
    return seen, [*text, "[SEP]"]
"""),
    "no word, but behind": (SIX, "infill", "comes *before* the word", """
def infill(text, spans):
    seen = list(text)
    for start, length in reversed(spans):
        seen[start + (not length) : start + (length or 1)] = ["[MASK]"]
    return seen, [*text, "[SEP]"]
"""),
    "only what the masks hide": (SIX, "infill", "what was covered alone", """
def infill(text, spans):
    seen, written = list(text), []
    for start, length in reversed(spans):
        written[:0] = text[start : start + length]
        seen[start : start + length] = ["[MASK]"]
    return seen, [*written, "[SEP]"]
"""),
    "two masks made one": (SIX, "infill", "two spans side by side", """
def infill(text, spans):
    seen = list(text)
    for start, length in reversed(spans):
        seen[start : start + length] = ["[MASK]"]
    merged = [word for i, word in enumerate(seen) if word != "[MASK]" or seen[i - 1 : i] != ["[MASK]"]]
    return merged, [*text, "[SEP]"]
"""),
    "the covered text itself": (SIX, "infill", "has changed", """
def infill(text, spans):
    written = [*text, "[SEP]"]
    for start, length in reversed(spans):
        text[start : start + length] = ["[MASK]"]
    return text, written
"""),
    "one name for all spans": (SIX, "sentinels", "a sentinel of its own", """
def corrupt(text, spans):
    seen, written = list(text), []
    for start, length in reversed(spans):
        seen[start : start + length] = ["<extra_id_0>"]
        written[:0] = ["<extra_id_0>", *text[start : start + length]]
    return seen, [*written, "<extra_id_1>", "[SEP]"]
"""),
    "a sentinel for each word": (SIX, "sentinels", "one sentinel stands for a whole span", """
def corrupt(text, spans):
    covered = [i for start, length in spans for i in range(start, start + length)]
    names = {place: f"<extra_id_{number}>" for number, place in enumerate(covered)}
    written = [token for place in covered for token in (names[place], text[place])]
    return [names.get(i, word) for i, word in enumerate(text)], [*written, f"<extra_id_{len(covered)}>", "[SEP]"]
"""),
    "counted from the right": (SIX, "sentinels", "counted from the left", """
def corrupt(text, spans):
    seen, written = list(text), []
    for number, (start, length) in enumerate(reversed(spans)):
        seen[start : start + length] = [f"<extra_id_{number}>"]
        written += [f"<extra_id_{number}>", *text[start : start + length]]
    return seen, [*written, f"<extra_id_{len(spans)}>", "[SEP]"]
"""),
    "sentinels at places that have moved": (SIX, "sentinels", "what comes after it has moved", """
def corrupt(text, spans):
    seen, written = list(text), []
    for number, (start, length) in enumerate(spans):
        seen[start : start + length] = [f"<extra_id_{number}>"]
        written += [f"<extra_id_{number}>", *text[start : start + length]]
    return seen, [*written, f"<extra_id_{len(spans)}>", "[SEP]"]
"""),
    "the whole text, as in BART": (SIX, "sentinels", "as in BART", """
bart = corrupt


def corrupt(text, spans):
    return bart(text, spans)[0], [*text, "[SEP]"]
"""),
    "what is to be seen is written": (SIX, "sentinels", "x′ still shows", """
t5 = corrupt


def corrupt(text, spans):
    seen = t5(text, spans)[0]
    return seen, [*seen, f"<extra_id_{len(spans)}>", "[SEP]"]
"""),
    "the last span never ends": (SIX, "sentinels", "closes the last span", """
closed = corrupt


def corrupt(text, spans):
    seen, written = closed(text, spans)
    return seen, [*written[:-2], "[SEP]"]
"""),
    "sentinels, but no end": (SIX, "sentinels", "comes last in x″", """
ended = corrupt


def corrupt(text, spans):
    seen, written = ended(text, spans)
    return seen, written[:-1]
"""),
    "the end put into the text": (SIX, "sentinels", "no word of the text", """
tidy = restore


def restore(seen, written):
    return [*tidy(seen, written), written[-1]]
"""),
    "one word for each sentinel": (SIX, "sentinels", "may have several words", """
def restore(seen, written):
    word_of = dict(zip(written, written[1:]))
    return [word_of.get(token, "") if token.startswith("<extra_id_") else token for token in seen]
"""),
    "spans in the order in which they come": (SIX, "sentinels", "not by the order", """
def restore(seen, written):
    spans = []
    for token in written:
        if token.startswith("<extra_id_"):
            spans.append([])
        elif token != "[SEP]":
            spans[-1].append(token)
    left = [spans.pop(0) if token.startswith("<extra_id_") else [token] for token in seen]
    return [word for words in left for word in words]
"""),
    "names kept in the text": (SIX, "sentinels", "a sentinel is still there", """
bare = restore


def restore(seen, written):
    both = [(token, f"kept{token}") for token in seen]
    marked = [part for token, name in both for part in ((name, token) if token.startswith("<extra") else (token,))]
    return [token.removeprefix("kept") for token in bare(marked, written)]
"""),
    "what is written used up": (SIX, "sentinels", "a list that it was given", """
def restore(seen, written):
    text = []
    for token in seen:
        if token.startswith("<extra_id_"):
            written.pop(0)
            while written and not written[0].startswith("<extra_id_"):
                text.append(written.pop(0))
        else:
            text.append(token)
    return text
"""),
    "the decoder reads its answer": (SIX, "force", "learns to copy", """
def force(written, start, pad):
    return written, written.masked_fill(written == pad, -100)
"""),
    "the decoder reads what comes after": (SIX, "force", "moved to the left", """
def force(written, start, pad):
    reads = torch.cat([written[:, 1:], torch.full_like(written[:, :1], pad)], 1)
    return reads, written.masked_fill(written == pad, -100)
"""),
    "the end comes round": (SIX, "force", "came round to the front", """
def force(written, start, pad):
    return written.roll(1, 1), written.masked_fill(written == pad, -100)
"""),
    "start in front, and nothing goes": (SIX, "force", "so the last token goes", """
def force(written, start, pad):
    begin = torch.full_like(written[:, :1], start)
    return torch.cat([begin, written], 1), written.masked_fill(written == pad, -100)
"""),
    "padding to be written": (SIX, "force", "taught to write it", """
def force(written, start, pad):
    begin = torch.full_like(written[:, :1], start)
    return torch.cat([begin, written[:, :-1]], 1), written
"""),
    "−100 to be read": (SIX, "force", "has no embedding", """
def force(written, start, pad):
    targets = written.masked_fill(written == pad, -100)
    return torch.cat([torch.full_like(written[:, :1], start), targets[:, :-1]], 1), targets
"""),
    "padding where it is read": (SIX, "force", "the first target was lost", """
def force(written, start, pad):
    reads = torch.cat([torch.full_like(written[:, :1], start), written[:, :-1]], 1)
    return reads, written.masked_fill((written == pad) | (reads == pad), -100)
"""),
    "x″ overwritten": (SIX, "force", "`written` has changed", """
def force(written, start, pad):
    targets = written.masked_fill(written == pad, -100)
    written[:, 1:] = written[:, :-1].clone()
    written[:, 0] = start
    return written, targets
"""),
    "each call knows the start alone": (SIX, "force", "all that was written so far", """
def write(next_token, start, end, longest):
    ids = []
    while len(ids) < longest and end not in ids:
        ids.append(next_token([start] if not ids else ids[-1:]))
    return ids
"""),
    "start as a part of the text": (SIX, "force", "leave it out", """
def write(next_token, start, end, longest):
    ids = [start]
    while len(ids) <= longest and end not in ids[1:]:
        ids.append(next_token(ids))
    return ids
"""),
    "the end thrown away": (SIX, "force", "belongs to the answer", """
def write(next_token, start, end, longest):
    ids = []
    while len(ids) < longest:
        token = next_token([start, *ids])
        if token == end:
            break
        ids.append(token)
    return ids
"""),
    "writing never stops": (SIX, "force", "goes on after `end`", """
def write(next_token, start, end, longest):
    ids = []
    for _ in range(longest):
        ids.append(next_token([start, *ids]))
    return ids
"""),
    "a start that is the end": (SIX, "force", "is no end", """
def write(next_token, start, end, longest):
    ids = [start]
    while len(ids) <= longest and ids[-1] != end:
        ids.append(next_token(ids))
    return ids[1:]
"""),
    "one token fewer": (SIX, "force", "`start` does not count", """
def write(next_token, start, end, longest):
    ids = [start]
    while len(ids) < longest and end not in ids[1:]:
        ids.append(next_token(ids))
    return ids[1:]
"""),
    "columns that sum to one": (SIX, "cross_attention", "along the last axis", """
def cross_attention(query, key, value, source_mask):
    scores = query @ key.transpose(1, 2) / query.size(-1) ** 0.5
    weights = scores.masked_fill(~source_mask[:, None], -1e9).softmax(1)
    return weights @ value, weights
"""),
    "target words masked": (SIX, "cross_attention", "hides *source* places", """
def cross_attention(query, key, value, source_mask):
    scores = query @ key.transpose(1, 2) / query.size(-1) ** 0.5
    weights = scores.masked_fill(~source_mask[:, :, None], -1e9).softmax(-1)
    return weights @ value, weights
"""),
    "target words masked to nothing": (SIX, "cross_attention", "became NaN", """
def cross_attention(query, key, value, source_mask):
    scores = query @ key.transpose(1, 2) / query.size(-1) ** 0.5
    weights = scores.masked_fill(~source_mask[:, :, None], -torch.inf).softmax(-1)
    return weights @ value, weights
"""),
    "masked after the softmax": (SIX, "cross_attention", "before the softmax", """
def cross_attention(query, key, value, source_mask):
    weights = (query @ key.transpose(1, 2) / query.size(-1) ** 0.5).softmax(-1) * source_mask[:, None]
    return weights @ value, weights
"""),
    "scores of nought": (SIX, "cross_attention", "e⁰ is 1", """
def cross_attention(query, key, value, source_mask):
    weights = (query @ key.transpose(1, 2) / query.size(-1) ** 0.5 * source_mask[:, None]).softmax(-1)
    return weights @ value, weights
"""),
    "no mask at all": (SIX, "cross_attention", "padding of the source gets a weight", """
def cross_attention(query, key, value, source_mask):
    weights = (query @ key.transpose(1, 2) / query.size(-1) ** 0.5).softmax(-1)
    return weights @ value, weights
"""),
    "a source that may not be seen": (SIX, "cross_attention", "a causal mask hides", """
def cross_attention(query, key, value, source_mask):
    scores = query @ key.transpose(1, 2) / query.size(-1) ** 0.5
    may = source_mask[:, None] & torch.ones_like(scores, dtype=torch.bool).tril()
    weights = scores.masked_fill(~may, -torch.inf).softmax(-1)
    return weights @ value, weights
"""),
    "scores not scaled": (SIX, "cross_attention", "not divided by the root", """
def cross_attention(query, key, value, source_mask):
    weights = (query @ key.transpose(1, 2)).masked_fill(~source_mask[:, None], -torch.inf).softmax(-1)
    return weights @ value, weights
"""),
    "a mixture of keys": (SIX, "cross_attention", "a mixture of the *values*", """
attend = cross_attention


def cross_attention(query, key, value, source_mask):
    return attend(query, key, key, source_mask)
"""),
    "no end to be written": (SIX, "compare", "[SEP] is a target too", """
def length(kind, words, hidden, spans):
    return {"infilling": words, "spans": hidden + spans + 2, "mass": hidden}[kind]
"""),
    "only what was hidden": (SIX, "compare", "writes the whole text", """
def length(kind, words, hidden, spans):
    return {"infilling": hidden, "spans": hidden + spans + 2, "mass": hidden}[kind]
"""),
    "no last sentinel": (SIX, "compare", "closes the last span, *and* [SEP]", """
def length(kind, words, hidden, spans):
    return {"infilling": words + 1, "spans": hidden + spans + 1, "mass": hidden}[kind]
"""),
    "sentinels for nothing": (SIX, "compare", "sentinels are written too", """
def length(kind, words, hidden, spans):
    return {"infilling": words + 1, "spans": hidden, "mass": hidden}[kind]
"""),
    "a sentinel a word": (SIX, "compare", "not for a word", """
def length(kind, words, hidden, spans):
    return {"infilling": words + 1, "spans": 2 * hidden + 1, "mass": hidden}[kind]
"""),
    "MASS writes all": (SIX, "compare", "hidden words alone", """
def length(kind, words, hidden, spans):
    return {"infilling": words + 1, "spans": hidden + spans + 2, "mass": words}[kind]
"""),
    "the loss per hidden word": (SIX, "compare", "mean over all targets", """
def mean_loss(kind, words, hidden, spans, copy, guess):
    return (hidden * guess + (length(kind, words, hidden, spans) - hidden) * copy) / hidden
"""),
    "the loss in all": (SIX, "compare", "divide by the number of targets", """
def mean_loss(kind, words, hidden, spans, copy, guess):
    return hidden * guess + (length(kind, words, hidden, spans) - hidden) * copy
"""),
    "sentinels that cost nothing": (SIX, "compare", "cost `copy` each", """
def mean_loss(kind, words, hidden, spans, copy, guess):
    copied = words + 1 - hidden if kind == "infilling" else 0
    return (hidden * guess + copied * copy) / length(kind, words, hidden, spans)
"""),
    "the lowest curve wins": (SIX, "compare", "most of what it writes is copied", """
best = "A"
"""),
    "a question of half the text": (SIX, "compare", "work out what the others pay", """
best = "C"
"""),
    "the target is what is read": (SEVEN, "shift", "learns to copy", """
def shift(ids, attention_mask):
    return ids[:, :-1], ids[:, :-1].masked_fill(attention_mask[:, :-1] == 0, -100)
"""),
    "what came before": (SEVEN, "shift", "shifted the wrong way", """
def shift(ids, attention_mask):
    return ids[:, 1:], ids[:, :-1].masked_fill(attention_mask[:, 1:] == 0, -100)
"""),
    "the beginning after the end": (SEVEN, "shift", "came round from the front", """
def shift(ids, attention_mask):
    return ids, ids.roll(-1, 1).masked_fill(attention_mask.roll(-1, 1) == 0, -100)
"""),
    "padding asked for": (SEVEN, "shift", "padding is asked for: −100", """
def shift(ids, attention_mask):
    return ids[:, :-1], ids[:, 1:]
"""),
    "the mask not shifted": (SEVEN, "shift", "that *follows* is padding", """
def shift(ids, attention_mask):
    return ids[:, :-1], ids[:, 1:].masked_fill(attention_mask[:, :-1] == 0, -100)
"""),
    "padding known by its id": (SEVEN, "shift", "only `attention_mask` can tell", """
def shift(ids, attention_mask):
    pads = ids[attention_mask == 0]
    pad = int(pads[0]) if len(pads) else -1
    return ids[:, :-1], ids[:, 1:].masked_fill(ids[:, 1:] == pad, -100)
"""),
    "−100 in what is read": (SEVEN, "shift", "has no embedding", """
def shift(ids, attention_mask):
    ids = ids.masked_fill(attention_mask == 0, -100)
    return ids[:, :-1], ids[:, 1:]
"""),
    "padding overwritten": (SEVEN, "shift", "has changed", """
def shift(ids, attention_mask):
    seen = ids[:, :-1].clone()
    ids[attention_mask == 0] = -100
    return seen, ids[:, 1:]
"""),
    "the mask transposed": (SEVEN, "causal", "transposed", """
def causal_mask(time):
    return torch.ones(time, time, dtype=torch.bool).triu()
"""),
    "not even itself": (SEVEN, "causal", "nothing to share out", """
def causal_mask(time):
    return torch.ones(time, time, dtype=torch.bool).tril(-1)
"""),
    "where it may not look": (SEVEN, "causal", "are exchanged", """
def causal_mask(time):
    return torch.ones(time, time, dtype=torch.bool).triu(1)
"""),
    "one place too far": (SEVEN, "causal", "the answer to its question", """
def causal_mask(time):
    return torch.ones(time, time, dtype=torch.bool).tril(1)
"""),
    "a mask of the questions": (SEVEN, "causal", "one row for each that looks", """
def causal_mask(time):
    return torch.ones(time - 1, time - 1, dtype=torch.bool).tril()
"""),
    "ones and noughts": (SEVEN, "causal", "forbids nothing", """
def causal_mask(time):
    return torch.ones(time, time).tril()
"""),
    "one text under two names": (SEVEN, "causal", "copy it first", """
def changed(model, ids, place, token):
    other = ids
    other[0, place] = token
    return ((model(ids) - model(other)).abs().amax(-1)[0] > 1e-4).nonzero()[:, 0].tolist()
"""),
    "the given text changed": (SEVEN, "causal", "copy it first", """
def changed(model, ids, place, token):
    before = model(ids)
    ids[0, place] = token
    return ((model(ids) - before).abs().amax(-1)[0] > 1e-4).nonzero()[:, 0].tolist()
"""),
    "tokens compared, not logits": (SEVEN, "causal", "each later token looks at token 2", """
def changed(model, ids, place, token):
    other = ids.clone()
    other[0, place] = token
    return (ids != other)[0].nonzero()[:, 0].tolist()
"""),
    "what stays as it was": (SEVEN, "causal", "return those that change", """
def changed(model, ids, place, token):
    other = ids.clone()
    other[0, place] = token
    return ((model(ids) - model(other)).abs().amax(-1)[0] <= 1e-4).nonzero()[:, 0].tolist()
"""),
    "only from the place on": (SEVEN, "causal", "what the test is about", """
def changed(model, ids, place, token):
    other = ids.clone()
    other[0, place] = token
    difference = (model(ids) - model(other)).abs().amax(-1)[0]
    return [t for t in range(place, ids.size(1)) if difference[t] > 1e-4]
"""),
    "what should change": (SEVEN, "causal", "one place ahead", """
def changed(model, ids, place, token):
    return list(range(place, ids.size(1)))
"""),
    "equal to the last digit": (SEVEN, "causal", "the order in which a kernel adds", """
def changed(model, ids, place, token):
    other = ids.clone()
    other[0, place] = token
    return (model(ids) != model(other)).any(-1)[0].nonzero()[:, 0].tolist()
"""),
    "only the winner": (SEVEN, "causal", "A change of *any* logit", """
def changed(model, ids, place, token):
    other = ids.clone()
    other[0, place] = token
    first, second = model(ids), model(other)
    moved = (first.argmax(-1) != second.argmax(-1)) | ((first - second).abs().amin(-1) > 1e-4)
    return moved[0].nonzero()[:, 0].tolist()
"""),
    "all logits must change": (SEVEN, "causal", "A change of *any* logit", """
def changed(model, ids, place, token):
    other = ids.clone()
    other[0, place] = token
    return ((model(ids) - model(other)).abs() > 1e-4).all(-1)[0].nonzero()[:, 0].tolist()
"""),
    "two to the power of nats": (SEVEN, "perplexity", "nats go with e", """
def perplexity(losses):
    return 2 ** (sum(sum(text) for text in losses) / sum(len(text) for text in losses))
"""),
    "the mean of perplexities": (SEVEN, "perplexity", "the mean of the losses first", """
def perplexity(losses):
    return float(np.mean([math.exp(loss) for text in losses for loss in text]))
"""),
    "a perplexity for each text": (SEVEN, "perplexity", "the mean of the losses first", """
def perplexity(losses):
    return float(np.mean([math.exp(np.mean(text)) for text in losses]))
"""),
    "short texts weigh as much": (SEVEN, "perplexity", "each text was weighed the same", """
def perplexity(losses):
    return math.exp(np.mean([np.mean(text) for text in losses]))
"""),
    "the mean loss for perplexity": (SEVEN, "perplexity", "is its exponential", """
def perplexity(losses):
    return float(np.mean(np.concatenate(losses)))
"""),
    "nats per byte": (SEVEN, "perplexity", "nats per byte", """
def bits_per_byte(losses, texts):
    return sum(sum(text) for text in losses) / sum(len(text.encode()) for text in texts)
"""),
    "times ln 2": (SEVEN, "perplexity", "where it should be divided", """
def bits_per_byte(losses, texts):
    return sum(sum(text) for text in losses) * math.log(2) / sum(len(text.encode()) for text in texts)
"""),
    "bits per token": (SEVEN, "perplexity", "bits per *token*", """
def bits_per_byte(losses, texts):
    return sum(sum(text) for text in losses) / math.log(2) / sum(len(text) for text in losses)
"""),
    "bits per character": (SEVEN, "perplexity", "bits per *character*", """
def bits_per_byte(losses, texts):
    return sum(sum(text) for text in losses) / math.log(2) / sum(len(text) for text in texts)
"""),
    "bits per word": (SEVEN, "perplexity", "bits per *word*", """
def bits_per_byte(losses, texts):
    return sum(sum(text) for text in losses) / math.log(2) / sum(len(text.split()) for text in texts)
"""),
    "texts of bits per byte": (SEVEN, "perplexity", "divide once", """
def bits_per_byte(losses, texts):
    return float(np.mean([sum(some) / math.log(2) / len(text.encode()) for some, text in zip(losses, texts)]))
"""),
    "the lower perplexity": (SEVEN, "perplexity", "four times as often", """
better = "B"
"""),
    "short of p": (SEVEN, "nucleus", "the one that reaches 0.7", """
def nucleus(logits, temperature, p):
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
    kept = probabilities * (probabilities.cumsum(-1) <= p)
    return torch.zeros_like(kept).scatter(0, order, kept / kept.sum())
"""),
    "one token too many": (SEVEN, "nucleus", "the *fewest*", """
def nucleus(logits, temperature, p):
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
    count = int((probabilities.cumsum(-1) < p).sum()) + 2
    kept = probabilities * (torch.arange(len(logits)) < count)
    return torch.zeros_like(kept).scatter(0, order, kept / kept.sum())
"""),
    "less than everything": (SEVEN, "nucleus", "divide by the sum", """
def nucleus(logits, temperature, p):
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
    kept = probabilities * (probabilities.cumsum(-1) - probabilities < p)
    return torch.zeros_like(kept).scatter(0, order, kept)
"""),
    "sorted for good": (SEVEN, "nucleus", "still sorted", """
def nucleus(logits, temperature, p):
    probabilities = (logits / temperature).softmax(-1).sort(descending=True).values
    kept = probabilities * (probabilities.cumsum(-1) - probabilities < p)
    return kept / kept.sum()
"""),
    "no token left": (SEVEN, "nucleus", "no token was left", """
def nucleus(logits, temperature, p):
    probabilities = (logits / temperature).softmax(-1)
    kept = probabilities * (probabilities >= p)
    return kept / kept.sum()
"""),
    "truncated to nothing": (SEVEN, "nucleus", "outside of the nucleus get 0", """
def nucleus(logits, temperature, p):
    return (logits / temperature).softmax(-1)
"""),
    "probabilities over temperature": (SEVEN, "nucleus", "divide the *logits*", """
def nucleus(logits, temperature, p):
    probabilities, order = (logits.softmax(-1) / temperature).sort(descending=True)
    probabilities = probabilities / probabilities.sum()
    kept = probabilities * (probabilities.cumsum(-1) - probabilities < p)
    return torch.zeros_like(kept).scatter(0, order, kept / kept.sum())
"""),
    "times the temperature": (SEVEN, "nucleus", "flatter, not sharper", """
def nucleus(logits, temperature, p):
    probabilities, order = (logits * temperature).softmax(-1).sort(descending=True)
    kept = probabilities * (probabilities.cumsum(-1) - probabilities < p)
    return torch.zeros_like(kept).scatter(0, order, kept / kept.sum())
"""),
    "the nucleus first": (SEVEN, "nucleus", "first the temperature", """
def nucleus(logits, temperature, p):
    probabilities, order = logits.softmax(-1).sort(descending=True)
    out = order[probabilities.cumsum(-1) - probabilities >= p]
    return (logits / temperature).index_fill(0, out, -torch.inf).softmax(-1)
"""),
    "logits overwritten": (SEVEN, "nucleus", "`logits` has changed", """
def nucleus(logits, temperature, p):
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
    logits[order[probabilities.cumsum(-1) - probabilities >= p]] = -torch.inf
    return (logits / temperature).softmax(-1)
"""),
    "an exponential that overflows": (SEVEN, "nucleus", "softmax knows what to do", """
def nucleus(logits, temperature, p):
    weights = (logits / temperature).exp()
    probabilities, order = (weights / weights.sum()).sort(descending=True)
    kept = probabilities * (probabilities.cumsum(-1) - probabilities < p)
    return torch.zeros_like(kept).scatter(0, order, kept / kept.sum())
"""),
    "one from each beginning": (SEVEN, "beam_step", "both may come from one", """
def beam_step(totals, log_probs, beams):
    best, tokens = (totals[:, None] + log_probs).max(1)
    best, rows = best.topk(min(beams, len(best)))
    return rows, tokens[rows], best
"""),
    "beginnings all alike": (SEVEN, "beam_step", "add what the beginning has", """
def beam_step(totals, log_probs, beams):
    best, place = log_probs.flatten().topk(beams)
    return place // log_probs.size(1), place % log_probs.size(1), best
"""),
    "the step alone decides": (SEVEN, "beam_step", "totals count too", """
def beam_step(totals, log_probs, beams):
    place = log_probs.flatten().topk(beams).indices
    rows, tokens = place // log_probs.size(1), place % log_probs.size(1)
    return rows, tokens, totals[rows] + log_probs[rows, tokens]
"""),
    "logarithms multiplied": (SEVEN, "beam_step", "added, not multiplied", """
def beam_step(totals, log_probs, beams):
    best, place = (totals[:, None] * log_probs).flatten().topk(beams)
    return place // log_probs.size(1), place % log_probs.size(1), best
"""),
    "token and beginning exchanged": (SEVEN, "beam_step", "mixes up", """
def beam_step(totals, log_probs, beams):
    best, place = (totals[:, None] + log_probs).flatten().topk(beams)
    return place % log_probs.size(1), place // log_probs.size(1), best
"""),
    "divided by the beams": (SEVEN, "beam_step", "mixes up", """
def beam_step(totals, log_probs, beams):
    best, place = (totals[:, None] + log_probs).flatten().topk(beams)
    return place % len(totals), place // len(totals), best
"""),
    "the worst first": (SEVEN, "beam_step", "the best comes first", """
def beam_step(totals, log_probs, beams):
    best, place = (totals[:, None] + log_probs).flatten().topk(beams)
    best, place = best.flip(0), place.flip(0)
    return place // log_probs.size(1), place % log_probs.size(1), best
"""),
    "what the last token cost": (SEVEN, "beam_step", "add what the beginning has", """
def beam_step(totals, log_probs, beams):
    place = (totals[:, None] + log_probs).flatten().topk(beams).indices
    rows, tokens = place // log_probs.size(1), place % log_probs.size(1)
    return rows, tokens, log_probs[rows, tokens]
"""),
    "all beams at the first step": (SEVEN, "beam_step", "all three beams go on", """
def beam_step(totals, log_probs, beams):
    best, place = (totals[:, None] + log_probs).flatten().topk(min(beams, 2 * len(totals)))
    return place // log_probs.size(1), place % log_probs.size(1), best
"""),
    "no pair raised by one": (SEVEN, "bigram", "those of rows that never came", """
def bigram(texts, vocab):
    counts = np.zeros((vocab, vocab))
    for text in texts:
        np.add.at(counts, ([2, *text], [*text, 3]), 1)
    return counts / counts.sum(1, keepdims=True)
"""),
    "only the rows that came": (SEVEN, "bigram", "raise *each* count", """
def bigram(texts, vocab):
    counts = np.zeros((vocab, vocab))
    for text in texts:
        np.add.at(counts, ([2, *text], [*text, 3]), 1)
    counts[counts.sum(1) == 0] = 1
    return counts / counts.sum(1, keepdims=True)
"""),
    "columns divided": (SEVEN, "bigram", "divide each row by its sum", """
def bigram(texts, vocab):
    counts = np.ones((vocab, vocab))
    for text in texts:
        np.add.at(counts, ([2, *text], [*text, 3]), 1)
    return counts / counts.sum(0)
"""),
    "divided by what was seen": (SEVEN, "bigram", "must sum to one over all 8", """
def bigram(texts, vocab):
    counts = np.ones((vocab, vocab))
    for text in texts:
        np.add.at(counts, ([2, *text], [*text, 3]), 1)
    return counts / np.maximum(counts.sum(1, keepdims=True) - vocab, 1)
"""),
    "one long text": (SEVEN, "bigram", "count within each", """
def bigram(texts, vocab):
    counts, text = np.ones((vocab, vocab)), sum(texts, [])
    np.add.at(counts, ([2, *text], [*text, 3]), 1)
    return counts / counts.sum(1, keepdims=True)
"""),
    "texts without an end": (SEVEN, "bigram", "the end is a token too", """
def bigram(texts, vocab):
    counts = np.ones((vocab, vocab))
    for text in texts:
        np.add.at(counts, ([2, *text[:-1]], text), 1)
    return counts / counts.sum(1, keepdims=True)
"""),
    "texts without a beginning": (SEVEN, "bigram", "5 after [CLS]", """
def bigram(texts, vocab):
    counts = np.ones((vocab, vocab))
    for text in texts:
        np.add.at(counts, (text, [*text[1:], 3]), 1)
    return counts / counts.sum(1, keepdims=True)
"""),
    "a pair counted once a text": (SEVEN, "bigram", "twice in one text counts twice", """
def bigram(texts, vocab):
    counts = np.ones((vocab, vocab))
    for text in texts:
        counts[[2, *text], [*text, 3]] += 1
    return counts / counts.sum(1, keepdims=True)
"""),
    "a loss without its sign": (SEVEN, "bigram", "*minus* the logarithm", """
def loss(table, texts):
    return float(np.concatenate([np.log(table[[2, *text], [*text, 3]]) for text in texts]).mean())
"""),
    "bits for nats": (SEVEN, "bigram", "are bits", """
def loss(table, texts):
    return float(np.concatenate([-np.log2(table[[2, *text], [*text, 3]]) for text in texts]).mean())
"""),
    "the mean of the texts": (SEVEN, "bigram", "each text was weighed the same", """
def loss(table, texts):
    return float(np.mean([-np.log(table[[2, *text], [*text, 3]]).mean() for text in texts]))
"""),
    "the end not asked for": (SEVEN, "bigram", "the end of a text is a question", """
def loss(table, texts):
    return float(np.concatenate([-np.log(table[[2, *text[:-1]], text]) for text in texts]).mean())
"""),
    "the first word not asked for": (SEVEN, "bigram", "the first word is a question", """
def loss(table, texts):
    return float(np.concatenate([-np.log(table[text, [*text[1:], 3]]) for text in texts]).mean())
"""),
    "the logarithm of the mean": (SEVEN, "bigram", "not the mean of the logarithms", """
def loss(table, texts):
    return float(-np.log(np.concatenate([table[[2, *text], [*text, 3]] for text in texts]).mean()))
"""),
    "the answer among the words": (SEVEN, "bigram", "one word too long", """
def truth(language, texts):
    losses = []
    for text in texts:
        words = [language.words[i - 5] for i in text]
        with np.errstate(divide="ignore"):
            losses += [-np.log(language.next_word(words[: place + 1])[token]) for place, token in enumerate(text)]
    return float(np.mean(losses))
"""),
    "the rules not asked for the end": (SEVEN, "bigram", "[SEP] its answer", """
def truth(language, texts):
    losses = []
    for text in texts:
        words = [language.words[i - 5] for i in text]
        losses += [-np.log(language.next_word(words[:place])[token]) for place, token in enumerate(text)]
    return float(np.mean(losses))
"""),
    "what is most probable": (SEVEN, "bigram", "the loss is that of the token that comes", """
def truth(language, texts):
    texts = [[language.words[i - 5] for i in text] for text in texts]
    answers = [language.next_word(words[:place]) for words in texts for place in range(len(words) + 1)]
    return float(np.mean([-np.log(answer.max()) for answer in answers]))
"""),
    "what it costs on average": (SEVEN, "bigram", "mean entropy of the answers", """
def truth(language, texts):
    texts = [[language.words[i - 5] for i in text] for text in texts]
    answers = [language.next_word(words[:place]) for words in texts for place in range(len(words) + 1)]
    return float(np.mean([-(answer[answer > 0] * np.log(answer[answer > 0])).sum() for answer in answers]))
"""),
    "nats per word": (SEVEN, "bigram", "over the number of words", """
def truth(language, texts):
    total = sum(language.log_prob([language.words[i - 5] for i in text]) for text in texts)
    return -total / sum(map(len, texts))
"""),
    "the truth in bits": (SEVEN, "bigram", "are bits", """
nats = truth


def truth(language, texts):
    return nats(language, texts) / math.log(2)
"""),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_answer_is_told_what_is_wrong(mistake):
    name, task, part, answer = WRONG[mistake]
    right = SETS[name][1][task].solution  # of what the wrong answer does not write anew
    messages = grade(name, task, right + answer)
    assert any(part in message for message in messages), f"the checks say {messages}, nothing about {part!r}"


def given(name: str, task: str, answer: str) -> dict:
    """The names of a student who has run the first cell, the cell given with a task, and an answer to it."""
    cells = {cell.id: cell.source for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells}
    names: dict = {}
    for source in (cells["imports"], cells[f"{task}-given"], answer):
        exec(source, names)
    return names


def test_the_two_worlds_are_what_the_model_answer_says():
    names = given(FIVE, "matched_difference", SETS[FIVE][1]["matched_difference"].solution)
    edges, tenfold = names["edges"], 10.0 ** np.arange(7)
    for name, world in names["worlds"].items():
        function, _, steps = world
        assert 2400 < steps[~function].mean() - steps[function].mean() < 2500
        difference = names["matched_difference"](*world, edges)
        p = names["p_value"](*world, edges, np.random.default_rng(0))
        if name == names["real"]:
            assert 550 < difference < 650 and p == 0
        else:
            assert 25 < difference < 75 and p > 0.5
            assert names["matched_difference"](*world, tenfold) == pytest.approx(360, abs=10)
            assert names["p_value"](*world, tenfold, np.random.default_rng(0)) < 0.05


def test_the_given_evaluation_is_refused_and_each_mistake_alone():
    cells = nbformat.read(FOLDER / f"{FIVE}.ipynb", as_version=4).cells
    haste = next(cell.source for cell in cells if cell.id == "evaluate-given")
    mended = {
        "asked = rng.random(len(labels)) < 0.25": "asked = np.isin(texts, rng.permutation(texts.max() + 1)[::4])",
        "(vectors - vectors.mean(0)) / vectors.std(0)":
            "(vectors - vectors[~asked].mean(0)) / vectors[~asked].std(0)",
        "len(found) ** 0.5": "len(np.unique(texts[asked])) ** 0.5",
    }  # fmt: skip
    lines = haste.replace("_in_haste", "").splitlines()
    lines[3], lines[4] = lines[4], lines[3]  # the split first, as the mended standardising needs
    answer = "\n".join(lines)
    for line, told in zip(mended, ["Hold out whole texts", "from the words that the probe learns from", "by text"]):
        rest = answer
        for wrong, right in mended.items():
            assert rest.count(wrong) == 1
            rest = rest.replace(wrong, wrong if wrong == line else right)
        messages = grade(FIVE, "evaluate", rest)
        assert any(told in message for message in messages), f"with {line} alone the checks say {messages}"
    for wrong, right in mended.items():
        answer = answer.replace(wrong, right)
    assert grade(FIVE, "evaluate", answer) == []


def test_the_three_runs_are_what_the_model_answer_says():
    names = given(SIX, "compare", SETS[SIX][1]["compare"].solution)
    costs = {}
    for name, (kind, words, hidden, spans, mean) in names["runs"].items():
        targets = names["length"](kind, words, hidden, spans)
        costs[name] = (mean * targets - 0.01 * (targets - hidden)) / hidden
        assert names["mean_loss"](kind, words, hidden, spans, 0.01, costs[name]) == pytest.approx(mean)
    assert costs == pytest.approx({"A": 2.40, "B": 2.00, "C": 2.10}, abs=0.005)
    assert min(costs, key=costs.get) == names["best"] != min(names["runs"], key=lambda name: names["runs"][name][-1])


def test_the_bigrams_are_as_far_from_the_truth_as_the_model_answer_says():
    names = given(SEVEN, "bigram", SETS[SEVEN][1]["bigram"].solution)
    learned, held_out = names["learned"], names["held_out"]
    losses = [names["loss"](names["bigram"](learned[:n], names["vocab"]), held_out) for n in (500, 5_000, 50_000)]
    assert losses == pytest.approx([2.34, 1.89, 1.81], abs=0.01)
    assert losses[-1] - names["truth"](names["language"], held_out) == pytest.approx(1.22, abs=0.01)
    assert names["vocab"] ** 4 == pytest.approx(395e6, rel=0.01)
