"""What `import selfsup` does and does not do, and `selfsup.show`."""

import inspect
import os
import subprocess
import sys

import pytest
from IPython.core.formatters import DisplayFormatter

import selfsup
from selfsup.models import Block, attention
from selfsup.source import source


def python(code, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, text=True, env={**clean, **environment}).strip()


def test_import_is_light():
    code = "import sys, selfsup; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert python(code) == "[]", "import selfsup must not import large libraries"


def test_import_keeps_threads_from_spinning():
    code = "import selfsup, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert python(code) == "PASSIVE"
    assert python(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE", "a reader's own choice must stand"


def test_package_offers_load_and_show():
    assert {"load", "show"} <= set(dir(selfsup))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        selfsup.lode  # noqa: B018


@pytest.mark.parametrize("thing", [attention, Block, Block.forward])
def test_source_is_the_real_source(thing):
    shown = source(thing)
    assert shown.path == "src/selfsup/models/transformer.py"
    assert shown.code.splitlines()[0].startswith(("def ", "class ")), "a method keeps its indentation"
    stripped = [line.strip() for line in inspect.getsource(thing).splitlines()]
    assert [line.strip() for line in shown.code.splitlines()] == stripped


def test_source_looks_through_decorators():
    from selfsup.models import attention_weights

    assert "@contextmanager\ndef attention_weights(" in source(attention_weights).code


def test_source_in_a_notebook_and_in_plain_text():
    formats, _ = DisplayFormatter().format(source(attention))
    code = inspect.getsource(attention)
    assert f"```python\n{code}```" in formats["text/markdown"], "a notebook gets highlighted Python"
    plain = f"# src/selfsup/models/transformer.py\n{code.rstrip()}"
    assert formats["text/plain"] == plain, "a terminal gets plain text"


def test_show_displays_every_argument(capsys):
    selfsup.show(attention, Block)
    printed = capsys.readouterr().out
    assert "def attention(" in printed and "class Block(" in printed


@pytest.mark.parametrize("thing", [len, int, 3, "attention"])
def test_things_without_source(thing):
    with pytest.raises(ValueError, match="has no source to show"):
        source(thing)
