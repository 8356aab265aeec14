"""The command line: what it writes, what it refuses in one line, and what is left when it is stopped."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from run_training import alphabet

import selfsup.corpora
from selfsup import cli
from selfsup.abilities import PROBES
from selfsup.corpora import tinyworld
from selfsup.corpora.tinyworld.corpus import HELD_OUT_SEED
from selfsup.models.pretrained import load_pretrained
from selfsup.objectives import load_objective
from selfsup.training import CHECKPOINT, LOG, History, Recipe

SHAPE = ["layers=1", "width=16", "heads=2", "feed_forward=32", "max_positions=16", "shape=null"]
SMALL = [
    "--steps",
    "6",
    "--log-every",
    "2",
    "--evaluate-every",
    "3",
    "--checkpoint-every",
    "2",
    "--model",
    *SHAPE,
]
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def alphabet_for_tinyworld(monkeypatch):
    """The alphabet stands in for Tinyworld, so that a run takes a moment."""
    real = selfsup.corpora.load_corpus
    monkeypatch.setattr(
        selfsup.corpora,
        "load_corpus",
        lambda name, **options: alphabet() if name == "tinyworld" and not options else real(name, **options),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pretrain(folder, *arguments):
    return cli.main(["pretrain", "--device", "cpu", "--output", str(folder), *map(str, arguments)])


def one_line(capsys):
    """What was said on standard error, which must be one line and no traceback."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("selfsup: "), f"not one line: {said}"
    return said


@pytest.mark.parametrize("arguments", [["--help"], ["pretrain", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0 and "usage: selfsup" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["conquer"], ["pretrain"], ["pretrain", "--output", "x", "--steps", "many"]]
)
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and "usage: selfsup" in capsys.readouterr().err


def test_pretrain_writes_a_model_its_recipe_and_its_log(tmp_path, capsys):
    assert pretrain(tmp_path / "model", *SMALL) == 0
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "recipe.json",
        LOG,
    }
    model, tokenizer = load_pretrained(tmp_path / "model")
    assert model.config.width == 16 and len(tokenizer) == len(alphabet().tokenizer)
    assert Recipe.from_json((tmp_path / "model" / "recipe.json").read_text()).steps == 6
    log = History.read(tmp_path / "model" / LOG)
    assert [record["step"] for record in log.records] == [2, 3, 4, 6]
    assert f"held out {log.records[-1]['held_out']:.4f}" in capsys.readouterr().out


def test_half_takes_half_the_bytes(tmp_path):
    pretrain(tmp_path / "whole", *SMALL)
    pretrain(tmp_path / "half", "--half", *SMALL)
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.75 * whole


def test_recipe_reproduces_the_model(tmp_path):
    pretrain(tmp_path / "first", "--seed", 3, "--objective-options", "rate=0.3", *SMALL)
    pretrain(tmp_path / "again", "--recipe", tmp_path / "first" / "recipe.json")
    first, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again"))
    assert first == again, "the same recipe gave another model"
    pretrain(tmp_path / "other", "--recipe", tmp_path / "first" / "recipe.json", "--seed", 4)
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != first, (
        "--seed did not change the recipe"
    )


@pytest.mark.parametrize(
    "path", sorted(cli.CHECKPOINTS.glob("*/recipe.json")), ids=lambda path: path.parent.name
)
def test_shipped_recipes_can_be_read(path):
    recipe = Recipe.from_json(path.read_text(encoding="utf-8"))
    assert recipe.to_json() == path.read_text(encoding="utf-8"), "the recipe is not as this version writes it"
    tokenizer = load_pretrained(path.parent)[1]
    for changes in ({}, *recipe.phases.values()):
        options = recipe.objective_options | changes
        options.pop("weight_decay", None)
        load_objective(recipe.objective, tokenizer, **options)  # refuses an option that there is not


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--corpus", "atlantis"], "no corpus called 'atlantis'"),
        (["--corpus-options", "moons=2"], "moons"),
        (["--objective", "telepathy"], "no objective called 'telepathy'"),
        (["--objective-options", "rate=2"], "rate is 2"),
        (["--objective-options", "speed=2"], "speed"),
        (["--objective-options", "rate=high"], "rate"),
        (["--recipe", "soup"], "no recipe 'soup'"),
        (["--steps", "0"], "steps = 0"),
        (["--learning-rate", "-1"], "learning_rate = -1"),
        (["--learning-rate", "nan"], "learning_rate = nan"),
        (["--schedule", "zigzag"], "schedule = 'zigzag'"),
        (["--model", "width=17"], "17"),
        (["--model", "width=wide"], "wide"),
        (["--model", "wings=2"], "wings"),
        (["--model", "shape=round"], "no shape called 'round'"),
        (["--model", "dropout=much"], "dropout"),
        (["--device", "abacus"], "abacus"),
        (["--model", "max_positions=5"], "5"),
    ],
)
def test_bad_input_is_one_line_and_status_1(tmp_path, capsys, arguments, said):
    assert pretrain(tmp_path / "model", *SMALL, *arguments) == 1
    assert said in one_line(capsys)
    assert not (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("text", ["", "{", '{"stepps": 3}', "[]"])
def test_bad_recipe_files(tmp_path, capsys, text):
    (tmp_path / "recipe.json").write_text(text)
    assert pretrain(tmp_path / "model", "--recipe", tmp_path / "recipe.json") == 1
    assert "recipe" in one_line(capsys)


def test_folder_with_a_run_is_not_overwritten(tmp_path, capsys):
    pretrain(tmp_path, *SMALL)
    before = (tmp_path / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert pretrain(tmp_path, *SMALL, "--seed", 1) == 1
    assert "resume it" in one_line(capsys)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert pretrain(tmp_path, "--resume") == 0, "a complete run has nothing to resume, and that is no error"


def test_resume_needs_no_flags_and_ends_alike(tmp_path, capsys, monkeypatch):
    pretrain(tmp_path / "whole", *SMALL)

    def power_cut(*_, **__):
        raise OSError(28, "No space left on device", "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr("selfsup.models.pretrained.save_pretrained", power_cut)
        capsys.readouterr()
        assert pretrain(tmp_path / "parts", *SMALL) == 1
        assert "model.safetensors: No space left" in one_line(capsys)
    assert (tmp_path / "parts" / CHECKPOINT).exists(), (
        "the checkpoint must outlive a failure to save the model"
    )
    assert pretrain(tmp_path / "parts", "--resume") == 0
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_resume_with_another_recipe_is_refused(tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("selfsup.models.pretrained.save_pretrained", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain(tmp_path, *SMALL)
    capsys.readouterr()
    assert pretrain(tmp_path, "--resume", "--seed", 5) == 1
    assert "another recipe" in one_line(capsys)


def test_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert pretrain(tmp_path / "file" / "model", *SMALL) == 1
    assert "file" in one_line(capsys)


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="the system's administrator may write anywhere"
)
def test_read_only_folder(tmp_path, capsys):
    tmp_path.chmod(0o555)
    assert pretrain(tmp_path / "model", *SMALL) == 1
    assert "Permission denied" in one_line(capsys)


RUN = """
import sys
sys.path.insert(0, {tests!r})
from run_training import alphabet
import torch, selfsup.corpora
torch.set_num_threads(1)
selfsup.corpora.load_corpus = lambda name, **options: alphabet()
{before}
from selfsup.cli import main
sys.exit(main())
"""


def start(*arguments, before=""):
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": "1"}
    code = RUN.format(tests=str(HERE), before=before)
    command = [sys.executable, "-c", code, "pretrain", "--device", "cpu", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is a signal on POSIX systems")
def test_ctrl_c_is_one_line_and_status_130(tmp_path):
    long = ["--output", tmp_path, *SMALL, "--steps", "3000", "--evaluate-every", "3000"]
    process = start(*long)
    deadline = time.monotonic() + 120
    while not (tmp_path / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.count("\n") == 1 and "--resume" in said, f"not one line: {said}"
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] >= 2, (
        "the last checkpoint is not whole"
    )


def test_what_a_stopped_run_left_is_told_truly(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("selfsup.training.train", stop)
    assert pretrain(tmp_path, *SMALL) == 130
    assert "no checkpoint yet" in capsys.readouterr().err
    (tmp_path / CHECKPOINT).write_bytes(b"")
    assert pretrain(tmp_path, *SMALL, "--resume") == 130
    assert "goes on from the last checkpoint" in capsys.readouterr().err


def test_a_recipe_that_is_no_text_is_named(tmp_path, capsys):
    (tmp_path / "r.json").write_bytes(b'{"seed": "\xe9"}')
    assert cli.main(["pretrain", "--output", str(tmp_path / "x"), "--recipe", str(tmp_path / "r.json")]) == 1
    assert "r.json is no text in UTF-8" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="limits on file size are POSIX's")
def test_full_disk_is_one_line_and_keeps_the_checkpoint(tmp_path):
    """A limit on the size of files fails like a full disk: in the middle of a write."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
    process = start("--output", tmp_path, *SMALL, before=limit.format(20_000))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and said.count("\n") == 1, said
    assert CHECKPOINT in said and not (tmp_path / CHECKPOINT).exists()
    assert not list(tmp_path.glob(".*")), "a half-written file was left behind"


def test_probe_says_what_the_vectors_tell(capsys):
    told = ["--learned", "300", "--asked", "150"]
    assert cli.main(["probe", "tinyworld-nsp", "tinyworld-sop", "--questions", "sense", "topic", *told]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0].strip() for line in lines] == ["sense", *(names := ["tinyworld-nsp", "tinyworld-sop"]),
                                                              "topic", *names]
    assert "guessing" in lines[0] and "counting words" in lines[0] and "exact rules 9" in lines[0]
    layers = [int(number) for number in lines[1].rpartition(": ")[2].split()]
    assert len(layers) == 3 and layers[-1] > layers[0], "blocks know more of a sense than the word does"


def test_probe_takes_the_weights_of_a_step(capsys):
    told = ["--questions", "agreement", "--learned", "150", "--asked", "80"]
    for step in ("0", "12000"):
        assert cli.main(["probe", "tinyworld-bert", "--step", step, *told]) == 0
    first, last = (int(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[1::2])
    assert first < 85 < 95 < last, "at the end the last block knows the number"


def test_probe_asks_about_texts_that_no_model_was_trained_on():
    drawn = tinyworld.Pairs(tinyworld.load("world")).draw(300, 0).texts  # as the corpus of pairs begins
    trained = {tuple(drawn[i].tolist()) for i in range(300)}
    asked = PROBES["order"](tinyworld.load("world"), 100, HELD_OUT_SEED + 1)
    lengths = asked.attention_mask.sum(1)
    same = [tuple(ids[1 : n - 1].tolist()) in trained for ids, n in zip(asked.ids, lengths)]
    assert sum(same) < 5


@pytest.fixture
def treebank(tmp_path):
    """What to learn from and what to judge by: one sentence, twelve times."""
    rows = "\n".join(f"{i}\t{word}\t_\t{tag}" + "\t_" * 6 for i, (word, tag) in enumerate(
        [("the", "DET"), ("king", "NOUN"), ("sang", "VERB")], 1))
    (tmp_path / "bank.conllu").write_text("\n\n".join([rows] * 12) + "\n", encoding="utf-8")
    return ["--treebank", *[str(tmp_path / "bank.conllu")] * 2]


def test_probe_reads_treebanks(treebank, capsys):
    transformers.utils.logging.enable_progress_bar()
    assert cli.main(["probe", "storybook-bert", *treebank]) == 0
    said, complaints = capsys.readouterr()
    assert complaints == "", "bars of what takes a moment"
    assert transformers.utils.logging.get_verbosity() <= logging.WARNING, "its warnings are hidden, too"
    lines = said.splitlines()
    assert lines[0].startswith("commonest tag: 33.3%") and lines[1].startswith("usual tag: 100.0%")
    assert any(line.startswith("storybook-bert, layer 4: 100.0%") for line in lines)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("status", [0, 1])
def test_probe_leaves_the_progress_bars_of_others_as_they_were(treebank, capsys, monkeypatch, shown, status):
    """Whether it succeeds or fails."""
    bars, seen = transformers.utils.logging, []

    def probe(*_, **__):
        seen.append(bars.is_progress_bar_enabled())
        if status:
            raise ValueError("too few sentences")
        return []

    monkeypatch.setattr("selfsup.probing.probe_checkpoints", probe)
    try:
        (bars.enable_progress_bar if shown else bars.disable_progress_bar)()
        assert cli.main(["probe", "storybook-bert", *treebank]) == status
        assert seen == [False] and bars.is_progress_bar_enabled() == shown
    finally:
        bars.enable_progress_bar()


@pytest.mark.parametrize("arguments, said", [
    (["tinyworld-nsp", "--questions", "music"], "there is no question 'music': choose from part of speech,"),
    (["storybook-bert", "--questions", "topic"], "storybook-bert was not trained on Tinyworld"),
    (["tinyworld-nsp", "--asked", "0"], "give at least one example to learn from"),
    (["tinyworld-nsp", "--step", "3"], "there are no snapshots of 'tinyworld-nsp'"),
    (["tinyworld-nsp", "--step", "3", "--treebank", "a", "b"], "leave --step out"),
    (["tinyworld-nsp", "--learned", "3", "--treebank", "a", "b"], "leave --learned out"),
    (["tinyworld-nsp", "--seed", "-1", "--treebank", "a", "b"], "--seed is -1"),
    (["tinyworld-nsp", "--treebank", "nothing.conllu", "nothing.conllu"], "nothing.conllu: No such file"),
])  # fmt: skip
def test_probe_refuses_in_one_line(capsys, arguments, said):
    assert cli.main(["probe", *arguments]) == 1
    assert said in one_line(capsys)


def test_asking_for_help_does_not_import_torch():
    code = "import sys, selfsup.cli; assert 'torch' not in sys.modules, 'the command line is slow to start'"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    )


def test_pairs_are_read_as_json_where_they_are():
    assert cli._pair("rate=0.3") == ("rate", 0.3) and cli._pair("whole_word=true") == ("whole_word", True)
    assert cli._pair("shape=village-bert") == ("shape", "village-bert")
    assert json.loads(Recipe().to_json())["model"]["shape"] == "tinyworld-bert"
