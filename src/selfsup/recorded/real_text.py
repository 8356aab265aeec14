"""Chapter 4's records of real text: three data sets that NLTK hands out, from a random start and a pre-trained one.

They belong to others and do not come with the course: `find_data` looks for them, and else asks NLTK's server once.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import threading
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..corpora.tinyworld.tasks import Example
from ..finetuning import Batch, Classifier, Tagger, accuracy, fine_tune
from ..models.encoder import Encoder
from ..models.pretrained import load
from ..objectives import IGNORE

MODEL = "storybook-bert"
CORPORA = {"polarity": "sentence_polarity", "rte": "rte", "treebank": "treebank"}  # the tasks, and NLTK's name of each
TASKS = tuple(CORPORA)
LABELS, JUDGED = 1000, 600  # texts to learn from, and at most so many to judge by
STEPS = {"polarity": 160, "rte": 120, "treebank": 160}
LONGEST = 50  # words of a tagged sentence
RATES = (3e-4, 1e-3, 3e-3)
# The best of RATES for each task and start, from other labels and judged by other texts (record "real-rates").
WAYS = {
    "polarity": {"random": 1e-3, "full": 1e-3},
    "rte": {"random": 3e-4, "full": 1e-3},
    "treebank": {"random": 3e-3, "full": 1e-3},
}
TUNING_SEED = 100


@cache
def find_data(patience: float = 3.0) -> str:
    """Why NLTK's data cannot be read, in a few words; "" when they can.

    What is not here is downloaded, once a process, if NLTK's server answers within `patience` seconds.
    """
    if importlib.util.find_spec("nltk") is None:
        return "NLTK is not installed"
    missing = [name for name in CORPORA.values() if not _is_here(name)]
    if missing:
        asked = _within(patience, _ask)
        if asked:
            _within(60.0, lambda: _download(missing))
        missing = [name for name in missing if not _is_here(name)]
        if missing:
            return f"NLTK's data are not here ({', '.join(missing)}), and " + (
                "they could not be downloaded" if asked else "its server is out of reach")
    return ""


def _is_here(name: str) -> bool:
    import nltk

    for place in (f"corpora/{name}", f"corpora/{name}.zip"):
        try:
            found = nltk.data.find(place)
        except (LookupError, OSError, zipfile.BadZipFile):
            continue
        if not place.endswith(".zip") or zipfile.is_zipfile(str(found)):  # a download that was cut short is no zip
            return True
    return False


def _within(seconds: float, work: Any) -> bool:
    """Whether `work` ended well in time; in a thread, since no time-out limits how long an address is looked up."""
    done: list[bool] = []

    def run() -> None:
        try:
            work()
            done.append(True)
        except Exception:  # whatever networks and disks can do
            done.append(False)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return done == [True]


def _ask() -> None:
    from urllib.request import urlopen

    from nltk.downloader import Downloader

    urlopen(Downloader.DEFAULT_URL, timeout=10).close()


def _download(names: Sequence[str]) -> None:
    import nltk

    for name in names:
        nltk.download(name, quiet=True, print_error_to=io.StringIO())


@cache
def read(task: str) -> tuple[list[Example], list[Example]]:
    """The labelled texts to learn from, and those to judge by, in an order that is always the same.

    polarity: sentences of film reviews, bad (0) or good (1) (Pang and Lee 2005). rte: a text and a statement that
    follows from it (1) or not (0): the development and the test sets of three years (Dagan et al. 2006, and later).
    treebank: sentences of a newspaper and the part of speech of each word (Marcus et al. 1993); the last quarter of the
    files to judge by. Raises ValueError when the data are not here.
    """
    if why := find_data():
        raise ValueError(f"{why}: get them with nltk.download, or show what is recorded")
    from nltk import corpus

    if task == "treebank":
        files = corpus.treebank.fileids()
        first = len(files) - len(files) // 4
        learned, judged = tagged(files[:first]), tagged(files[first:])
    elif task == "rte":
        learned, judged = ([Example(tuple(one.text.split()), tuple(one.hyp.split()), one.value)
                            for file in corpus.rte.fileids() if part in file for one in corpus.rte.pairs(file)]
                           for part in ("dev", "test"))
    else:
        every = mixed([Example(tuple(words), (), good) for good, kind in enumerate(("neg", "pos"))
                       for words in corpus.sentence_polarity.sents(categories=kind)], 0)
        quarter = len(every) // 4
        learned, judged = every[quarter:], every[:quarter]
    return learned, mixed(judged, 0)[:JUDGED]


def tagged(files: Sequence[str]) -> list[Example]:
    """The treebank's sentences without its traces, which nobody wrote; those of more than LONGEST words left out."""
    from nltk import corpus

    found = []
    for sentence in corpus.treebank.tagged_sents(files):
        words = [(word, tag) for word, tag in sentence if tag != "-NONE-"]
        if 0 < len(words) <= LONGEST:
            found.append(Example(tuple(word for word, _ in words), (), tuple(tag for _, tag in words)))
    return found


def mixed(examples: Sequence[Any], seed: int) -> list[Any]:
    """The same examples in a random order."""
    return [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))]


def classes_of(task: str) -> tuple[Any, ...]:
    """What the numbers of a task's labels stand for."""
    if task != "treebank":
        return ("bad", "good") if task == "polarity" else ("does not follow", "follows")
    return tuple(sorted({tag for part in read(task) for one in part for tag in one.gold}))


def in_pieces(examples: Sequence[Example], tokenizer: Any, classes: Sequence[Any] = ()) -> tuple[Batch, Tensor]:
    """Examples for a tokenizer that cuts words, and labels: as `as_batch`, a word's tag at its first piece alone.

    What is longer than 128 pieces loses its end, of two texts the longer one.
    """
    second = [list(one.second) for one in examples] if examples[0].second else None
    coded = tokenizer([list(one.first) for one in examples], second, is_split_into_words=True, padding=True,
                      truncation=True, max_length=128, return_tensors="pt")  # fmt: skip
    batch = (coded["input_ids"], coded["attention_mask"], coded["token_type_ids"])
    if isinstance(examples[0].gold, int):
        return batch, torch.tensor([one.gold for one in examples])
    numbers = {tag: number for number, tag in enumerate(classes)}
    labels = torch.full_like(batch[0], IGNORE)
    for row, one in enumerate(examples):
        words = coded.word_ids(row)  # of each piece the number of its word; None for [CLS], [SEP] and [PAD]
        for place, word in enumerate(words):
            if word is not None and word != words[place - 1]:
                labels[row, place] = numbers[one.gold[word]]
    return batch, labels


def learn(task: str, way: str, examples: Sequence[Example], seed: int, steps: int, learning_rate: float) -> nn.Module:
    """A model that has learned the task from `examples`, its encoder from a random start or a pre-trained one."""
    pretrained, tokenizer = load(MODEL)
    torch.manual_seed(seed)
    encoder = pretrained.encoder
    if way == "random":
        encoder = Encoder(dataclasses.replace(pretrained.config, dropout=0.0, init_std=0.02))  # as BERT begins
    classes = classes_of(task)
    model = (Tagger if task == "treebank" else Classifier)(encoder, len(classes))
    batch, labels = in_pieces(examples, tokenizer, classes)
    fine_tune(model, batch, labels, steps=steps, batch_size=16, learning_rate=learning_rate, seed=seed)
    return model


def judge(model: nn.Module, task: str, examples: Sequence[Example]) -> float:
    """The share of texts, or of words, that the model labels rightly."""
    return round(accuracy(model, *in_pieces(examples, load(MODEL)[1], classes_of(task))), 4)


def majority(learned: Sequence[Example], asked: Sequence[Example]) -> float:
    """The accuracy of the most frequent class, whatever is asked."""
    most = Counter(one.gold for one in learned).most_common(1)[0][0]
    return float(np.mean([one.gold == most for one in asked]))


def counted_words(learned: Sequence[Example], asked: Sequence[Example]) -> float:
    """The accuracy of naive Bayes on counts of words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    rival = make_pipeline(CountVectorizer(analyzer=lambda one: one.first + one.second), MultinomialNB())
    return float(rival.fit(learned, [one.gold for one in learned]).score(asked, [one.gold for one in asked]))


def overlap(learned: Sequence[Example], asked: Sequence[Example]) -> float:
    """The accuracy of one number for two texts: the share of the second's words that the first one has, too."""
    from sklearn.linear_model import LogisticRegression

    def shares(examples: Sequence[Example]) -> list[list[float]]:
        bare = [[{word.lower().strip(".,") for word in part} for part in (one.first, one.second)] for one in examples]
        return [[len(first & second) / len(second)] for first, second in bare]

    rival = LogisticRegression().fit(shares(learned), [one.gold for one in learned])
    return float(rival.score(shares(asked), [one.gold for one in asked]))


def usual_tags(learned: Sequence[Example], asked: Sequence[Example]) -> float:
    """The accuracy of each word's most frequent tag; of a new word, the most frequent tag of all."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for one in learned:
        for word, tag in zip(one.first, one.gold):
            counts[word][tag] += 1
    most = sum(counts.values(), Counter()).most_common(1)[0][0]
    usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    return float(np.mean([usual.get(word, most) == tag for one in asked for word, tag in zip(one.first, one.gold)]))


# For each task, who needs no network: the name, and its accuracy.
RIVALS = {
    "polarity": {"majority": majority, "counted words": counted_words},
    "rte": {"majority": majority, "word overlap": overlap},
    "treebank": {"usual tags": usual_tags},
}


def real(_: None, seeds: Iterable[int] = range(3)) -> Iterator[dict]:
    """Every task with three draws of labels, from both starts, and its rivals."""
    for task, seed in product(TASKS, seeds):
        pool, asked = read(task)
        learned = mixed(pool, seed)[:LABELS]
        about = {"task": task, "seed": seed, "labels": len(learned), "judged": len(asked)}
        for way, rival in RIVALS[task].items():
            yield {**about, "way": way, "score": round(rival(learned, asked), 4)}
        for way, rate in WAYS[task].items():
            model = learn(task, way, learned, seed, STEPS[task], rate)
            yield {**about, "way": way, "learning_rate": rate, "score": judge(model, task, asked)}


def real_rates(_: None) -> Iterator[dict]:
    """Every task and start at three learning rates, judged by texts that are neither learned from nor tested on."""
    for task, way, rate in product(TASKS, ("random", "full"), RATES):
        every = mixed(read(task)[0], TUNING_SEED)
        learned, asked = every[:LABELS], every[LABELS:][:JUDGED]
        model = learn(task, way, learned, TUNING_SEED, STEPS[task], rate)
        yield {"task": task, "way": way, "seed": TUNING_SEED, "labels": len(learned), "learning_rate": rate,
               "score": judge(model, task, asked)}
