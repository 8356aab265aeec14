"""Tinyworld: a small English whose exact truth is known.

lexicon.toml and grammar.txt are the source; `grammar` compiles them; `automaton` answers exactly; `language` draws
texts and asks; `floors` says how well the best possible model can do.
"""

from .automaton import Impossible
from .corpus import load_corpus
from .floors import masking_floor, next_token_floor, nsp_accuracy, sop_accuracy
from .grammar import GrammarError, compile_language
from .language import MASK, Document, Language, load
from .pairs import Pairs

__all__ = [
    "MASK",
    "Document",
    "GrammarError",
    "Impossible",
    "Language",
    "Pairs",
    "compile_language",
    "load",
    "load_corpus",
    "masking_floor",
    "next_token_floor",
    "nsp_accuracy",
    "sop_accuracy",
]
