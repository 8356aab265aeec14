"""Each damage against a slow reference with the same dice; and what was taken out can be put back."""

import math
import re
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.corpora import load_corpus
from selfsup.models import EncoderDecoder, TransformerConfig
from selfsup.objectives import IGNORE, load_objective
from selfsup.objectives.denoising import (
    ALONE,
    KINDS,
    RATES,
    T5_KINDS,
    Marks,
    cut_in_two,
    delete,
    fragment,
    infill,
    mask_some,
    permute,
    random_spans,
    rotate,
    span_corruption,
)
from selfsup.objectives.sentence_pairs import sentence_ends
from selfsup.tokenization import load_tokenizer, save_tokenizer, with_sentinels, word_level
from selfsup.training import Batches

PAD, CLS, SEP, MASK, STOP = 0, 2, 3, 4, 5
SENTINELS = (40, 41, 42, 43)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@st.composite
def batches(draw):
    """(ids, text, seed): rows of [CLS] text [SEP] and padding, texts of 1 to 20 tokens that may end sentences."""
    texts = draw(st.lists(st.lists(st.integers(STOP, 12), min_size=1, max_size=20), min_size=1, max_size=4))
    longest = max(map(len, texts)) + 2
    ids = torch.tensor([[CLS, *text, SEP] + [PAD] * (longest - len(text) - 2) for text in texts])
    return ids, ids > MASK, draw(st.integers(0, 10_000))


def rows(ids):
    """The texts of a batch, special tokens but [MASK] and sentinels taken off; checks that they frame it."""
    found = []
    for row in ids.tolist():
        text = [token for token in row if token != PAD]
        assert row == text + [PAD] * (len(row) - len(text)), "padding stands inside the text"
        assert text[0] == CLS and text[-1] == SEP and not {CLS, SEP} & set(text[1:-1])
        found.append(text[1:-1])
    return found


@given(batches(), st.floats(0.05, 0.9))
def test_masking(batch, rate):
    ids, text, seed = batch
    dice = torch.rand(ids.shape, generator=seeded(seed)).tolist()
    slow = [[MASK if token >= STOP and die < rate else token for token, die in zip(*both)]
            for both in zip(ids.tolist(), dice)]
    assert mask_some(ids, text, rate, MASK, seeded(seed)).tolist() == slow


@given(batches(), st.floats(0.05, 0.9))
def test_deletion(batch, rate):
    ids, text, seed = batch
    dice = torch.rand(ids.shape, generator=seeded(seed)).tolist()
    left, gone = ([[token for token, die in zip(*both) if token >= STOP and (die < rate) is taken_out]
                   for both in zip(ids.tolist(), dice)] for taken_out in (False, True))
    assert [rows(part) for part in delete(ids, text, rate, PAD, seeded(seed))] == [left, gone]


@given(batches())
def test_a_cut_text(batch):
    """Both parts, one after the other, are the text; the first has the number of tokens that the die says."""
    ids, text, seed = batch
    read, written = (rows(part) for part in cut_in_two(ids, text, PAD, seeded(seed)))
    assert [first + second for first, second in zip(read, written)] == rows(ids)
    dice = torch.rand(len(ids), 1, generator=seeded(seed))[:, 0].tolist()
    assert [len(first) for first in read] == [1 + int(die * (len(row) - 1)) for die, row in zip(dice, rows(ids))]


def test_no_text_is_wider_than_it_must_be():
    ids = torch.tensor([[CLS, *range(5, 13), SEP]] * 20 + [[CLS, 5, SEP] + [PAD] * 7])
    for part in (*delete(ids, ids > MASK, 0.3, PAD, seeded(0)), *cut_in_two(ids, ids > MASK, PAD, seeded(0))):
        assert (part[:, -1] != PAD).any(), "a column holds nothing but padding"


def test_a_text_is_cut_anywhere():
    """At each place between two tokens equally often: 4,000 texts of 5 tokens, 4 places, 5 standard deviations."""
    ids = torch.tensor([[CLS, 5, 6, 7, 8, 9, SEP]] * 4000)
    read, _ = cut_in_two(ids, ids > MASK, PAD, seeded(0))
    counts = torch.bincount((read > MASK).sum(1), minlength=6).tolist()
    assert counts[0] == counts[5] == 0 and all(abs(count - 1000) < 5 * math.sqrt(750) for count in counts[1:5])


def slow_spans(ids, rate, mean, least, seed):
    """Row by row the spans as (first, end) columns: those that begin inside another make it longer.

    Where none begins, and `least` is not 0, one does at the lowest die.
    """
    generator = seeded(seed)
    dice = torch.rand(ids.shape, generator=generator).tolist()
    lengths = torch.poisson(torch.full(ids.shape, mean - least), generator=generator).long().tolist()
    found = []
    for row, die, length in zip(ids.tolist(), dice, lengths):
        spans = []
        end = len([token for token in row if token != PAD]) - 1
        words = [at for at, token in enumerate(row) if token >= STOP]
        chosen = [at for at in words if die[at] < rate / mean]
        if least and words and not chosen:
            chosen = [min(words, key=lambda at: die[at])]
        for at in chosen:
            reach = at + least + length[at]
            if spans and at < spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], reach)
            else:
                spans.append([at, reach])
        found.append([(first, min(reach, end)) for first, reach in spans])
    return found


@given(batches(), st.floats(0.05, 0.9))
def test_infilling(batch, rate):
    ids, text, seed = batch
    slow = []
    for row, spans in zip(ids.tolist(), slow_spans(ids, rate, 3.0, 0, seed)):
        out, covered = [], {at for first, end in spans for at in range(first, end)}
        for at, token in enumerate(row):
            out += [MASK] if at in {first for first, _ in spans} else []
            out += [token] if token >= STOP and at not in covered else []
        slow.append(out)
    assert rows(infill(ids, text, rate, MASK, PAD, seeded(seed))) == slow


@given(batches(), st.floats(0.05, 0.9))
def test_what_a_mask_of_infilling_stands_for(batch, rate):
    """With some run of tokens, or none, in the place of each [MASK], the damaged text is the true one."""
    ids, text, seed = batch
    for damaged, true in zip(rows(infill(ids, text, rate, MASK, PAD, seeded(seed))), rows(ids)):
        pattern = "".join("(?:\\d+,)*" if token == MASK else f"{token}," for token in damaged)
        assert re.fullmatch(pattern, "".join(f"{token}," for token in true))


@given(batches(), st.floats(0.05, 0.9))
def test_span_corruption(batch, rate):
    """Against the reference, and: each sentinel replaced by what was written after it gives the text back."""
    ids, text, seed = batch
    damaged, written = (rows(part) for part in span_corruption(ids, text, rate, SENTINELS, PAD, seeded(seed)))
    for row, seen, told, spans in zip(ids.tolist(), damaged, written, slow_spans(ids, rate, 3.0, 1, seed)):
        spans = spans[: len(SENTINELS) - 1]
        out, answer = list(row), []
        for sentinel, (first, end) in reversed(list(zip(SENTINELS, spans))):
            answer = [sentinel, *row[first:end], *answer]
            out[first:end] = [sentinel]
        assert seen == [token for token in out if token >= STOP]
        assert told == [*answer, SENTINELS[len(spans)]]
        parts = {}
        for token in told:
            if token in SENTINELS:
                parts[token] = []
            else:
                parts[[*parts][-1]].append(token)
        back = [token for one in seen for token in parts.get(one, [one])]
        assert back == [token for token in row if token >= STOP], "the text could not be put together again"


@given(batches())
def test_permutation(batch):
    """Sentences stay whole, and all of them are there, in an order that the dice decide."""
    ids, text, seed = batch
    ends = ids == STOP
    dice = torch.rand(ids.shape, generator=seeded(seed)).tolist()
    for row, die, damaged in zip(ids.tolist(), dice, rows(permute(ids, text, ends, seeded(seed)))):
        sentences, one = [], []
        for token in (token for token in row if token >= STOP):
            one.append(token)
            if token == STOP:
                sentences, one = [*sentences, one], []
        sentences += [one] if one else []
        order = sorted(range(len(sentences)), key=lambda number: die[number])
        assert damaged == [token for number in order for token in sentences[number]]


@given(batches())
def test_rotation(batch):
    ids, text, seed = batch
    places = (torch.rand(len(ids), 1, generator=seeded(seed)) * text.sum(1, keepdim=True)).long().flatten().tolist()
    for true, damaged, start in zip(rows(ids), rows(rotate(ids, text, seeded(seed))), places):
        assert damaged == true[start:] + true[:start]


@given(batches(), st.floats(0.05, 0.95))
def test_the_fragment_of_mass(batch, share):
    ids, text, seed = batch
    for row, chosen in zip(ids.tolist(), fragment(text, share, seeded(seed)).tolist()):
        at = [i for i, one in enumerate(chosen) if one]
        n = sum(token >= STOP for token in row)
        assert at == list(range(at[0], at[0] + len(at))), "the fragment has a gap"
        assert len(at) == max(1, round(n * share)) and all(row[i] >= STOP for i in at)


def test_how_much_is_covered():
    """Spans of 3 on average cover 1 - exp(-rate), since some meet; a text for T5 has one at least."""
    text = torch.ones(400, 600, dtype=torch.bool)
    for least in (0, 1):
        begins, covered = random_spans(text, 0.3, 3.0, least, seeded(0))
        share = covered.double().mean()
        assert abs(share - (1 - math.exp(-0.3))) < 0.01, share
        assert begins.double().mean() < 0.1
        short, _ = random_spans(text[:, :5], 0.3, 3.0, least, seeded(0))
        assert bool(short.any(1).all()) == bool(least)


VILLAGE = load_corpus("village", n=64, sentinels=16)


def test_the_rates_are_those_of_the_papers():
    """BERT masks 15%, as T5's spans and drop do and deletion here; BART infills 30%, MASS hides half."""
    assert RATES == {"masking": 0.15, "deletion": 0.15, "infilling": 0.3, "spans": 0.15, "mass": 0.5, "drop": 0.15}


def test_the_marks_of_a_vocabulary():
    tokenizer = load_corpus("tinyworld", n=1, sentinels=2).tokenizer
    marks, names = Marks.of(tokenizer), tokenizer.convert_ids_to_tokens
    assert (names(marks.mask), names(marks.pad), names(marks.quote)) == ("[MASK]", "[PAD]", '"')
    assert {*names(list(marks.full_stops))} == {*".!?"}
    assert names(list(marks.sentinels)) == ["<extra_id_0>", "<extra_id_1>"]
    assert {*names(list(marks.special))} == {"[PAD]", "[CLS]", "[SEP]", "<extra_id_0>", "<extra_id_1>"}
    assert Marks.of(word_level([".", "a"])).quote is None


@pytest.mark.parametrize("kind", [*KINDS, *T5_KINDS, "permutation+infilling"])
def test_the_objective_can_be_learned_from(kind):
    """Shapes fit the model, the decoder reads what is written up to each target, and equal seeds give equal splits."""
    objective = load_objective("denoising", VILLAGE.tokenizer, kinds=kind)
    ids, mask = Batches(VILLAGE.train, VILLAGE.tokenizer, 16, seed=0)[0]
    before = ids.clone()
    split, again = (objective.split(ids, mask, seeded(3)) for _ in range(2))
    assert torch.equal(ids, before), "the batch was changed in place"
    assert all(torch.equal(split.inputs[name], again.inputs[name]) for name in split.inputs)
    torch.manual_seed(0)
    sizes = dict(layers=1, width=16, heads=2, feed_forward=16, segments=0, norm_eps=1e-5)
    model = EncoderDecoder(TransformerConfig(len(VILLAGE.tokenizer), **sizes)).eval()
    losses = objective.losses(model, split)
    assert losses.shape == split.labels.shape and torch.isfinite(losses).all()
    read, targets = split.inputs["decoder_input_ids"], split.targets
    known = targets[:, :-1] != IGNORE
    assert torch.equal(read[:, 1:][known], targets[:, :-1][known]), "the decoder does not read what it should have said"
    if kind not in ALONE:
        assert torch.equal(torch.where(targets == IGNORE, PAD, targets), ids[:, 1:])
    changed = split.inputs["input_ids"]
    assert torch.equal(split.inputs["attention_mask"], (changed != PAD).long()), "the encoder reads padding"
    assert changed.shape != ids.shape or not torch.equal(changed, ids), "nothing was damaged"


def test_mass_hides_from_each_side_what_the_other_sees():
    objective = load_objective("denoising", VILLAGE.tokenizer, kinds="mass")
    ids, mask = Batches(VILLAGE.train, VILLAGE.tokenizer, 16, seed=0)[0]
    split = objective.split(ids, mask, seeded(1))
    asked = torch.zeros_like(ids, dtype=torch.bool)
    asked[:, 1:] = split.targets != IGNORE
    seen = split.inputs["input_ids"]
    assert (seen[asked] == MASK).all() and torch.equal(seen[~asked], ids[~asked])
    read = split.inputs["decoder_input_ids"]
    text, inner = ids[:, :-1] > MASK, asked[:, :-1]
    assert torch.equal(read[inner], ids[:, :-1][inner]) and (read[text & ~inner] == MASK).all()


def test_joined_kinds_are_done_one_after_another():
    objective = load_objective("denoising", VILLAGE.tokenizer, kinds="permutation+infilling")
    ids, mask = Batches(VILLAGE.train, VILLAGE.tokenizer, 16, seed=0)[0]
    generator, marks, text = seeded(2), objective.marks, ids > MASK
    torch.randint(1, (), generator=generator)  # which of the kinds
    ends = sentence_ends(ids, torch.tensor(marks.full_stops), marks.quote)
    shuffled = permute(ids, text, ends, generator)
    damaged = infill(shuffled, text, RATES["infilling"], MASK, PAD, generator)
    assert not torch.equal(shuffled, ids)
    assert torch.equal(objective.split(ids, mask, seeded(2)).inputs["input_ids"], damaged)


def test_the_kinds_that_t5_compared():
    """Tokens in any order, the text written; a text gone on with; and what was taken out, written without the rest."""
    ids, mask = Batches(VILLAGE.train, VILLAGE.tokenizer, 16, seed=0)[0]
    objectives = {kind: load_objective("denoising", VILLAGE.tokenizer, kinds=kind) for kind in T5_KINDS}
    splits = {kind: objective.split(ids, mask, seeded(3)) for kind, objective in objectives.items()}
    read = {kind: rows(split.inputs["input_ids"]) for kind, split in splits.items()}
    said = {kind: [row[row != IGNORE].tolist() for row in split.targets] for kind, split in splits.items()}
    assert [sorted(row) for row in read["shuffling"]] == [sorted(row) for row in rows(ids)]
    assert read["shuffling"] != rows(ids)
    assert said["shuffling"] == [[*row, SEP] for row in rows(ids)]
    assert [[*first, *rest] for first, rest in zip(read["prefix"], said["prefix"])] == said["shuffling"]
    for left, gone, row in zip(read["drop"], said["drop"], rows(ids)):
        assert sorted([*left, *gone]) == sorted([*row, SEP]) and gone[-1] == SEP
    share = sum(len(row) - 1 for row in said["drop"]) / sum(map(len, rows(ids)))
    assert 0.08 < share < 0.25


def test_shuffled_tokens_come_in_any_order():
    """Each of the 6 orders of 3 tokens, also where they end sentences: 6,000 texts, 5 standard deviations."""
    objective = load_objective("denoising", VILLAGE.tokenizer, kinds="shuffling")
    stop = objective.marks.full_stops[0]
    row = [CLS, *[token for token in range(stop, stop + 4) if token not in objective.marks.full_stops][:2], stop, SEP]
    damaged = rows(objective.damage("shuffling", torch.tensor([row] * 6000), seeded(0)))
    counts = Counter(map(tuple, damaged))
    assert len(counts) == 6 and all(abs(count - 1000) < 5 * math.sqrt(6000 * 5 / 36) for count in counts.values())


@pytest.mark.parametrize("kind", RATES)
def test_a_higher_rate_takes_more_away(kind):
    ids, mask = Batches(VILLAGE.train, VILLAGE.tokenizer, 16, seed=0)[0]
    left = []
    for rate in (0.1, 0.8):
        objective = load_objective("denoising", VILLAGE.tokenizer, kinds=kind, rate=rate)
        seen = objective.split(ids, mask, seeded(0)).inputs["input_ids"]
        left.append(int((objective.text(seen) & (seen != MASK)).sum()))
    assert left[1] < 0.6 * left[0]


def test_what_is_no_damage_of_a_whole_text_is_refused():
    objective = load_objective("denoising", VILLAGE.tokenizer)
    with pytest.raises(ValueError, match="'drop' is no damage of a whole text"):
        objective.damage("drop", Batches(VILLAGE.train, VILLAGE.tokenizer, 16, seed=0)[0][0], seeded(0))


def test_several_kinds_take_turns():
    objective = load_objective("denoising", VILLAGE.tokenizer, kinds=["masking", "rotation"])
    ids, mask = Batches(VILLAGE.train, VILLAGE.tokenizer, 8, seed=0)[0]
    masked = [(objective.split(ids, mask, seeded(seed)).inputs["input_ids"] == MASK).any().item() for seed in range(40)]
    assert 10 < sum(masked) < 30


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kinds": "scrambling"}, "no damage called 'scrambling': choose from " + ", ".join(KINDS + T5_KINDS)),
        ({"kinds": []}, "at least one kind"),
        ({"kinds": "masking", "rate": 1.0}, "a rate between 0 and 1"),
        ({"kinds": "masking", "rate": "0.3"}, "rate '0.3': give at least one kind, and a rate between 0 and 1"),
        ({"kinds": "masking+spans"}, "joins what stands alone"),
        ({"kinds": "drop+rotation"}, "'drop+rotation' joins what stands alone: drop, mass, prefix, spans"),
        ({"amount": 2}, "cannot take the options"),
    ],
)
def test_what_cannot_be(options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_objective("denoising", VILLAGE.tokenizer, **options)


@pytest.mark.parametrize("number", [-1, 2.5, "many"])
def test_sentinels_are_counted(number):
    with pytest.raises(ValueError, match="sentinels is .*: give a whole number from 0"):
        load_corpus("village", n=1, sentinels=number)


def test_spans_need_sentinels(tmp_path):
    plain = word_level(["the", "cat", "."])
    with pytest.raises(ValueError, match="spans need sentinels"):
        load_objective("denoising", plain, kinds="spans")
    marked = with_sentinels(plain, 3)
    assert len(marked) == len(plain) + 3 and len(plain) == 8, "the tokenizer itself was changed"
    assert marked("the <extra_id_1> .").input_ids == [2, 5, 9, 7, 3]
    save_tokenizer(marked, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.get_vocab() == marked.get_vocab() and again("<extra_id_2>").input_ids == [2, 10, 3]
    assert load_objective("denoising", again, kinds="spans").marks == load_objective("denoising", marked).marks


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_on_stories(seed):
    """On real texts of the village: sentences end where they ended, and the framing tokens stay where they are."""
    objective = load_objective("denoising", VILLAGE.tokenizer, kinds="permutation+infilling")
    ids, mask = Batches(VILLAGE.train, VILLAGE.tokenizer, 16, seed=0)[seed % 4]
    shuffled = objective.damage("permutation", ids, seeded(seed))
    stops = set(objective.marks.full_stops)
    for true, damaged in zip(rows(ids), rows(shuffled)):
        parts = [[], []]
        for found, text in zip(parts, (true, damaged)):
            begin, quoted = 0, False
            for end, token in enumerate(text, 1):
                quoted ^= token == objective.marks.quote
                if end == len(text) or token in stops and not quoted:
                    found.append(text[begin:end])
                    begin = end
        assert sorted(parts[0]) == sorted(parts[1]), "a sentence was cut or joined to another"


@pytest.mark.parametrize("kind", [*KINDS, *T5_KINDS])
def test_an_unknown_word_is_a_word(kind):
    """[UNK] moves, goes and stays as any other word would in its place."""
    tokenizer = with_sentinels(word_level([".", *"abcdefghijk"]), 16)
    words, unknown = tokenizer("a b c . d e f . g h i .".split(), is_split_into_words=True)["input_ids"], 1
    assert unknown == tokenizer.unk_token_id
    ids, place = torch.tensor([words]), 5
    assert ids[0, place] not in (unknown, STOP, CLS)
    other = ids.clone()
    other[0, place] = unknown
    objective = load_objective("denoising", tokenizer, kinds=kind, rate=0.4)
    for seed in range(20):
        known, strange = (objective.split(one, torch.ones_like(ids), seeded(seed)) for one in (ids, other))
        for name, tensor in known.inputs.items():
            assert torch.equal(tensor.masked_fill(tensor == ids[0, place], unknown), strange.inputs[name])
        assert torch.equal(known.targets.masked_fill(known.targets == ids[0, place], unknown), strange.targets)
