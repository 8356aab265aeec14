"""The books' texts: in a folder, in the cache, or fetched from Project Gutenberg, whole or not at all."""

from __future__ import annotations

import csv
import difflib
import http.client
import os
import re
import sys
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfsup.tokenization import write_atomically

# {0} is the book's number: the main site's two addresses, then a mirror that the project itself runs.
ADDRESSES = (
    "https://www.gutenberg.org/cache/epub/{0}/pg{0}.txt",
    "https://www.gutenberg.org/files/{0}/{0}-0.txt",
    "https://aleph.pglaf.org/cache/epub/{0}/pg{0}.txt",
)
PAUSE = 2.0  # seconds between two requests: what the site asks of programs
USER_AGENT = "selfsup-course/0.1 (fetches 63 books once, one at a time)"
LARGEST = 8_000_000  # bytes; the longest of the books has 1.6 million
TOLERANCE = 0.15  # of the length in words: editions are corrected now and then

_START = re.compile(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*$", re.IGNORECASE | re.MULTILINE)
_END = re.compile(
    r"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the |this )?Project Gutenberg)",
    re.IGNORECASE | re.MULTILINE,
)
_TITLE = re.compile(r"^Title:[ \t]*(.+(?:\n[ \t]+\S.*)*)", re.MULTILINE)


class BooksUnavailable(ValueError):
    """A book can be neither found nor fetched, or what was found is not that book."""


@dataclass(frozen=True)
class Book:
    """A book of Project Gutenberg; words: its length without licence; held_out: never trained on."""

    number: int
    title: str
    words: int
    held_out: bool = False


def _sources() -> tuple[Book, ...]:
    with open(Path(__file__).with_name("sources.csv"), encoding="utf-8", newline="") as file:
        return tuple(
            Book(int(row["number"]), row["title"], int(row["words"]), row["held_out"] == "1")
            for row in csv.DictReader(file)
        )


BOOKS = _sources()


def cache_folder() -> Path:
    """Where fetched books are kept: $XDG_CACHE_HOME/selfsup/books, and what each system uses without it."""
    base = os.environ.get("XDG_CACHE_HOME")
    if not base and sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    if not base:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(base) / "selfsup" / "books"


def find_books(
    books: Sequence[Book] = BOOKS,
    folder: str | Path | None = None,
    *,
    addresses: Sequence[str] = ADDRESSES,
    pause: float = PAUSE,
    timeout: float = 10.0,
) -> Iterator[str]:
    """The text of each book without header and licence, from a folder or the cache, fetched if need be.

    folder: where plain texts lie as NUMBER.txt, NUMBER-any-title.txt or pgNUMBER.txt, with or without leading
    zeros; otherwise the folder that SELFSUP_BOOKS names. Of Project Gutenberg's own names, NUMBER-0.txt (UTF-8)
    comes first and NUMBER-8.txt (Latin-1) is passed over. A book that is not there comes from the cache, or from
    `addresses` into the cache; without addresses nothing is fetched. Raises BooksUnavailable, in one sentence.
    """
    folder = folder or os.environ.get("SELFSUP_BOOKS") or None
    if folder is not None and not Path(folder).is_dir():
        raise BooksUnavailable(f"{folder} is not a folder: name the books' folder, or unset SELFSUP_BOOKS")
    own = _by_number(Path(folder)) if folder is not None else {}
    cache = cache_folder()
    kept = _by_number(cache) if cache.is_dir() else {}
    paths = {book: own.get(book.number) or kept.get(book.number) for book in books}
    missing = [book for book, path in paths.items() if path is None]
    if missing and not addresses:
        raise BooksUnavailable(
            f"{len(missing)} of the {len(books)} books are not at hand, first {missing[0].number}, "
            f"{missing[0].title!r}: set SELFSUP_BOOKS to a folder that has their texts"
        )
    if missing:
        paths |= fetch_books(missing, cache, addresses=addresses, pause=pause, timeout=timeout)
    return (strip_licence(_read(paths[book])) for book in books)


def _by_number(folder: Path) -> dict[int, Path]:
    """The texts in a folder by their number; -0 says UTF-8 and comes before all others, -8 says Latin-1."""
    name = re.compile(r"(?:pg)?0*(\d+)(?:-(?!8$).*)?")
    paths = sorted(folder.glob("*.txt"), key=lambda path: (path.stem.endswith("-0"), path))
    return {int(match[1]): path for path in paths if (match := name.fullmatch(path.stem))}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BooksUnavailable(f"{path} is not UTF-8 text: save it as UTF-8, or remove it") from None


def strip_licence(text: str) -> str:
    """The book alone: what stands between Project Gutenberg's START and END lines, or all without them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if start := _START.search(text):
        text = text[start.end() :]
    if end := _END.search(text):
        text = text[: end.start()]
    return text.strip()


def check_book(book: Book, text: str) -> str:
    """The text of `book` in a file of Project Gutenberg; BooksUnavailable if it is another or not whole."""
    title = _TITLE.search(text)
    if title is None or not _same_title(book.title, title[1]):
        found = " ".join(title[1].split()) if title else "no title at all"
        raise BooksUnavailable(f"book {book.number} should be {book.title!r} and is {found!r}")
    if not _START.search(text) or not _END.search(text):
        raise BooksUnavailable(f"book {book.number}, {book.title!r}, is cut short")
    stripped = strip_licence(text)
    words = len(stripped.split())
    if abs(words - book.words) > TOLERANCE * book.words:
        raise BooksUnavailable(f"book {book.number}, {book.title!r}, has {words} words, not {book.words}")
    return stripped


def _same_title(expected: str, found: str) -> bool:
    expected, found = _letters(expected), _letters(found)
    if not expected or not found:
        return False
    if found.startswith(expected) or (expected.startswith(found) and len(found) > 0.5 * len(expected)):
        return True  # a subtitle more or less
    return difflib.SequenceMatcher(None, expected, found, autojunk=False).ratio() > 0.9


def _letters(title: str) -> str:
    title = unicodedata.normalize("NFKD", title).casefold().replace("doctor", "dr")
    return "".join(character for character in title if character.isalnum())


def fetch_books(
    books: Sequence[Book],
    cache: Path,
    *,
    addresses: Sequence[str] = ADDRESSES,
    pause: float = PAUSE,
    timeout: float = 10.0,
) -> dict[Book, Path]:
    """Fetch the books into `cache`, one request at a time, `pause` seconds apart; returns where each lies.

    Each text is checked and then written whole under its name; what was fetched before an error stays.
    timeout: seconds without an answer. Raises BooksUnavailable.
    """
    from tqdm.auto import tqdm

    paths = {}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(cache / "README.txt", b"Books fetched from Project Gutenberg; safe to delete.\n")
        with tqdm(books, desc="Project Gutenberg", unit=" books", leave=False) as progress:
            for book in progress:
                text = _fetch(book, addresses, pause, timeout)
                path = cache / f"{book.number:05d}.txt"
                write_atomically(path, text.encode())
                paths[book] = path
    except OSError as error:
        raise BooksUnavailable(
            f"the books cannot be kept in {cache} ({error.strerror}): make room, set XDG_CACHE_HOME to a "
            "folder that can be written, or set SELFSUP_BOOKS to a folder that has the texts"
        ) from None
    return paths


def _fetch(book: Book, addresses: Sequence[str], pause: float, timeout: float) -> str:
    """The checked text of a book from the first address that has it."""
    reason = "no address was given"
    for address in addresses:
        try:
            return check_book(book, _download(address.format(book.number), timeout, pause))
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}"
            time.sleep(pause)
        except urllib.error.URLError as error:  # nobody was reached, so nobody needs a pause
            reason = str(error.reason)
        except (BooksUnavailable, OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
    raise BooksUnavailable(
        f"{book.title!r} could not be fetched from Project Gutenberg ({reason}): try again with a network, "
        "or set SELFSUP_BOOKS to a folder with the books as plain text, named by number as in 00011-alice.txt"
    )


def _download(address: str, timeout: float, pause: float) -> str:
    request = urllib.request.Request(address, headers={"User-Agent": USER_AGENT})
    limit = time.monotonic() + 10 * timeout  # for an answer that trickles
    data = bytearray()
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        expected = answer.headers.get("Content-Length")
        while chunk := answer.read1(1 << 16):
            data += chunk
            if len(data) > LARGEST:
                raise BooksUnavailable(f"{address} sent more than {LARGEST} bytes")
            if time.monotonic() > limit:
                raise BooksUnavailable(f"{address} takes too long")
    time.sleep(pause)
    if expected is not None and len(data) < int(expected):
        raise BooksUnavailable(f"{address} broke off after {len(data)} of {expected} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BooksUnavailable(f"{address} is not UTF-8 text") from None
