"""Real texts that people have annotated: three data sets that NLTK hands out, and Universal Dependencies.

They belong to others and do not come with the course: `find_data` looks for NLTK's, and else asks its server once.
"""

from __future__ import annotations

import importlib.util
import io
import re
import threading
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .tinyworld.tasks import Example

CORPORA = {"polarity": "sentence_polarity", "rte": "rte", "treebank": "treebank"}  # the tasks, and NLTK's name of each
TASKS = tuple(CORPORA)
FILES = {  # of each data set: the folder that NLTK reads, the form of its files' names, and how many there are
    "sentence_polarity": ("sentence_polarity", r"rt-polarity\.(neg|pos)", 2),
    "rte": ("rte", r"rte\d_(dev|test)\.xml", 6),
    "treebank": ("treebank/combined", r"wsj_\d+\.mrg", 199),
}
JUDGED = 600  # at most so many texts to judge by
LONGEST = 50  # words of a tagged sentence
UPOS = frozenset("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())


def find_data(patience: float = 3.0) -> str:
    """Why NLTK's data cannot be read, in a few words; "" when they can.

    What is not here is downloaded, once a process, if NLTK's server answers within `patience` seconds.
    """
    if importlib.util.find_spec("nltk") is None:
        return "NLTK is not installed"
    if not _missing():
        return ""
    answered = _get(patience)
    if missing := _missing():
        return f"NLTK's data are not here ({', '.join(missing)}), and " + (
            "they could not be downloaded" if answered else "its server is out of reach")
    return ""


@cache
def _get(patience: float) -> bool:
    """Download what is missing; whether NLTK's server answered at all."""
    answered, missing = _within(patience, _ask), _missing()
    if answered:
        _within(60.0, lambda: _download(missing))
    return answered


def _missing() -> list[str]:
    return [name for name in CORPORA.values() if not _is_here(name)]


def _is_here(name: str) -> bool:
    """Whether all files of a data set are where NLTK reads them: in its folder, or else in its zip."""
    import nltk
    from nltk.corpus.reader.util import find_corpus_fileids

    folder, form, count = FILES[name]
    for place in (f"corpora/{folder}", f"corpora/{name}.zip/{folder}/"):
        try:
            root = nltk.data.find(place)
            return sum(root.join(file).file_size() > 0 for file in find_corpus_fileids(root, form)) >= count
        except (LookupError, OSError, zipfile.BadZipFile):  # a download that was cut short is no zip
            continue
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


def _check(task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r} of real text: choose one of {', '.join(TASKS)}")


@cache
def read(task: str) -> tuple[list[Example], list[Example]]:
    """The labelled texts to learn from, and those to judge by, in an order that is always the same.

    polarity: sentences of film reviews, bad (0) or good (1) (Pang and Lee 2005). rte: a text and a statement that
    follows from it (1) or not (0): the development and the test sets of three years (Dagan et al. 2006, and later).
    treebank: sentences of a newspaper and the part of speech of each word (Marcus et al. 1993); the last quarter of the
    files to judge by. Raises ValueError for another task, and when the data are not here.
    """
    _check(task)
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


def read_conllu(file: str | Path) -> list[Example]:
    """The sentences of a Universal Dependencies treebank and the part of speech of each word (Nivre et al. 2020).

    file: in CoNLL-U, of which FORM and UPOS are read; comments, ranges of words written as one ("1-2") and words that
    nobody wrote ("1.1") are passed over. Sentences of more than LONGEST words are left out. Raises ValueError for a
    file that is not CoNLL-U or lacks a part of speech, OSError when there is no such file.
    """

    def refused(why: str) -> ValueError:
        return ValueError(f"{file} cannot be read as CoNLL-U: {why}")

    found: list[Example] = []
    words: list[tuple[str, str]] = []
    try:
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate((*lines, "\n"), 1):  # the last sentence may lack its empty line
                row = line.rstrip("\n").split("\t")
                if row == [""]:
                    if 0 < len(words) <= LONGEST:
                        forms, tags = zip(*words)
                        found.append(Example(forms, (), tags))
                    words = []
                elif not line.startswith("#"):
                    if len(row) != 10:
                        raise refused(f"line {number} has {len(row)} columns between tabs, not 10")
                    name, form, _, tag = row[:4]
                    if re.fullmatch(r"[0-9]+[-.][0-9]+", name):
                        continue
                    if name != str(len(words) + 1):
                        raise refused(f"line {number} is word {name!r}, where word {len(words) + 1} was expected")
                    if not form.strip() or tag not in UPOS:
                        raise refused(f"line {number} has the word {form!r} with {tag!r}, no universal part of speech")
                    words.append((form, tag))
    except UnicodeDecodeError:
        raise refused("it is no UTF-8 text") from None
    if not found:
        raise refused(f"it holds no sentence of 1 to {LONGEST} words")
    if {word for example in found for word in example.first} == {"_"}:
        raise refused("its words were left out, as some treebanks' licences ask: get the version with its text")
    return found


def mixed(examples: Sequence[Any], seed: int) -> list[Any]:
    """The same examples in a random order."""
    return [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))]


def classes_of(task: str) -> tuple[Any, ...]:
    """What the numbers of a task's labels stand for; raises ValueError for a task that is none of TASKS."""
    _check(task)
    if task != "treebank":
        return ("bad", "good") if task == "polarity" else ("does not follow", "follows")
    return tuple(sorted({tag for part in read(task) for one in part for tag in one.gold}))
