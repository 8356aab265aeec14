"""From a printed book to plain sentences: furniture away, one kind of quotation mark, cut at full stops."""

from __future__ import annotations

import re
import unicodedata

# Quotation marks, dashes and dots of all kinds; what only marked italics or drew lines goes.
_CHARACTERS = str.maketrans(
    {mark: "'" for mark in "\u2018\u2019`\u00b4"}
    | {mark: '"' for mark in "\u201c\u201d"}
    | {mark: "--" for mark in "\u2013\u2014\u2015"}
    | {mark: None for mark in "\ufeff_=~^{}|"}
    | {"\u2026": "...", "\u00a0": " "}
)
_BRACKETS = re.compile(r"\[[^\[\]]{0,600}\]")  # pictures, notes and glosses of the editors
_NOTE_MARKS = re.compile(r"\(\d{1,3}\)|\*+|(?<=[^\W\d])\d{1,2}(?=\W|$)")
_NOTE = re.compile(r"\(\d{1,3}\) |\[?(?:Footnote|Illustration|Transcriber|Note:)|\* \w")
_NUMBER = (
    r"(?:[ivxlc]+|\d+|(?:the )?(?:first|second|third|fifth|last|one|two|three|five|ten|eleven|twelve|twenty"
    r"|thirty|forty|(?:thir|four|fif|six|seven|eigh|eight|nine)(?:teen)?(?:th)?))"
)
_CHAPTER = re.compile(rf"(?:chapter|stave|book|part|canto|volume|vol\.)\s+{_NUMBER}\b", re.IGNORECASE)
_CREDITS = re.compile(r"Produced by|E-?text prepared|This etext was|THE END\W*$|\*\*\* ", re.IGNORECASE)
_ENTRY = re.compile(r"\s\d{1,3}$|^(?:[IVXLC]+\.|[IVXLC]{2,}|\d+\.?)\s")  # of a table of contents
_POINTS = re.compile(r"[\s\"'.,:;!?()\u2014-]+")
_ENDS = re.compile(r"[.!?:;,\-]['\")]*$|[\"']$")

_SHORTENED = "tis twas twere twill em im er til till bout cause stute"
_OPENS = rf"(?<!\w)'(?!(?i:{_SHORTENED.replace(' ', '|')})\b)"
_SINGLE_QUOTED = re.compile(rf"{_OPENS}(?=\S)")
_SINGLE_CLOSED = re.compile(r"(?<=[.,!?;\-])'(?!\w)")
_SINGLE_WORDS = re.compile(rf"{_OPENS}(\w[^'\"]{{0,40}}\w)'(?!\w)")

_ABBREVIATIONS = "mr mrs dr st messrs mme mlle prof capt col gen lieut sergt rev hon jr esq vol viz e.g i.e"
_STOP = re.compile(r"(?P<stop>[.!?]+)(?P<quote>[\"')]*)\s+(?=[\"'(]*[A-Z0-9])")
_LAST_WORD = re.compile(r"[\w.]*$")
_SPEECH = (
    "said say says cried asked replied answered exclaimed shouted thought whispered called begged "
    "returned growled demanded inquired continued remarked observed added repeated laughed sobbed"
)
# "Oh!" Alice said: the sentence goes on after the closing quotation mark.
_TITLE = rf"(?:[A-HJ-Z]|(?i:{'|'.join(_ABBREVIATIONS.split())}))\."
_NAME = r"[A-Z][\w'-]*"
_SPEECH_TAG = re.compile(rf"(?:I|(?:(?:{_TITLE}|{_NAME}) ){{0,2}}{_NAME}) (?:{'|'.join(_SPEECH.split())})\b")


def paragraphs(book: str) -> list[str]:
    """The prose of a book, one string a paragraph: no headings, tables of contents, pictures or notes.

    Curly and single quotation marks become ", dashes an em dash, and every run of blanks one blank.
    """
    text = unicodedata.normalize("NFC", book).replace("\r\n", "\n").replace("\r", "\n")
    plain = text.translate(_CHARACTERS)
    british = len(_SINGLE_QUOTED.findall(plain)) > plain.count('"')  # 'He said "no",' she said.
    found = []
    for block in re.split(r"\n[ \t]*\n", text):
        lines = [line.strip() for line in block.split("\n") if line.strip() and not line.strip().isdecimal()]
        if not lines or _is_furniture(lines):
            continue
        paragraph = _plain(" ".join(lines), british)
        bare = _POINTS.sub("", paragraph)
        if sum(character.isalpha() for character in bare) > 0.6 * len(bare):
            found.append(paragraph)
    return found


def sentences(paragraph: str) -> list[str]:
    """Cut a paragraph after each full stop, question or exclamation mark that ends a sentence.

    Joined with blanks, the sentences are the paragraph again (its runs of blanks made one).
    """
    paragraph = " ".join(paragraph.split())
    found, start = [], 0
    for match in _STOP.finditer(paragraph):
        if _goes_on(paragraph, start, match):
            continue
        found.append(paragraph[start : match.end("quote")])
        start = match.end()
    return [*found, paragraph[start:]] if start < len(paragraph) else found


def _goes_on(paragraph: str, start: int, match: re.Match) -> bool:
    """Whether the sentence that begins at `start` goes on after the mark that `match` found."""
    after = match.end()
    if match["stop"] == ".":
        word = _LAST_WORD.search(paragraph, start, match.start())[0]
        if word.lower() == "no":
            return paragraph[after].isdigit()
        initial = len(word) == 1 and word.isupper() and word != "I"
        return initial or word.lower() in _ABBREVIATIONS.split()
    return bool(match["quote"]) and _SPEECH_TAG.match(paragraph, after) is not None


def _is_furniture(lines: list[str]) -> bool:
    """Whether these lines are a heading, a list, a note or a caption rather than prose."""
    text = " ".join(lines)
    words = text.split()
    if _NOTE.match(text) or _CREDITS.match(text):
        return True
    if _CHAPTER.match(text) and len(words) <= 40:
        return True
    if not any(character.islower() for character in text):  # capitals: a heading, unless somebody shouts
        return not any(mark in text for mark in "\"'\u201c\u2018!?")
    if len(words) <= 12 and not _ends(text):
        return True
    # Tables of contents: short lines without an end, each beginning anew.
    entries = [line for line in lines if len(line) < 64 and not _ends(line)]
    begins = [line for line in lines if not line[0].islower()]
    numbered = [line for line in lines if _ENTRY.search(line)]
    return len(lines) > 2 and (
        len(numbered) > 0.6 * len(lines) or min(len(entries), len(begins)) > 0.8 * len(lines)
    )


def _ends(text: str) -> bool:
    """Whether a text ends in a mark of punctuation, notes aside."""
    return bool(_ENDS.search(_without_notes(text.translate(_CHARACTERS)).rstrip()))


def _without_notes(text: str) -> str:
    return _NOTE_MARKS.sub("", _BRACKETS.sub("", text))


def _plain(text: str, british: bool) -> str:
    """One paragraph in plain characters; british: single quotation marks enclose what is said."""
    text = text.translate(_CHARACTERS)
    text = _without_notes(text).replace("[", "").replace("]", "").replace("''", '"')
    text = re.sub(r"\. \. ?\.(?: ?\.)*", "...", text)
    text = re.sub(r"(?<=\w)- (?=\w)", "-", text)  # a word broken at its hyphen
    if british or '"' not in text:
        text = _SINGLE_WORDS.sub(r'"\1"', text)
        if _SINGLE_CLOSED.search(text) or text.startswith("'"):
            text = _SINGLE_CLOSED.sub('"', _SINGLE_QUOTED.sub('"', text))
    text = re.sub(r"\s*-{2,}\s*", "\u2014", text)
    return " ".join(text.split())
