"""Books: fetched whole or not at all, cleaned without losing words, cut into examples, held out by book."""

import errno
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from selfsup.corpora.books import (
    BOOKS,
    MAX_PIECES,
    Book,
    BooksUnavailable,
    Sentences,
    _cut,
    _examples,
    cloze,
    cloze_accuracy,
    gutenberg,
    load_books,
    mixture,
    prepare,
    save_prepared,
)
from selfsup.corpora.books.gutenberg import check_book, fetch_books, find_books, strip_licence
from selfsup.corpora.books.prose import paragraphs, sentences
from selfsup.tokenization import word_level

REAL = os.environ.get("SELFSUP_BOOKS", "")

PROSE = """CHAPTER I. The Well

Once upon a time there was a miller who had a well behind his mill. "What is at the
bottom?" asked his daughter. Nobody knew, not even old Mr. Brown.

[Illustration: The well]

She let down a _very_ long rope--so long that it took all morning. At last she heard a
splash, and then a voice. "Good morning," said the voice.
"""
BODY = PROSE + "\n".join(f"\nOn day {day} the miller told the tale again. It was long." for day in range(40))
BOOK = Book(7001, "The Miller's Well", len(BODY.split()))
OTHER = Book(7002, "The Second Well", len(BODY.split()), held_out=True)


def gutenberg_text(title: str = BOOK.title, body: str = BODY) -> str:
    return (
        f"\ufeffThe Project Gutenberg eBook of {title}\n\nTitle: {title}\n\nAuthor: Nobody\n\n"
        f"*** START OF THE PROJECT GUTENBERG EBOOK {title.upper()} ***\n\n{body}\n\n"
        f"*** END OF THE PROJECT GUTENBERG EBOOK {title.upper()} ***\n\nThe licence, which is long.\n"
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no folder named in the environment."""
    monkeypatch.delenv("SELFSUP_BOOKS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "selfsup" / "books"


@pytest.fixture
def server():
    """A server on this machine: the path says how it is to misbehave, `asked` what it was asked."""
    asked, hold = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["User-Agent"]))
            _, kind, number = self.path.split("/")
            titles = {str(BOOK.number): BOOK.title, str(OTHER.number): OTHER.title}
            text = gutenberg_text(titles.get(number, "?")).encode()
            if kind == "moved":
                self.send_response(302)
                self.send_header("Location", f"/good/{number}")
                return self.end_headers()
            if kind == "missing" or (kind == "first" and number != str(BOOK.number)):
                return self.send_error(404)
            if kind == "hang":
                hold.wait(5)
                return None
            if kind == "other":
                text = gutenberg_text("The Ugly Swan").encode()
            if kind == "cut":
                text = text[: len(text) // 2]
            if kind == "short":
                text = gutenberg_text(body=PROSE).encode()
            if kind == "latin":
                text = gutenberg_text(body=BODY + "\u00e9").encode("latin-1", "replace")
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text[: len(text) // 2] if kind == "broken" else text)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield SimpleNamespace(asked=asked, url=lambda kind: f"http://127.0.0.1:{server.server_port}/{kind}/{{0}}")
    hold.set()
    server.shutdown()
    server.server_close()


def fetch(cache: Path, *addresses: str, books=(BOOK,), pause=0.0, timeout=5.0):
    return fetch_books(books, cache, addresses=addresses, pause=pause, timeout=timeout)


# Fetching


@pytest.mark.parametrize("kind", ["good", "moved"])
def test_a_fetched_book_lies_in_the_cache_without_its_licence(cache, server, kind):
    path = fetch(cache, server.url(kind))[BOOK]
    assert path.read_text() == BODY.strip()
    assert "selfsup" in server.asked[0][1], "the request does not say who asks"


def test_a_book_in_the_cache_is_not_fetched_again(cache, server):
    address = [server.url("good")]
    first = list(find_books([BOOK, OTHER], addresses=address, pause=0))
    assert list(find_books([BOOK, OTHER], addresses=address, pause=0)) == first == [BODY.strip()] * 2
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("missing", "Not Found"),
        ("other", "The Ugly Swan"),
        ("cut", "cut short"),
        ("broken", "IncompleteRead|broke off"),
        ("short", "words"),
        ("latin", "UTF-8"),
        ("hang", "timed out"),
    ],
)
def test_what_is_not_the_whole_book_is_refused_and_nothing_is_kept(cache, server, kind, reason):
    with pytest.raises(BooksUnavailable, match=reason) as caught:
        fetch(cache, server.url(kind), timeout=0.3 if kind == "hang" else 5.0)
    assert "SELFSUP_BOOKS" in str(caught.value), "the error does not say what to do"
    assert "\n" not in str(caught.value)
    assert [path.name for path in cache.iterdir()] == ["README.txt"]


@pytest.mark.parametrize("kind", ["missing", "other", "cut", "broken", "hang"])
def test_the_next_address_is_tried(cache, server, kind):
    assert fetch(cache, server.url(kind), server.url("good"), timeout=0.5)[BOOK].read_text() == BODY.strip()


def test_a_book_fetched_before_an_error_stays(cache, server):
    with pytest.raises(BooksUnavailable, match=OTHER.title):
        fetch(cache, server.url("first"), books=(BOOK, OTHER))
    assert next(find_books([BOOK], addresses=())) == BODY.strip()


def test_requests_come_one_at_a_time_with_a_pause(cache, server, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    fetch(cache, server.url("missing"), server.url("good"), books=(BOOK, OTHER), pause=2.0)
    assert len(pauses) >= len(server.asked) - 1 and set(pauses) == {2.0}


def test_without_a_network_one_sentence_says_what_to_do(cache):
    start = time.monotonic()
    with pytest.raises(BooksUnavailable, match="SELFSUP_BOOKS") as caught:
        find_books([BOOK], addresses=["http://127.0.0.1:9/{0}"])
    assert "refused" in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("where", ["full disk", "read-only home"])
def test_a_cache_that_cannot_be_written_is_one_clear_line(cache, server, monkeypatch, tmp_path, where):
    if where == "full disk":

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    else:
        (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(BooksUnavailable, match="cannot be kept in .*XDG_CACHE_HOME") as caught:
        fetch(cache, server.url("good"))
    assert "\n" not in str(caught.value)
    assert not cache.is_dir() or not list(cache.iterdir()), "half a file was left behind"
    assert not server.asked, "the book was fetched before it was known where to keep it"


@pytest.mark.parametrize(
    "title", ["The Miller's Well", "The Miller\u2019s Well", "The Millers' Well: A Tale", "THE MILLER'S WELL"]
)
def test_a_title_may_differ_in_spelling_and_subtitle(title):
    assert check_book(BOOK, gutenberg_text(title)) == BODY.strip()


@pytest.mark.parametrize("title", ["The", "The Miller's Daughter", "The Second Well", "Well"])
def test_another_title_is_another_book(title):
    with pytest.raises(BooksUnavailable, match="should be"):
        check_book(BOOK, gutenberg_text(title))


@pytest.mark.parametrize("name", ["7001.txt", "07001-the-miller.txt", "pg7001.txt", "7001-0.txt"])
def test_a_folder_of_ones_own_needs_the_number_in_the_name(cache, tmp_path, name):
    (tmp_path / name).write_text(gutenberg_text(), encoding="utf-8")
    assert list(find_books([BOOK], tmp_path, addresses=())) == [BODY.strip()]


def test_of_the_files_of_one_book_the_one_in_utf_8_is_read(cache, tmp_path):
    text = gutenberg_text(body=BODY + " caf\u00e9")
    (tmp_path / "7001-0.txt").write_text(text, encoding="utf-8")
    (tmp_path / "7001-8.txt").write_text(text.removeprefix("\ufeff"), encoding="latin-1")
    (tmp_path / "7001.txt").write_text("in ASCII alone")
    assert next(find_books([BOOK], tmp_path, addresses=())).endswith("caf\u00e9")


def test_a_book_that_is_not_utf_8_is_named(cache, tmp_path):
    (tmp_path / "7001-latin.txt").write_text("caf\u00e9", encoding="latin-1")
    with pytest.raises(BooksUnavailable, match="7001-latin.txt is not UTF-8") as caught:
        list(find_books([BOOK], tmp_path, addresses=()))
    assert "\n" not in str(caught.value)


def test_without_addresses_nothing_is_fetched_and_no_cache_is_made(cache, folder):
    with pytest.raises(BooksUnavailable, match="2 of the 3 books are not at hand, first 7003, 'A'.*SELFSUP_BOOKS"):
        load_books(folder, books=[BOOK, Book(7003, "A", 1), Book(7004, "B", 1)], addresses=())
    assert not cache.exists()


def test_a_folder_that_is_not_there_is_named(cache, monkeypatch):
    monkeypatch.setenv("SELFSUP_BOOKS", "/nowhere/at/all")
    with pytest.raises(BooksUnavailable, match="/nowhere/at/all"):
        load_books()


@given(st.text(), st.text(), st.text())
def test_stripping_leaves_exactly_the_book(header, body, licence):
    body = re.sub(r"\r\n?", "\n", body).strip()
    header, licence = header.replace("*", ""), licence.replace("*", "")
    if "Project Gutenberg" in body or "*" in body:
        return
    whole = f"{header}\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n{body}\n"
    whole += f"*** END OF THE PROJECT GUTENBERG EBOOK X ***\n{licence}"
    assert strip_licence(whole) == body
    assert strip_licence(body) == body


# Cleaning and cutting


def test_the_furniture_of_a_book_goes_and_its_prose_stays():
    first, second = paragraphs(PROSE)
    assert first.startswith("Once upon a time") and first.endswith("old Mr. Brown.")
    assert "a very long rope\u2014so long" in second


@pytest.mark.parametrize(
    "furniture",
    [
        "CHAPTER IV",
        "Chapter Twenty Three",
        "XLI",
        "V. THE BROKEN POT.",
        "THE STORY OF THE AMULET",
        "Black Dog Appears",
        "* * * * *",
        "[From the German.]",
        "(1) Somebody, Popular Tales.",
        "THE END",
        "1 The Egg\n2 The Tower\n3 The Queen",
        "Produced by somebody and somebody else.",
    ],
)
def test_headings_lists_and_notes_are_no_prose(furniture):
    assert paragraphs(f"One day it rained.\n\n{furniture}\n\nThen it stopped.") == [
        "One day it rained.",
        "Then it stopped.",
    ]


@pytest.mark.parametrize(
    "prose",
    [
        "I walked along beside the sea, till, thinking\nI was now far enough, I took to the\nbushes.",
        "Part of the wall had fallen down.",
        '"GO AWAY!"',
        "The end of the story is not come yet.",
        '"Yes," said he,',
    ],
)
def test_prose_that_looks_like_furniture_stays(prose):
    assert paragraphs(prose) == [" ".join(prose.split())]


@pytest.mark.parametrize(
    "text, plain",
    [
        ("\u201cIt\u2019s late,\u201d he said.", '"It\'s late," he said.'),
        ("'It's late,' he said. 'Go home.'", '"It\'s late," he said. "Go home."'),
        (
            "'He said \"no\",' cried Ann. 'He did!' 'I know.'",
            '"He said "no"," cried Ann. "He did!" "I know."',
        ),
        ("She saw the page\n285\nand then the end.", "She saw the page and then the end."),
        ("'Tis the boys' house, and 'twas ever.", "'Tis the boys' house, and 'twas ever."),
        ("He wore a coracle [simple boat] on his head.(2)", "He wore a coracle on his head."),
        ("It was _very_ old--older than he.", "It was very old\u2014older than he."),
        ("She hoped\n\n'No!'\n\nin vain", '"No!"'),
        ("He waited . . . and waited.", "He waited ... and waited."),
    ],
)
def test_one_kind_of_quotation_mark_and_no_marks_of_the_printer(text, plain):
    assert paragraphs(text) == [plain]


@given(st.text())
def test_a_paragraph_is_one_line_of_letters_mostly(text):
    for paragraph in paragraphs(text):
        assert paragraph == " ".join(paragraph.split()) != ""
        assert not set(paragraph) & set("_*\u201c\u201d\u2018\u2019\ufeff")
        assert any(character.isalpha() for character in paragraph)


@pytest.mark.parametrize(
    "parts",
    [
        ["Mr. and Mrs. Fox met Dr. Owl.", "They bowed."],
        ['"Come here," he said.', '"I want you."'],
        ['"What is it?" asked the king.', "Nobody knew."],
        ['"Oh!" I said.', '"How odd!" Alice cried.', "She ran."],
        ["No.", "He would not."],
        ["It was No. 7 in the street.", "He knocked."],
        ["J. M. Barrie wrote it.", "So said I.", "You laughed."],
        ["Was it he?", "It was!", "Then he came..."],
    ],
)
def test_sentences_end_where_a_reader_would_end_them(parts):
    assert sentences(" ".join(parts)) == parts


LIKE_PROSE = st.lists(
    st.sampled_from(
        ["Mr.", "He", "said", '"Oh!"', "I", "no.", "No.", "7", "x?", "so!)", "'Tis", "A.", 'it."']
    )
).map(" ".join)


@given(st.text() | LIKE_PROSE)
@example('!" A0. A said')
@example('"Oh!" I. Said said')
def test_cutting_into_sentences_loses_nothing(text):
    found = sentences(text)
    assert " ".join(found) == " ".join(text.split())
    assert all(sentences(sentence) == [sentence] for sentence in found), "a sentence can be cut again"


@given(st.lists(st.integers(0, 9), min_size=1, max_size=400), st.lists(st.integers(0, 9), max_size=3))
def test_long_sentences_are_cut_into_parts_that_fit(ids, marks):
    parts = list(_cut(ids, marks))
    assert [i for part in parts for i in part] == ids
    assert all(0 < len(part) <= MAX_PIECES for part in parts)


@given(st.lists(st.integers(1, MAX_PIECES), max_size=200), st.integers(0, 9))
def test_examples_cover_the_book_once_in_order_and_fit(lengths, seed):
    spans = mixture(np.array(lengths, np.uint8), np.random.default_rng(seed))
    assert [i for first, last in spans for i in range(first, last)] == list(range(len(lengths)))
    assert all(sum(lengths[first:last]) <= MAX_PIECES for first, last in spans)


# The corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one book to train on and one, with words of its own, to hold out."""
    folder = tmp_path_factory.mktemp("books")
    (folder / "7001.txt").write_text(BODY)
    (folder / "7002.txt").write_text(BODY.replace("miller", "zyzzogeton"))
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    return load_books(folder, books=[BOOK, OTHER], vocab_size=200)


def test_a_book_held_out_teaches_neither_model_nor_tokenizer(corpus):
    assert len(corpus.train) and len(corpus.held_out)
    everything = corpus.tokenizer.decode(corpus.train.tokens.tolist())
    assert "miller" in everything and "zyzzogeton" not in everything
    assert "miller" in corpus.tokenizer.get_vocab()
    assert not any("zyzz" in piece for piece in corpus.tokenizer.get_vocab())


def test_examples_hold_no_special_tokens_and_fit_between_cls_and_sep(corpus):
    for texts in (corpus.train, corpus.held_out):
        assert texts.tokens.dtype == np.int32 and texts.offsets.dtype == np.int64
        assert texts.tokens.min() > 0 and not np.isin(texts.tokens, [0, 2, 3, 4]).any()
        assert texts.lengths.min() > 0 and texts.lengths.max() <= MAX_PIECES


def test_single_sentences_stand_beside_blocks(corpus):
    decoded = {corpus.tokenizer.decode(corpus.train[i]) for i in range(len(corpus.train))}
    assert {"it was long.", "it was long"} & decoded or any(len(text.split()) < 14 for text in decoded)
    assert corpus.train.lengths.max() > MAX_PIECES - 16


def test_quotation_marks_that_open_nothing_go():
    tokenizer = word_level(['"', "come", "here", ".", "i", "want", "you"])
    found = sentences('"Come here, come here. I want you, you, you."'.replace(",", ""))
    ids = [tokenizer(sentence, add_special_tokens=False)["input_ids"] for sentence in found]
    lengths = np.array([len(sentence) for sentence in ids], np.uint8)
    one = np.array([1])
    parts = Sentences(np.concatenate(ids).astype(np.uint16), lengths, 2 * one, one, one < 0)
    for seed in range(20):
        texts = _examples(parts, tokenizer, np.random.default_rng(seed), held_out=False)
        for i in range(len(texts)):
            assert (texts[i] == tokenizer.get_vocab()['"']).sum() % 2 == 0


def test_equal_seeds_give_equal_examples_and_the_held_out_ones_never_change(folder, corpus):
    again, other = (load_books(folder, books=[BOOK, OTHER], vocab_size=200, seed=seed) for seed in (0, 1))
    assert np.array_equal(again.train.tokens, corpus.train.tokens)
    assert not np.array_equal(other.train.offsets, corpus.train.offsets)
    assert np.array_equal(other.held_out.tokens, corpus.held_out.tokens)


def test_a_prepared_file_gives_the_same_corpus(folder, corpus, tmp_path, monkeypatch):
    path = tmp_path / "books.npz"
    save_prepared(path, *prepare(folder, books=[BOOK, OTHER], vocab_size=200))
    monkeypatch.setenv("SELFSUP_BOOKS", str(path))
    for read in (load_books(prepared=path), load_books()):
        assert np.array_equal(read.train.tokens, corpus.train.tokens)
        assert np.array_equal(read.held_out.offsets, corpus.held_out.offsets)
        assert read.tokenizer.get_vocab() == corpus.tokenizer.get_vocab()
        assert dict(read.tokenizer("a well [MASK]", "a")) == dict(corpus.tokenizer("a well [MASK]", "a"))
        assert read.tokenizer.mask_token_id == 4


def test_a_damaged_prepared_file_is_one_clear_line(folder, tmp_path):
    path = tmp_path / "books.npz"
    save_prepared(path, *prepare(folder, books=[BOOK, OTHER], vocab_size=200))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole file") as caught:
        load_books(prepared=path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="there is no file"):
        load_books(prepared=tmp_path / "nothing.npz")


def test_the_list_of_books_is_the_one_recorded():
    assert len(BOOKS) == len({book.number for book in BOOKS}) == 63
    assert sum(book.words for book in BOOKS) > 4_600_000
    held_out = [book for book in BOOKS if book.held_out]
    assert [book.number for book in held_out] == [113, 215, 486, 902, 3454]
    assert sum(book.words for book in held_out) > 0.05 * sum(book.words for book in BOOKS)


@pytest.mark.skipif(not os.path.isdir(REAL), reason="SELFSUP_BOOKS names no folder")
def test_the_real_books_come_out_clean():
    some = [book for book in BOOKS if book.number in (11, 16, 120, 503, 902)]
    for book, text in zip(some, find_books(some, REAL, addresses=()), strict=True):
        assert abs(len(text.split()) - book.words) < gutenberg.TOLERANCE * book.words
        prose = paragraphs(text)
        assert sum(len(paragraph.split()) for paragraph in prose) > 0.97 * book.words
        assert not re.search(r"[_*\[\]]|Gutenberg|CHAPTER|Illustration", " ".join(prose))
        lengths = [len(sentence.split()) for paragraph in prose for sentence in sentences(paragraph)]
        assert 8 < np.mean(lengths) < 35


# The cloze test


def test_each_sentence_hides_one_word_and_accepts_plain_words():
    items = cloze()
    assert len(items) >= 80 and len({item.sentence for item in items}) == len(items)
    for item in items:
        assert item.sentence.count("[MASK]") == 1, item.sentence
        assert item.answers and all(re.fullmatch("[a-z]+", answer) for answer in item.answers), item.sentence
    assert min(sum(i.category == item.category for i in items) for item in items) >= 10


class Reader(torch.nn.Module):
    """Fills in each [MASK] of the test with its answer, or with `wrong`; wrapped: as transformers does."""

    def __init__(self, tokenizer, wrong=None, wrapped=False):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(50.0))
        self.answers = {
            tuple(tokenizer(item.sentence)["input_ids"]): tokenizer.get_vocab()[wrong or item.answers[0]]
            for item in cloze()
        }
        self.size, self.wrapped = len(tokenizer), wrapped

    def forward(self, input_ids, attention_mask=None):
        logits = torch.zeros(*input_ids.shape, self.size)
        logits[..., self.answers[tuple(input_ids[0].tolist())]] = self.scale
        return SimpleNamespace(logits=logits) if self.wrapped else logits


@pytest.fixture(scope="module")
def words():
    text = " ".join(
        [item.sentence.replace("[MASK]", " ") + " ".join(("", *item.answers)) for item in cloze()]
    )
    return word_level(sorted(set(re.findall("[a-z]+", text.lower()))))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_perfect_reader_gets_everything_right(words, wrapped):
    model = Reader(words, wrapped=wrapped).train()
    table = cloze_accuracy(model, words)
    assert model.training, "the model was left in another mode"
    assert table[-1]["category"] == "all" and table[-1]["n"] == len(cloze())
    assert sum(row["n"] for row in table[:-1]) == len(cloze())
    for row in table:
        assert row["top1"] == row["top5"] == 1 and row["probability"] == pytest.approx(1, abs=1e-3)


def test_a_reader_who_says_the_same_word_always_is_mostly_wrong(words):
    row = cloze_accuracy(Reader(words, wrong="king"), words)[-1]
    assert row["top1"] < 0.05 and row["probability"] < 0.05


def test_a_tokenizer_without_the_answers_is_refused():
    with pytest.raises(ValueError, match="English"):
        cloze_accuracy(torch.nn.Linear(1, 1), word_level(["a"]))


@pytest.mark.skipif(not os.path.isdir(REAL), reason="SELFSUP_BOOKS names no folder")
def test_no_sentence_is_taken_from_a_book_held_out():
    held_out = [book for book in BOOKS if book.held_out]
    text = " ".join(find_books(held_out, REAL, addresses=())).lower()
    seen = set(zip(*(re.findall("[a-z]+", text)[i:] for i in range(8)), strict=False))
    for item in cloze():
        for part in item.sentence.lower().split("[mask]"):
            found = re.findall("[a-z]+", part)
            assert not seen & set(zip(*(found[i:] for i in range(8)), strict=False)), item.sentence
