"""From the readable grammar to a weighted automaton with registers.

A schema is a regular expression over tokens, so it becomes one emitting state per token place and weighted edges
between them (Glushkov, 1961). What is chosen once per document or once per sentence is not multiplied out: it sits
in *registers*, which a state may read and an edge may test (a guard). The result is one plain dictionary that
Python and JavaScript both read; `Automaton` says what its fields mean.
"""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
WHOLE, RUN = (
    0.5,
    0.1,
)  # share of texts that begin with the document; chance that a text is cut after a sentence
TOKEN = re.compile(r"\{[^}]*\}|[()|]|[^\s()|]+")
Guard = tuple[tuple[int, int], ...]  # ((register, bit mask of the values that pass), ...)


class GrammarError(ValueError):
    """The lexicon or the grammar is wrong: the message says where and what was expected."""


@dataclass
class Fragment:
    """A piece of automaton: ways in, ways out, and ways of saying nothing, each with a weight and a guard."""

    first: list[tuple[int, float, Guard]] = field(default_factory=list)
    last: list[tuple[int, float, Guard]] = field(default_factory=list)
    empty: list[tuple[float, Guard]] = field(default_factory=list)


def both(a: Guard, b: Guard) -> Guard | None:
    """The guard that passes where `a` and `b` both pass, or None when nothing does."""
    masks = dict(a)
    for register, mask in b:
        masks[register] = masks.get(register, mask) & mask
        if not masks[register]:
            return None
    return tuple(sorted(masks.items()))


def chain(lefts: list[tuple], rights: list[tuple]) -> list[tuple[tuple, tuple, float, Guard]]:
    """Every left with every right: (left, right, product of the weights, both guards)."""
    pairs = []
    for left in lefts:
        for right in rights:
            guard = both(left[-1], right[-1])
            if guard is not None:
                pairs.append((left, right, left[-2] * right[-2], guard))
    return pairs


class Compiler:
    """Compiles one size and dialect of the grammar; `compile_language` is the way in."""

    def __init__(self, lexicon: dict, grammar: str, size: str = "world", dialect: int = 0, zipf: float = 0.7):
        self.size, self.dialect = size, dialect
        self.cut = lexicon["village"] if size == "village" else {}
        self.lexicon, self.zipf = lexicon, zipf
        self.macros: dict[str, list[str]] = {}
        self.tags = {word: tag for tag, words in lexicon["pos"].items() for word in words.split()}
        self.registers, self.classes, self.rows, self.lists = [], [], [], {}
        self.views, self.distributions = {}, {}
        self.states: list[dict] = []
        self.edges: list[tuple[int, int, float, Guard]] = []
        self.topics: list[dict] = []
        self.seen: set[str] = set()
        self._read_lexicon(random.Random(dialect))
        self._read_grammar(grammar)

    # The lexicon: lists, and registers with their values; a dialect other than 0 shuffles them.

    def _read_lexicon(self, rng: random.Random) -> None:
        for name, words in self.lexicon["lists"].items():
            self.lists[name] = self._shuffled(words, rng)[: self.cut.get("words")]
        for name, spec in self.lexicon["registers"].items():
            if "rows" in spec:
                rows = [dict(row) for row in spec["rows"]]
                for column in spec.get("permute", []):
                    for row, value in zip(rows, self._shuffled([row[column] for row in rows], rng)):
                        row[column] = value
                values = [(row.get("class", "one"), row["name"]) for row in rows[: self.cut.get("rows")]]
                weights, classes = [1.0] * len(values), [c for c, _ in values]
            else:
                values, weights, rows = [], [], []
                for group, names in spec["values"].items():
                    pool = self._shuffled(names + spec.get("reserve", {}).get(group, []), rng)
                    chosen = pool[: len(names)][: self.cut.get("names")]
                    values += [(group, value) for value in chosen]
                    weights += [spec.get("weights", {}).get(group, 1.0) / len(chosen)] * len(chosen)
                classes = [c for c, _ in values]
            total = sum(weights)
            self.registers.append(
                {
                    "name": name,
                    "scope": spec["scope"],
                    "values": [v for _, v in values],
                    "classes": classes,
                    "number": [spec.get("number", {}).get(c, "one") for c in classes],
                    "prior": [w / total for w in weights],
                    "columns": {c: [row[c] for row in rows[: len(values)]] for c in spec.get("permute", [])},
                }
            )
            self.rows.append(rows)

    def _shuffled(self, items: list, rng: random.Random) -> list:
        items = list(items)
        if self.dialect:
            rng.shuffle(items)
        return items

    def _register(self, name: str) -> int:
        for index, register in enumerate(self.registers):
            if register["name"] == name:
                return index
        raise GrammarError(
            f"there is no register {name!r}: the lexicon has {[r['name'] for r in self.registers]}"
        )

    def _distribution(self, words: list[str]) -> int:
        """The index of the distribution over `words`, whose weights fall with rank."""
        weights = [(rank + 2) ** -self.zipf for rank in range(len(words))]
        total = sum(weights)
        self.seen.update(words)
        key = tuple((word, weight / total) for word, weight in zip(words, weights))
        return self.distributions.setdefault(key, len(self.distributions))

    def _view(self, register: int, distributions: list[int]) -> int:
        return self.views.setdefault((register, tuple(distributions)), len(self.views))

    # One token place is one state.

    def _state(self, item: str) -> dict:
        if item.startswith("<"):
            name, _, tag = item[1:].partition(">")
            if name not in self.lists:
                raise GrammarError(f"there is no list {name!r} in the lexicon")
            tags = {tag[1:]} if tag else {self.tags.get(word, "none") for word in self.lists[name]}
            if len(tags) > 1:
                raise GrammarError(f"the words of {item} have different tags, {sorted(tags)}: write <{name}>/TAG")
            return {"distribution": self._distribution(self.lists[name])} | ({"pos": tag[1:]} if tag else {})
        if item.startswith("{"):
            return self._register_state(item[1:-1])
        word, agrees = (item.split("^") + [None])[:2] if len(item) > 1 else (item, None)
        word, label = (word.split("@") + [None])[:2] if len(word) > 1 else (word, None)
        word, sense = (word.split("#") + [None])[:2] if len(word) > 1 else (word, None)
        word, tag = (word.split("/") + [None])[:2] if len(word) > 1 else (word, None)
        state = {
            "distribution": self._distribution([word]),
            "pos": tag,
            "sense": sense,
            "label": label,
            "agrees": agrees,
        }
        return {key: value for key, value in state.items() if value is not None}

    def _register_state(self, item: str) -> dict:
        inline = re.fullmatch(r"(\w+):([^/]+)/(.+)", item)
        name, _, view = item.partition(".")
        index = self._register(inline[1] if inline else name)
        register, spec = self.registers[index], self.lexicon["registers"][inline[1] if inline else name]
        count = range(len(register["values"]))
        if inline:
            words = [[inline[2] if register["number"][v] == "one" else inline[3]] for v in count]
        elif not view or (view == "name" and not self.rows[index]):
            words = [[value] for value in register["values"]]
        elif view in spec.get("views", {}):
            words = [[spec["views"][view][register["classes"][v]]] for v in count]
        elif view in spec.get("lists", {}):
            words = [spec["lists"][view][register["classes"][v]][: self.cut.get("words")] for v in count]
        elif self.rows[index] and view in self.rows[index][0]:
            words = [[self.rows[index][v][view]] for v in count]
        else:
            raise GrammarError(f"register {name!r} has no view {view!r}")
        state = {"view": self._view(index, [self._distribution(options) for options in words])}
        return state | ({"agrees": inline[1], "pos": self.tags.get(inline[2])} if inline else {})

    # Expressions.

    def _split(self, text: str) -> list[str]:
        items = []
        for item in TOKEN.findall(text):
            if item.startswith("$"):
                if item not in self.macros:
                    raise GrammarError(f"the macro {item} is used before it is defined")
                items += ["(", *self.macros[item], ")"]
            else:
                items.append(item)
        return items

    def _alternatives(self, items: list[str]) -> Fragment:
        """items: a | b | c, up to the closing parenthesis, which is taken off."""
        branches = [[]]
        depth = 0
        while items:
            item = items.pop(0)
            depth += (item == "(") - (item == ")")
            if depth < 0:
                break
            if item == "|" and depth == 0:
                branches.append([])
            else:
                branches[-1].append(item)
        return self._choose(branches)

    def _choose(self, branches: list[list[str]], compile_branch=None) -> Fragment:
        """One of the branches; those whose guards fail lend their weight to the others."""
        parsed = []
        for branch in branches:
            weight, guard = 1.0, None
            if branch and re.fullmatch(r"[\d.]+:", branch[0]):
                weight, branch = float(branch[0][:-1]), branch[1:]
            if branch and branch[0].startswith("{") and "=" in branch[0]:
                guard, branch = self._guard(branch[0][1:-1]), branch[1:]
            parsed.append((weight, guard, branch))
        tested = {guard[0] for _, guard, _ in parsed if guard}
        if len(tested) > 1:
            raise GrammarError(f"the guards of one choice must test one register: {branches}")
        whole = Fragment()
        for weight, guard, branch in parsed:
            fragment = (compile_branch or self._sequence)(branch)
            whole.last += fragment.last
            for share, condition in self._shares(weight, guard, parsed, tested):
                whole.first += [
                    (right[0], w, g) for _, right, w, g in chain([(share, condition)], fragment.first)
                ]
                whole.empty += [(w, g) for _, _, w, g in chain([(share, condition)], fragment.empty)]
        return whole

    def _guard(self, text: str) -> tuple[int, int]:
        name, _, wanted = text.partition("=")
        index = self._register(name)
        register, wanted = self.registers[index], wanted.split(",")
        mask = 0
        for v, value in enumerate(register["values"]):
            if {value, register["classes"][v], register["number"][v]} & set(wanted):
                mask |= 1 << v
        return index, mask

    def _shares(self, weight: float, guard, parsed, tested) -> list[tuple[float, Guard]]:
        """The branch's probability, as a list of (share, guard) with disjoint guards."""
        if not tested:
            return [(weight / sum(w for w, _, _ in parsed), ())]
        (index,) = tested
        shares: dict[float, int] = {}
        for v in range(len(self.registers[index]["values"])):
            total = sum(w for w, g, _ in parsed if g is None or g[1] >> v & 1)
            if not total:
                value = self.registers[index]["values"][v]
                raise GrammarError(
                    f"no branch is left when {self.registers[index]['name']} is {value}: {parsed}"
                )
            if guard is None or guard[1] >> v & 1:
                shares[weight / total] = shares.get(weight / total, 0) | 1 << v
        every = (1 << len(self.registers[index]["values"])) - 1
        return [(share, () if mask == every else ((index, mask),)) for share, mask in shares.items()]

    def _sequence(self, items: list[str]) -> Fragment:
        whole, items = Fragment(empty=[(1.0, ())]), list(items)
        while items:
            item = items.pop(0)
            if item == "(":
                part = self._alternatives(items)
            elif item.startswith("{") and "=" in item:
                raise GrammarError(f"a guard stands at the start of an alternative, not here: {item}")
            else:
                part = self._single(self._state(item))
            whole = self._join(whole, part)
        return whole

    def _single(self, state: dict) -> Fragment:
        self.states.append(state)
        place = (len(self.states) - 1, 1.0, ())
        return Fragment(first=[place], last=[place])

    def _join(self, a: Fragment, b: Fragment) -> Fragment:
        self.edges += [(left[0], right[0], w, g) for left, right, w, g in chain(a.last, b.first)]
        return Fragment(
            first=a.first + [(right[0], w, g) for _, right, w, g in chain(a.empty, b.first)],
            last=b.last + [(left[0], w, g) for left, _, w, g in chain(a.last, b.empty)],
            empty=[(w, g) for _, _, w, g in chain(a.empty, b.empty)],
        )

    # Topics and stages.

    def _read_grammar(self, text: str) -> None:
        topic = None
        for number, line in enumerate(text.splitlines(), 1):
            line = line.split("# ")[0].strip() if not line.startswith("#") else ""
            try:
                if not line:
                    continue
                if re.match(r"\$\w+ = ", line):
                    name, _, expression = line.partition(" = ")
                    self.macros[name] = self._split(expression)
                elif line.startswith("topic "):
                    topic = {"name": line.split()[1], "stages": []}
                    if not self.cut or topic["name"] in self.cut["topics"]:
                        self.topics.append(topic)
                elif line.startswith("stage "):
                    name, *chance = line.split()[1:]
                    topic["stages"].append(
                        {
                            "name": name.rstrip("?"),
                            "chance": float(chance[0]) if chance else 1.0,
                            "schemas": [],
                        }
                    )
                else:
                    topic["stages"][-1]["schemas"].append((number, self._split(line)))
            except (GrammarError, IndexError, TypeError, ValueError) as error:
                raise GrammarError(f"grammar, line {number}: {error}") from None

    def _stage(self, stage: dict) -> Fragment:
        """The schemas of a stage; those that end in the same mark share that last state."""
        ends: dict[str, Fragment] = {}

        def schema(items: list[str]) -> Fragment:
            if items[-1] not in (".", "!", "?"):
                raise GrammarError(f"a schema ends in . or ! or ?, not in {items[-1]!r}: {' '.join(items)}")
            if items[-1] not in ends:
                ends[items[-1]] = self._single(self._state(items[-1]))
            body = self._join(self._sequence(items[:-1]), ends[items[-1]])
            return Fragment(first=body.first)

        if not stage["schemas"]:
            raise GrammarError(f"grammar, stage {stage['name']} has no schema: give it at least one line")
        lines = [number for number, _ in stage["schemas"]]
        try:
            whole = self._choose([items for _, items in stage["schemas"]], schema)
        except GrammarError as error:
            raise GrammarError(
                f"grammar, stage {stage['name']} (lines {lines[0]}-{lines[-1]}): {error}"
            ) from None
        whole.last = [place for end in ends.values() for place in end.last]
        return whole

    def language(self) -> dict:
        """The whole language as plain lists and dictionaries."""
        begin, anywhere, ends = [], [], {}
        visits = 0.0
        for t, topic in enumerate(self.topics):
            stages, last = topic["stages"], {}
            parts = []
            for s, stage in enumerate(stages):
                base = len(self.states)
                parts.append(self._stage(stage))
                for state in self.states[base:]:
                    state["topic"], state["stage"] = t, s
                for state, _, _ in parts[s].last:
                    last[state] = s
            for s, part in enumerate(parts):
                visits += stages[s]["chance"]
                anywhere += [(state, w * stages[s]["chance"], g) for state, w, g in part.first]
            for source in [
                None,
                *last,
            ]:  # from the start, or from the end of a stage, to the next stage that is not skipped
                reach = 1.0
                for s in range(0 if source is None else last[source] + 1, len(stages)):
                    enter, reach = reach * stages[s]["chance"], reach * (1 - stages[s]["chance"])
                    if source is None and enter:
                        begin += [(state, w * enter / len(self.topics), g) for state, w, g in parts[s].first]
                    elif source is not None and enter:
                        self.edges += [(source, state, w * enter, g) for state, w, g in parts[s].first]
                if source is not None:
                    ends[source] = reach
        anywhere = [(state, w / visits, g) for state, w, g in anywhere]
        return self._pack(begin, anywhere, ends)

    def _pack(self, begin, anywhere, ends) -> dict:
        vocabulary = self._vocabulary()
        index = {word: i for i, word in enumerate(vocabulary)}
        guards: dict[Guard, int] = {(): -1}

        def packed(edges, columns):
            rows = [
                [*edge[:-2], round(edge[-2], 12), guards.setdefault(edge[-1], len(guards) - 1)]
                for edge in edges
            ]
            return [list(column) for column in zip(*sorted(rows))] or [[]] * columns

        missing = sorted({word for word in self.seen if word not in self.tags})
        if missing:
            raise GrammarError(f"these words have no part of speech in the lexicon: {' '.join(missing)}")
        packed_begin, packed_anywhere, packed_edges = (
            packed(begin, 3),
            packed(anywhere, 3),
            packed(self.edges, 4),
        )
        notes = [
            {k: v for k, v in s.items() if k in ("pos", "sense", "label", "agrees")} for s in self.states
        ]
        return {
            "size": self.size,
            "dialect": self.dialect,
            "whole": WHOLE,
            "run": RUN,
            "words": vocabulary,
            "pos": [self.tags[word] for word in vocabulary],
            "registers": self.registers,
            "distributions": [
                [[index[w] for w, _ in d], [round(p, 12) for _, p in d]] for d in self.distributions
            ],
            "views": [[register, list(values)] for register, values in self.views],
            "guards": [[list(test) for test in guard] for guard in guards if guard],
            "topics": [
                [topic["name"], [stage["name"] for stage in topic["stages"]]] for topic in self.topics
            ],
            "states": {
                "topic": [s["topic"] for s in self.states],
                "stage": [s["stage"] for s in self.states],
                "view": [s.get("view", -1) for s in self.states],
                "distribution": [s.get("distribution", -1) for s in self.states],
                "notes": {str(i): note for i, note in enumerate(notes) if note},
            },
            "edges": packed_edges,
            "begin": packed_begin,
            "anywhere": packed_anywhere,
            "ends": [list(ends), list(ends.values())],
        }

    def _vocabulary(self) -> list[str]:
        """Every word of the lexicon, whatever the dialect; the village has only the words that it uses."""
        return sorted(self.seen if self.size == "village" else self.tags)


def compile_language(
    size: str = "world",
    dialect: int = 0,
    *,
    zipf: float = 0.7,
    lexicon: str | None = None,
    grammar: str | None = None,
) -> dict:
    """The language of that size and dialect as one dictionary, ready for JSON and for `Automaton`.

    zipf: how steeply the words of a list fall in frequency with their rank (0: all equally frequent).
    Raises GrammarError where the lexicon or the grammar is wrong.
    """
    if size not in ("world", "village"):
        raise ValueError(f"there is no size {size!r} of Tinyworld: choose 'world' or 'village'")
    lexicon = tomllib.loads(lexicon or (HERE / "lexicon.toml").read_text(encoding="utf-8"))
    return Compiler(
        lexicon, grammar or (HERE / "grammar.txt").read_text(encoding="utf-8"), size, dialect, zipf
    ).language()
