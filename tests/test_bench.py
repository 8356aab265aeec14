"""The benchmarks: that they compare what they say, round by round, and never what the clock says."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import urllib.request

import nbformat
import pytest
import torch

from selfsup import bench, cli
from selfsup.bench import Plan, Run, row

QUICK = Plan(rounds=2, quick=True)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_quick_run_prints_tables_and_writes_json(tmp_path, capsys):
    output = tmp_path / "new" / "bench.json"
    asked = ["bench", "--quick", "--rounds", "2", "--only", "pretraining", "posterior", "--output", str(output)]
    assert cli.main(asked) == 0
    report, said = json.loads(output.read_text()), capsys.readouterr().out
    assert set(report["parts"]) == {"pretraining", "posterior"} and report["machine"]["torch"]
    for part in report["parts"].values():
        for one in part["rows"]:
            assert one["name"] in said
            rounds = 1 if "multiplications" in one["name"] else 2  # which no clock has a part in
            assert one["min"] <= one["median"] <= one["max"] and len(one["values"]) == rounds
            assert (one["met"] is None) == (one["at_least"] is None and one["at_most"] is None)
    rows = {one["name"]: one for one in report["parts"]["pretraining"]["rows"]}
    assert rows["storybook: tokens/s, ours / Trainer"]["at_least"] == 3
    assert rows["storybook: seconds to the same loss, Trainer / ours"]["at_least"] == 4
    assert "made up" in said, "that the text is not the books' is said"
    assert "train_runtime" not in said, "the Trainer's own report is in the table"


def test_ratios_are_taken_within_a_round_and_the_order_alternates(monkeypatch):
    order = []

    def speed(side, recipe, before):
        order.append((side, recipe.seed))
        return (recipe.seed + 1) * before  # every round the machine has another mood, the same for all

    def ours(model, corpus, recipe, warmup, scored=False):
        return Run(9, speed("ours", recipe, 600), 10.0, [(1.0, 5.0), (3.0, 3.0), (10.0, 1.0)])

    def theirs(model, corpus, recipe, warmup, grouped=False):
        return Run(9, speed("theirs", recipe, 200), 12.0, [(12.0, 4.0)])

    def work(model, corpus, recipe):
        return {"Trainer": 30.0, "ours": 20.0, "ours, AdamW alone": 10.0}

    monkeypatch.setattr(bench, "_train_ours", ours)
    monkeypatch.setattr(bench, "_train_theirs", theirs)
    monkeypatch.setattr(bench, "_multiplications", work)
    corpus = bench.made_up_text(60, 100)
    part = bench._compare("storybook-bert", corpus, Plan(rounds=3, quick=True), (3.0, 4.0))
    rows = {one["name"]: one for one in part["rows"]}
    assert rows["storybook: tokens/s, ours / Trainer"]["values"] == [3.0, 3.0, 3.0]
    assert rows["storybook: tokens/s, ours / Trainer"]["met"] is True
    assert rows["storybook: seconds to the same loss, Trainer / ours"]["values"] == [6.0, 6.0]
    assert rows["storybook: multiplications a token, Trainer / ours"]["values"] == [1.5]
    assert rows["storybook: multiplications a token, Trainer / ours, AdamW alone"]["values"] == [3.0]
    assert [side for side, _ in order[:12]] == [
        *("theirs", "theirs", "ours", "ours"), *("ours", "ours", "theirs", "theirs"),
        *("theirs", "theirs", "ours", "ours"),
    ]  # fmt: skip


@pytest.fixture
def even():
    """A corpus whose texts have 20 tokens each: whichever are drawn, they have as many tokens."""
    from selfsup.corpora import Texts

    corpus = bench.made_up_text(60, 200)
    same = Texts.from_list([text[:20] for text in map(corpus.train.__getitem__, range(150)) if len(text) >= 20])
    return dataclasses.replace(corpus, train=same)


def test_the_trainer_learns_from_the_whole_corpus():
    corpus = bench.made_up_text(60, 400)
    first = {tuple(corpus.train[i].tolist()) for i in range(40)}
    drawn = [tuple(example["input_ids"][1:-1]) for example in bench._examples(corpus, 40)]
    assert len(drawn) == len(set(drawn)) == 40 and len(first.intersection(drawn)) < 20, "a corpus of books has an order"
    assert drawn == [tuple(example["input_ids"][1:-1]) for example in bench._examples(corpus, 40)]
    assert len(bench._examples(corpus, 10**6)) == len(corpus.train)


def test_both_sides_get_the_best_of_what_was_tried(monkeypatch):
    """The Trainer the learning rate, ours the least length that reached the Trainer's loss; tried with another seed."""
    ran = []

    def ours(model, corpus, recipe, warmup, scored=False):
        ran.append(("ours", recipe.seed, recipe.steps))
        return Run(9, 1.0, 1.0, [(1.0, 5.0), (10.0, 2.0 if recipe.steps >= 80 else 4.0)])

    def theirs(model, corpus, recipe, warmup, grouped=False):
        ran.append(("theirs", recipe.seed, recipe.learning_rate))
        return Run(9, 1.0, 12.0, [(12.0, 3.0 if recipe.learning_rate == 3e-3 else 6.0)])

    monkeypatch.setattr(bench, "_train_ours", ours)
    monkeypatch.setattr(bench, "_train_theirs", theirs)
    monkeypatch.setattr(bench, "_multiplications", lambda *_: {"Trainer": 1, "ours": 1, "ours, AdamW alone": 1})
    plan = Plan(rounds=1, learning_rounds=1, steps=200)
    part = bench._compare("storybook-bert", bench.made_up_text(60, 100), plan, (3.0, 4.0))
    assert [run for run in ran if run[1] == 100] == [
        ("theirs", 100, 1e-3), ("theirs", 100, 3e-3), ("ours", 100, 67), ("ours", 100, 83),
    ]  # fmt: skip
    assert ran[-2:] == [("theirs", 0, 3e-3), ("ours", 0, 167)]
    rows = {one["name"]: one["values"] for one in part["rows"]}
    assert rows["storybook: seconds to the same loss, Trainer / ours"] == [pytest.approx(12 / 7)]


def test_multiplications_are_those_counted_by_hand(even):
    from selfsup.models.bert import MaskedLanguageModel
    from selfsup.models.shapes import TransformerConfig
    from selfsup.objectives.masking import Masking
    from selfsup.training import Batches, Recipe

    recipe = Recipe(steps=3, batch_size=4)
    model = MaskedLanguageModel(TransformerConfig(60, layers=2, width=16, heads=2, feed_forward=32, dropout=0.0))
    work = bench._multiplications(model, even, recipe)
    attention, feed_forward, head = 4 * 16 * 16, 2 * 16 * 32, 16 * 16 + 16 * 60
    everywhere = 3 * 22 / 20  # forward and twice backward, [CLS] and [SEP] too
    assert work["Trainer"] == pytest.approx(everywhere * (2 * (attention + feed_forward) + head))
    batches, objective = Batches(even.train, even.tokenizer, 4, recipe.seed), Masking(even.tokenizer)
    generator = torch.Generator().manual_seed(recipe.seed)
    asked = sum(len(objective.split(*batches[step], generator).labels) for step in range(3)) / (3 * 80)
    alone = everywhere * (2 * attention + feed_forward) + 3 * asked * (feed_forward + head)
    assert work["ours, AdamW alone"] == pytest.approx(alone)
    muon = 2 * 5 * (4 * 3 * 16**3 + 2 * (2 * 16 * 16 * 32 + 16**3))  # a step: five iterations for each matrix
    assert work["ours"] == pytest.approx(alone + muon / 80)


def test_both_sides_start_from_the_same_weights_and_count_the_same_tokens(even):
    from selfsup.models.bert import MaskedLanguageModel
    from selfsup.models.shapes import TransformerConfig
    from selfsup.training import Recipe

    shape = dict(layers=1, width=16, heads=2, feed_forward=32, dropout=0.0)
    # With learning rates of nothing, both must score the same held-out loss: that of the first weights.
    rates = dict(learning_rate=0.0, matrix_learning_rate=0.0)
    recipe = Recipe(steps=3, batch_size=4, log_every=1, evaluation_texts=20, **rates)
    losses = []
    for train in (bench._train_ours, bench._train_theirs):
        torch.manual_seed(0)
        options = {"scored": True} if train is bench._train_ours else {}
        run = train(MaskedLanguageModel(TransformerConfig(60, **shape)), even, recipe, 1, **options)
        assert run.tokens == 2 * 4 * 20, "the steps after the warm-up, 4 texts each, without special tokens"
        assert run.tokens_per_second >= run.tokens / run.seconds > 0, "the warm-up is not timed"
        losses.append(run.curve[-1][1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5), "the two are not judged alike"


def test_seconds_to_a_loss():
    curve = [(1.0, 6.0), (2.0, 4.0), (3.0, 4.5), (4.0, 2.0)]
    assert bench.seconds_to(5.0, curve) == pytest.approx(1.5)
    assert bench.seconds_to(4.5, curve) == pytest.approx(1.75)
    assert bench.seconds_to(7.0, curve) == 1.0
    assert bench.seconds_to(1.0, curve) == math.inf


def test_a_row_meets_its_target_by_its_median():
    assert row("ratio", [2.0, 3.5, 3.1], at_least=3)["met"] is True
    assert row("time", [10.0, 70.0, 80.0], "ms", at_most=50)["met"] is False
    assert row("speed", [1.0])["met"] is None


def test_made_up_text_has_the_lengths_of_the_books_and_something_to_learn():
    corpus = bench.made_up_text(60, 400)
    assert len(corpus.tokenizer) == 60
    assert corpus.train.lengths.max() <= 62 and 20 < corpus.train.lengths.mean() < 50
    pairs = torch.zeros(60, 60)
    for text in (corpus.train[i] for i in range(len(corpus.train))):
        for a, b in zip(text[:-1], text[1:], strict=True):
            pairs[a, b] += 1
    share = (pairs.max(1).values.sum() / pairs.sum()).item()
    assert share > 0.5, "a word decides the next at least half of the time"


def test_what_cannot_be_measured_is_said(tmp_path, capsys, monkeypatch):
    asked = ["bench", "--quick", "--course", str(tmp_path), "--output", str(tmp_path / "bench.json"), "--only"]
    assert cli.main([*asked, "posterior", "widget", "book", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "widget: not measured: " in said and "`make html`" in said and "book: not measured: " in said
    assert "not_measured" in json.loads((tmp_path / "bench.json").read_text())["parts"]["widget"]
    assert cli.main([*asked, "widget"]) == 1, "nothing at all was measured"
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "no-such-browser"))
    page, manifest = tmp_path / "_build" / "html" / "index.html", '{"tinyworld-bert": {}}'
    (page.parent / "assets").mkdir(parents=True)
    page.write_text("<!doctype html>")
    (page.parent / "assets" / "manifest.json").write_text(manifest)
    assert cli.main([*asked, "widget"]) == 1
    assert "there is no Chromium" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ValueError("no\nsuch thing"), FileNotFoundError(2, "No such file"), ImportError("no such"), OSError()]
)
def test_a_part_that_fails_leaves_the_others_to_be_measured(monkeypatch, capsys, error):
    def fails(plan):
        raise error

    def works(plan):
        return {"rows": [row("it", [1.0])], "notes": [], "rounds": []}

    monkeypatch.setattr(bench, "PARTS", {"one": fails, "two": works})
    report = bench.run(QUICK)
    said = capsys.readouterr().out
    assert "one: not measured: " in said and "two" in said and report["parts"]["two"]["rows"]
    reason = report["parts"]["one"]["not_measured"]
    assert reason and "\n" not in reason, "a reason is one line"


def test_the_site_is_served_no_longer_than_it_is_measured(tmp_path):
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), bench._served(tmp_path):
        (server,) = set(threading.enumerate()) - before
        raise KeyboardInterrupt
    server.join(5)
    assert not server.is_alive()


def test_a_benchmark_fetches_no_book(tmp_path, monkeypatch):
    from selfsup.corpora.books import BooksUnavailable
    from selfsup.corpora.books.gutenberg import BOOKS, cache_folder

    asked = []

    def urlopen(request, **_):
        asked.append(request.full_url)
        raise OSError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(bench, "made_up_text", lambda vocab_size: "made up")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SELFSUP_BOOKS", raising=False)
    assert bench._storybook_corpus() == "made up" and not list(tmp_path.iterdir())
    cache_folder().mkdir(parents=True)
    for number in range(len(BOOKS) + 1):  # as many files as books, and not these books
        (cache_folder() / f"9{number:04}.txt").write_text("Once upon a time.")
    assert bench._storybook_corpus() == "made up"
    monkeypatch.setenv("SELFSUP_BOOKS", str(cache_folder()))
    with pytest.raises(BooksUnavailable, match="not at hand"):
        bench._storybook_corpus()
    assert not asked, "a benchmark asked for a book"


@pytest.mark.parametrize(
    "arguments, said", [(["--only", "weather"], "weather"), (["--rounds", "0"], "round"), (["--steps", "1"], "steps")]
)
def test_bad_input_is_one_line_and_status_1(tmp_path, capsys, arguments, said):
    assert cli.main(["bench", "--quick", "--output", str(tmp_path / "bench.json"), *arguments]) == 1
    found = capsys.readouterr().err
    assert said in found and found.count("\n") == 1


def test_the_playground_of_the_built_site_is_measured(built, tmp_path):
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "html").symlink_to(built, target_is_directory=True)
    part = bench.measure_widget(Plan(rounds=1, quick=True, course=tmp_path))
    names = [one["name"] for one in part["rows"]]
    measured = {"tinyworld: first answer", "storybook: next answers, 16 words", "next word: one more after 32"}
    assert measured <= set(names)
    assert all(one["min"] > 0 for one in part["rows"])


def test_a_chapter_takes_what_the_cache_says_and_else_is_executed(tmp_path):
    from jupyter_cache import get_cache

    (tmp_path / "_toc.yml").write_text(
        "root: index\nparts:\n- chapters:\n  - file: one\n  - file: two\n  - file: prose\n"
    )
    for name in ("one", "two"):
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(f"{name!r}")],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    cache = get_cache(tmp_path / "_build" / ".jupyter_cache" / "key")
    cache.cache_notebook_file(tmp_path / "one.ipynb", data={"execution_seconds": 62.5}, check_validity=False)
    quick = bench.measure_book(Plan(quick=True, course=tmp_path))
    assert [(one["name"], one["median"]) for one in quick["rows"]] == [("one", 62.5), ("the chapters together", 62.5)]
    part = bench.measure_book(Plan(course=tmp_path))
    assert part["rows"][1]["name"] == "two" and part["rows"][1]["median"] > 0
    assert "two, executed now" in part["notes"][0]
