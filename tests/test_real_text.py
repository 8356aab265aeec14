"""Real text: read as NLTK lays it out, asked at the first piece of a word, and missed in a sentence."""

from __future__ import annotations

import zipfile

import nltk
import pytest

from selfsup import recorded
from selfsup.corpora import annotated
from selfsup.corpora.tinyworld.tasks import Example
from selfsup.models.pretrained import load
from selfsup.objectives import IGNORE
from selfsup.recorded import real_text

# Made by hand in the forms of NLTK's files; nothing of their content.
RTE = """<?xml version="1.0" encoding="UTF-8"?>
<entailment-corpus>
{}</entailment-corpus>
"""
PAIR = '<pair id="1" {gold} task="IE"><t>{who} of {part} saw a red boat.</t><h>{who} saw a boat.</h></pair>\n'
TREE = "( (S (NP-SBJ (NNP {}) ) (VP (VBD saw) (NP (-NONE- *T*-1) )) (. .) ))\n"
GOLD = {1: {"Ann": 'value="TRUE"', "Ben": 'value="FALSE"'}, 2: {"Tom": 'entailment="YES"'}}  # the form has changed
FILES = {
    "sentence_polarity/rt-polarity.neg": "a dull film .\nit is too long .\nso bad !\nno joy at all .\n",
    "sentence_polarity/rt-polarity.pos": "a bright film .\nit is just right .\nso good !\njoy for all .\n",
}
for part in ("dev", "test"):
    for year, said in GOLD.items():
        pairs = (PAIR.format(who=who, gold=gold, part=part) for who, gold in said.items())
        FILES[f"rte/rte{year}_{part}.xml"] = RTE.format("".join(pairs))
for number, who in enumerate(("Ann", "Ben", "Tom", "Pip"), 1):
    FILES[f"treebank/combined/wsj_000{number}.mrg"] = TREE.format(who)


def write_files(folder):
    for name, text in FILES.items():
        (folder / "corpora" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "corpora" / name).write_text(text, encoding="utf8")


def forget():
    for cached in (annotated._get, annotated.read):
        cached.cache_clear()
    for name in annotated.CORPORA.values():
        if "_unload" in vars(getattr(nltk.corpus, name)):
            getattr(nltk.corpus, name)._unload()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The one folder where NLTK looks, empty at first, without a network."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(annotated, "_ask", lambda: 1 / 0)
    made = {name: sum(file.startswith(name) for file in FILES) for name in annotated.FILES}
    monkeypatch.setattr(annotated, "FILES", {name: (*annotated.FILES[name][:2], made[name]) for name in made})
    forget()
    yield tmp_path
    forget()


@pytest.fixture
def data(place):
    write_files(place)
    return place


def test_reads_what_nltk_reads(data):
    learned, judged = annotated.read("polarity")
    assert {one.gold for one in learned + judged if "bad" in one.first or "dull" in one.first} == {0}
    assert len(learned) == 6 and len(judged) == 2 and not set(learned) & set(judged)
    learned, judged = annotated.read("rte")
    assert [one.gold for one in learned] == [1, 0, 1] and learned[0].second == ("Ann", "saw", "a", "boat.")
    assert {one.first[2] for one in learned} == {"dev"} and {one.first[2] for one in judged} == {"test"}
    learned, judged = annotated.read("treebank")
    assert [one.first[0] for one in learned] == ["Ann", "Ben", "Tom"], "the last quarter of the files is to judge by"
    assert judged == [Example(("Pip", "saw", "."), (), ("NNP", "VBD", "."))], "a trace is no word"
    assert annotated.classes_of("treebank") == (".", "NNP", "VBD")


def test_long_sentences_are_left_out(data, monkeypatch):
    monkeypatch.setattr(annotated, "LONGEST", 2)
    assert annotated.tagged(["wsj_0001.mrg"]) == []


def test_says_what_is_missing(place):
    assert "its server is out of reach" in annotated.find_data()
    assert "treebank" in annotated.find_data()
    with pytest.raises(ValueError, match="NLTK's data are not here"):
        annotated.read("rte")


def test_a_download_that_was_cut_short_is_no_data(data):
    for path in (data / "corpora" / "rte").iterdir():
        path.unlink()
    (data / "corpora" / "rte").rmdir()
    zipped = data / "corpora" / "rte.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, text in FILES.items():
            if name.startswith("rte/"):
                archive.writestr(name, text)
    assert annotated.find_data() == "" and len(annotated.read("rte")[0]) == 3, "a whole one is"
    forget()
    zipped.write_bytes(zipped.read_bytes()[:100])
    assert "(rte)" in annotated.find_data()


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("name", annotated.CORPORA.values())
def test_a_folder_that_lacks_files_is_no_data(data, name, kept):
    files = sorted(path for path in (data / "corpora" / name).rglob("*") if path.is_file())
    for path in files[kept:-1]:
        path.unlink()
    files[-1].write_text("")  # and an empty file is none
    assert f"({name})" in annotated.find_data()


def test_what_the_reader_downloads_later_is_found(place, monkeypatch):
    asked = []
    monkeypatch.setattr(annotated, "_ask", lambda: asked.append(1) or 1 / 0)
    assert annotated.find_data() == annotated.find_data() != ""
    assert len(asked) == 1, "the server is asked once"
    write_files(place)
    assert annotated.find_data() == "" and len(annotated.read("rte")[0]) == 3


def test_other_tasks_are_refused(data):
    for ask in (annotated.read, annotated.classes_of):
        with pytest.raises(ValueError, match="no task 'tags' of real text: choose one of polarity, rte, treebank"):
            ask("tags")


def test_downloads_what_is_missing_once(place, monkeypatch):
    asked = []

    def download(names):
        asked.append(names)
        write_files(place)

    monkeypatch.setattr(annotated, "_ask", lambda: None)
    monkeypatch.setattr(annotated, "_download", download)
    assert annotated.find_data() == annotated.find_data() == ""
    assert asked == [list(annotated.CORPORA.values())]


def test_a_server_that_is_silent_is_waited_for_no_longer_than_asked(place, monkeypatch):
    import threading

    monkeypatch.setattr(annotated, "_ask", threading.Event().wait)
    assert "out of reach" in annotated.find_data(patience=0.05)


def test_a_word_is_asked_for_at_its_first_piece():
    _, tokenizer = load(real_text.MODEL)
    one = Example(("Mr.", "Zyx", "ran"), (), ("NNP", "NNP", "VBD"))
    (ids, _, _), labels = real_text.in_pieces([one], tokenizer, ("NNP", "VBD"))
    pieces = tokenizer.convert_ids_to_tokens(ids[0].tolist())
    assert pieces[:4] == ["[CLS]", "mr", ".", "z"] and pieces[-2:] == ["ran", "[SEP]"]
    assert [piece for piece, label in zip(pieces, labels[0].tolist()) if label != IGNORE] == ["mr", "z", "ran"]
    assert labels[labels != IGNORE].tolist() == [0, 0, 1]


def test_long_pairs_are_cut():
    _, tokenizer = load(real_text.MODEL)
    (ids, mask, types), labels = real_text.in_pieces([Example(("boat",) * 200, ("a", "boat"), 1)], tokenizer)
    assert ids.shape == mask.shape == (1, 128) and types.sum() == 3 and labels.tolist() == [1]


def test_the_record_can_be_made_again(data, monkeypatch):
    """With a step a run, on three sentences: the form, not the figures."""
    monkeypatch.setattr(real_text, "STEPS", dict.fromkeys(annotated.TASKS, 1))
    made, kept = list(real_text.real(None, seeds=[0])), recorded.read("real")["runs"]
    assert [set(run) for run in made] == [set(run) for run in kept if run["seed"] == 0]


@pytest.fixture
def spied(monkeypatch):
    """(pool, asked, calls): made-up texts to learn from and to judge by, and which of them went where."""
    pool = [Example(("learn", str(i)), (), i % 2) for i in range(2000)]
    asked = [Example(("test", str(i)), (), i % 2) for i in range(600)]
    calls = []

    def learn(task, way, examples, seed, steps, learning_rate):
        calls.append(("learn", seed, examples))

    def judge(model, task, examples):
        calls.append(("judge", calls[-1][1], examples))
        return 0.5

    def rival(learned, judged):
        calls.extend([("learn", None, learned), ("judge", None, judged)])
        return [0] * len(judged)

    monkeypatch.setattr(real_text, "read", lambda task: (pool, asked))
    monkeypatch.setattr(real_text, "learn", learn)
    monkeypatch.setattr(real_text, "judge", judge)
    monkeypatch.setattr(real_text, "RIVALS", {task: {"rival": rival} for task in annotated.TASKS})
    return pool, asked, calls


def test_rates_are_chosen_without_the_test_part(spied):
    pool, _, calls = spied
    assert len(list(real_text.real_rates(None))) == len(recorded.read("real-rates")["runs"])
    learned, judged = ({one for work, _, examples in calls if work == wanted for one in examples}
                       for wanted in ("learn", "judge"))  # fmt: skip
    assert len(learned) == real_text.LABELS and len(judged) == annotated.JUDGED
    assert not learned & judged and learned | judged <= set(pool)


def test_every_seed_learns_from_other_labels_and_is_tested_on_the_same(spied):
    pool, asked, calls = spied
    assert len(list(real_text.real(None))) == 3 * len(annotated.TASKS) * 3  # two starts and a rival
    drawn = {}
    for work, seed, examples in calls:
        if work == "judge":
            assert examples == asked
        elif seed is not None:
            drawn.setdefault(seed, set()).add(frozenset(examples))
    assert [len(draws) for draws in drawn.values()] == [1, 1, 1], "both starts and all tasks draw alike from one seed"
    draws = [*set().union(*drawn.values())]
    assert len(draws) == 3 and all(len(draw) == real_text.LABELS and draw <= set(pool) for draw in draws)
    rivals_draws = {frozenset(examples) for work, seed, examples in calls if work == "learn" and seed is None}
    assert rivals_draws == set(draws), "a rival learns from the same labels"


def test_rates_are_the_best_that_were_tried():
    tried = recorded.read("real-rates")["runs"]
    for task, ways in real_text.WAYS.items():
        for way, rate in ways.items():
            best = max((run for run in tried if (run["task"], run["way"]) == (task, way)), key=lambda run: run["score"])
            assert best["learning_rate"] == rate, f"{task} from {way} learns best at {best['learning_rate']}"
