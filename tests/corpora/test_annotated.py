"""Universal Dependencies: what is a word and its tag, and what is no CoNLL-U."""

from __future__ import annotations

import pytest

from selfsup.corpora import annotated
from selfsup.corpora.tinyworld.tasks import Example


def row(name, form, tag):
    return "\t".join((str(name), form, form, tag, "_", "_", "0", "root", "_", "_"))


DOG = "\n".join((
    "# sent_id = 1", "# text = the dog didn't", row(1, "the", "DET"), row(2, "dog", "NOUN"), row("3-4", "didn't", "_"),
    row(3, "did", "AUX"), row("3.1", "bark", "VERB"), row(4, "n't", "PART"),
))  # fmt: skip
RUN = row(1, "Run", "VERB") + "\n" + row(2, "20 000", "NUM")
SENTENCES = [Example(("the", "dog", "did", "n't"), (), ("DET", "NOUN", "AUX", "PART")),
             Example(("Run", "20 000"), (), ("VERB", "NUM"))]  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def reads(text):
        file = tmp_path / "some.conllu"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return annotated.read_conllu(file)

    return reads


@pytest.mark.parametrize("text", [
    f"{DOG}\n\n{RUN}\n\n", f"{DOG}\n\n{RUN}\n", f"{DOG}\n\n{RUN}", f"\n\n{DOG}\n\n\n{RUN}",
    f"\ufeff{DOG}\n\n{RUN}\n\n", f"{DOG}\n\n{RUN}\n\n".replace("\n", "\r\n"),
])  # fmt: skip
def test_words_and_their_tags(read, text):
    assert read(text) == SENTENCES, "one word a line: no comment, no range of words, no word that nobody wrote"


def test_a_word_may_hold_what_elsewhere_ends_a_line(read):
    assert read(row(1, "a\u2028b\x85c", "X"))[0].first == ("a\u2028b\x85c",)


def test_long_sentences_are_left_out(read):
    long = "\n".join(row(number, "on", "ADV") for number in range(1, annotated.LONGEST + 2))
    assert read(f"{long}\n\n{RUN}") == SENTENCES[1:]
    assert len(read(long.rpartition("\n")[0])[0].first) == annotated.LONGEST


@pytest.mark.parametrize("text, why", [
    ("1\t_\t_\tNOUN" + "\t_" * 6 + "\n", "its words were left out"),
    ("", "no sentence"), ("# only a comment\n", "no sentence"), ("the\tDET\n", "line 1 has 2 columns"),
    ("the dog ran\n", "line 1 has 1 columns"), ('{"a": 1}\n', "line 1 has 1 columns"),
    (f"{DOG}\n \n{RUN}", "line 9 has 1 columns"), (f"{DOG}\n{RUN}", "line 9 is word '1', where word 5 was expected"),
    (row(2, "dog", "NOUN"), "word '2', where word 1"), (row("1-", "dog", "NOUN"), "word '1-'"),
    (row("\u0661", "dog", "NOUN"), "where word 1"), (row(1, "dog", "NN"), "'dog' with 'NN', no universal"),
    (row(1, "dog", "_"), "'dog' with '_'"), (row(1, "", "NOUN"), "the word '' with"), (row(1, " ", "NOUN"), "' '"),
    (b"1\t\xff\xfe", "no UTF-8 text"), (DOG.encode("utf-16"), "no UTF-8 text"), (b"\x00" * 100, "1 columns"),
])  # fmt: skip
def test_what_is_no_conllu_is_refused_in_a_sentence(read, text, why):
    with pytest.raises(ValueError, match="some.conllu cannot be read as CoNLL-U") as error:
        read(text)
    assert why in str(error.value) and "\n" not in str(error.value)
