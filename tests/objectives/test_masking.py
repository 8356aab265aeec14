"""Masking: 80/10/10, with every rate honoured and the special tokens left alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.objectives import IGNORE, Split, load_objective
from selfsup.objectives.masking import Masking, mask_tokens, rare_repeats
from selfsup.tokenization import word_level

SPECIAL, MASK = (0, 1, 2, 3, 4), 4
VOCABULARY = 20
PLAIN = dict(mask_id=MASK, vocab_size=VOCABULARY, special_ids=SPECIAL)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(len(SPECIAL), VOCABULARY, shape, generator=seeded(seed))


def mask_tokens_one_by_one(
    ids, generator, *, mask_id, vocab_size, special_ids, rate, mask, random, word_start
):
    """The same with loops, from the same random numbers."""
    chance, fate = torch.rand(2, *ids.shape, generator=generator).tolist()
    ordinary = [i for i in range(vocab_size) if i not in special_ids]
    drawn = torch.randint(len(ordinary), ids.shape, generator=generator).tolist()
    corrupted, targets = ids.tolist(), [[IGNORE] * ids.shape[1] for _ in ids]
    for row in range(ids.shape[0]):
        first = 0
        for column in range(ids.shape[1]):
            if word_start is None or word_start[row, column]:
                first = column
            word = ids[row, column].item()
            if word in special_ids or chance[row][first] >= rate:
                continue
            targets[row][column] = word
            if fate[row][column] < mask:
                corrupted[row][column] = mask_id
            elif fate[row][column] < mask + random:
                corrupted[row][column] = ordinary[drawn[row][column]]
    return torch.tensor(corrupted), torch.tensor(targets)


@st.composite
def cases(draw):
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    ids = torch.randint(VOCABULARY, shape, generator=seeded(draw(st.integers(0, 999))))
    special = draw(st.sets(st.integers(0, VOCABULARY - 1), max_size=VOCABULARY - 2)) | {MASK}
    rate, mask = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    rates = dict(rate=rate, mask=mask, random=draw(st.floats(0, 1 - mask)))
    starts = torch.rand(shape, generator=seeded(draw(st.integers(0, 999)))) < 0.6
    options = dict(mask_id=MASK, vocab_size=VOCABULARY, special_ids=sorted(special), **rates)
    return ids, options | {"word_start": draw(st.sampled_from([None, starts]))}, draw(st.integers(0, 999))


@given(cases())
@settings(deadline=None)
def test_equals_the_loop(case):
    ids, options, seed = case
    ours, theirs = (
        mask_tokens(ids, seeded(seed), **options),
        mask_tokens_one_by_one(ids, seeded(seed), **options),
    )
    assert torch.equal(ours[0], theirs[0]), "the corrupted ids differ from those of the plain loop"
    assert torch.equal(ours[1], theirs[1]), "the targets differ from those of the plain loop"


@given(cases())
@settings(deadline=None)
def test_special_tokens_are_left_alone(case):
    ids, options, seed = case
    before = ids.clone()
    corrupted, targets = mask_tokens(ids, seeded(seed), **options)
    special = torch.tensor(options["special_ids"])
    assert not torch.isin(targets, special).any(), (
        "a special token was chosen: the model would have to predict it"
    )
    inserted = corrupted[corrupted != ids]
    assert not torch.isin(inserted, special[special != MASK]).any(), (
        "a special token was inserted as a random word"
    )
    assert (inserted < VOCABULARY).all(), "a random word is not in the vocabulary"
    assert torch.equal(ids, before), "mask_tokens changed its argument"
    unchosen = targets == IGNORE
    assert torch.equal(corrupted[unchosen], ids[unchosen]), "a token that was not chosen was changed"
    assert torch.equal(targets[~unchosen], ids[~unchosen]), "a target is not the original token"


def test_rates_are_met():
    ids = words(400, 500)
    corrupted, targets = mask_tokens(ids, seeded(1), **PLAIN, rate=0.15, mask=0.8, random=0.1)
    chosen = targets != IGNORE
    hidden, changed = chosen & (corrupted == MASK), chosen & (corrupted != MASK) & (corrupted != ids)
    ordinary = VOCABULARY - len(SPECIAL)
    expected = {
        "chosen": (chosen.sum(), ids.numel(), 0.15),
        "hidden": (hidden.sum(), chosen.sum(), 0.8),
        "visibly replaced": (changed.sum(), chosen.sum(), 0.1 * (ordinary - 1) / ordinary),
        "in the first column": (chosen[:, 0].sum(), len(ids), 0.15),
    }
    for name, (count, n, p) in expected.items():
        count, n = int(count), int(n)
        bound = 5 * (n * p * (1 - p)) ** 0.5  # five standard deviations: once in two million runs
        assert abs(count - n * p) < bound, f"{count / n:.4f} of the tokens are {name}, expected {p:.4f}"


def test_random_words_are_uniform():
    ids = torch.full((300, 300), 7)
    corrupted, _ = mask_tokens(ids, seeded(2), **PLAIN, rate=1, mask=0, random=1)
    counts = torch.bincount(corrupted.flatten(), minlength=VOCABULARY)[len(SPECIAL) :].double()
    expected = ids.numel() / len(counts)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 50, (
        "random words are not drawn uniformly from the ordinary vocabulary"
    )  # 14 degrees, p < 1e-5


def test_tokens_are_chosen_independently():
    _, targets = mask_tokens(words(1000, 100), seeded(3), **PLAIN, rate=0.3)
    chosen = (targets != IGNORE).double()
    product = (chosen[:, :-1] * chosen[:, 1:]).mean().item()
    assert abs(product - 0.09) < 0.006, (
        f"neighbours are chosen together with probability {product:.3f}, not 0.09"
    )


def test_extreme_rates():
    ids = torch.cat([torch.tensor([[2]]), words(1, 50), torch.tensor([[3]])], 1)
    nothing, targets = mask_tokens(ids, seeded(), **PLAIN, rate=0)
    assert torch.equal(nothing, ids) and (targets == IGNORE).all(), "a rate of 0 chose a token"
    everything, targets = mask_tokens(ids, seeded(), **PLAIN, rate=1, mask=1, random=0)
    assert (everything[:, 1:-1] == MASK).all(), "a rate of 1 left a word visible"
    assert torch.equal(targets[:, 1:-1], ids[:, 1:-1]), "a rate of 1 left a word without a target"
    assert everything[0, 0] == 2 and everything[0, -1] == 3, "a rate of 1 took [CLS] or [SEP]"
    kept, targets = mask_tokens(ids, seeded(), **PLAIN, rate=1, mask=0, random=0)
    assert torch.equal(kept, ids) and (targets[:, 1:-1] != IGNORE).all(), (
        "kept words must stay, and be predicted"
    )


def test_same_generator_state_same_result():
    ids = words(8, 16)
    first, second = seeded(5), seeded(5)
    a, b = mask_tokens(ids, first, **PLAIN), mask_tokens(ids, second, **PLAIN)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]), (
        "the same generator state gave another corruption"
    )
    assert not torch.equal(mask_tokens(ids, first, **PLAIN)[1], a[1]), "the generator did not move on"


def test_global_random_numbers_are_untouched():
    before = torch.get_rng_state()
    mask_tokens(words(8, 16), seeded(), **PLAIN)
    assert torch.equal(torch.get_rng_state(), before), "mask_tokens drew from torch's global random numbers"


def test_whole_words():
    ids = words(300, 60)
    word_start = torch.rand(ids.shape, generator=seeded(6)) < 0.5
    word_start[:, 0] = True
    corrupted, targets = mask_tokens(ids, seeded(7), **PLAIN, rate=0.2, word_start=word_start)
    chosen = targets != IGNORE
    same_word = ~word_start[:, 1:]
    assert (chosen[:, 1:] == chosen[:, :-1])[same_word].all(), "a word was chosen in part"
    share = chosen[word_start].double().mean().item()
    assert abs(share - 0.2) < 0.02, f"{share:.3f} of the words were chosen, not 0.2"
    hidden = (corrupted == MASK)[chosen].double().mean().item()
    assert abs(hidden - 0.8) < 0.04, f"80/10/10 must hold for whole words too, but {hidden:.2f} are hidden"


@pytest.mark.parametrize(
    "rates, named",
    [
        (dict(rate=1.5), "rate is 1.5"),
        (dict(rate=-0.1), "rate is -0.1"),
        (dict(rate=float("nan")), "rate is nan"),
        (dict(mask=2), "mask is 2"),
        (dict(random=-1), "random is -1"),
        (dict(mask=0.8, random=0.3), "mask \\+ random is 1.1"),
    ],
)
def test_bad_rates_are_refused(rates, named):
    with pytest.raises(ValueError, match=named):
        mask_tokens(words(1, 3), seeded(), **PLAIN, **rates)
    with pytest.raises(ValueError, match=named):
        Masking(word_level(["a", "b"]), **rates)


class Echo(torch.nn.Module):
    """Stands for a model: the logits at a position say the id that is visible there."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, input_ids, attention_mask, positions):
        self.asked = int(positions.sum())
        return 9.0 * torch.nn.functional.one_hot(input_ids[positions], VOCABULARY).float()


@pytest.fixture
def tokenizer():
    return word_level(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o"])


def test_losses_are_cross_entropies_at_the_targets(tokenizer):
    objective, ids, model = Masking(tokenizer, rate=0.5, mask=0, random=0), words(4, 10), Echo()
    split = objective.split(ids, torch.ones_like(ids), seeded())
    losses = objective.losses(model, split)
    assert losses.shape == split.labels.shape, "there must be one loss for each target"
    assert model.asked == len(losses), "logits were asked for where nothing is predicted"
    expected = torch.log(torch.tensor(1 + (VOCABULARY - 1) * torch.e**-9))
    assert torch.allclose(losses, expected.float(), atol=1e-6), (
        "the loss is not minus log p of the original word"
    )


def test_rows_of_a_split(tokenizer):
    ids = words(6, 8)
    split = Masking(tokenizer).split(ids, torch.ones_like(ids), seeded())
    part = split.rows(slice(2, 4))
    assert isinstance(part, Split) and torch.equal(part.targets, split.targets[2:4])
    assert torch.equal(part.inputs["input_ids"], split.inputs["input_ids"][2:4])
    assert torch.equal(part.inputs["attention_mask"], split.inputs["attention_mask"][2:4])


def test_whole_word_objective_reads_the_pieces_from_the_tokenizer():
    from selfsup.tokenization import train_wordpiece

    pieces = train_wordpiece(["abab baba abba baab"] * 20, 12)
    ids = pieces(["abababab babababa"] * 200, return_tensors="pt")["input_ids"]
    split = Masking(pieces, rate=0.5, whole_word=True).split(ids, torch.ones_like(ids), seeded())
    tokens = pieces.convert_ids_to_tokens(ids[0].tolist())
    continues = [i for i, token in enumerate(tokens) if token.startswith("##")]
    assert continues, "the test needs words of several pieces"
    chosen = split.targets != IGNORE
    for i in continues:
        assert torch.equal(chosen[:, i], chosen[:, i - 1]), "a piece inside a word has a fate of its own"


def test_objectives_by_name(tokenizer):
    assert load_objective("masking", tokenizer, rate=0.3).rates["rate"] == 0.3
    with pytest.raises(ValueError, match="no objective called 'rotation': choose one of masking"):
        load_objective("rotation", tokenizer)
    with pytest.raises(ValueError, match="masking.*ratte"):
        load_objective("masking", tokenizer, ratte=0.3)


def test_rare_words_that_a_text_repeats_have_a_rate_of_their_own(tokenizer):
    ids = words(60, 12, seed=3)
    ids[:, ::3] = 7  # repeated, but too common
    attention_mask = torch.ones_like(ids)
    ids[:, 10:] = attention_mask[:, 10:] = 0
    found = rare_repeats(ids, attention_mask, 0.06)
    kept = [row[:10] for row in ids.tolist()]
    for row, marks in zip(kept, found.tolist(), strict=True):
        often = [sum(other.count(word) for other in kept) / 600 for word in row]
        assert marks[:10] == [row.count(word) > 1 and share <= 0.06 for word, share in zip(row, often)]
    objective = Masking(tokenizer, rate=0.0, repeated=1.0, rare=0.06)
    chosen = objective.split(ids, attention_mask, seeded()).targets != IGNORE
    assert torch.equal(chosen, found & (ids > 4)) and 0 < chosen.sum() < ids.numel() / 2
    assert objective.floor is None, "the floor of BERT's rates is not that of these"


def test_whole_words_cannot_have_a_rate_where_they_repeat(tokenizer):
    with pytest.raises(ValueError, match="drop one of the two"):
        Masking(tokenizer, whole_word=True, repeated=0.5)
    with pytest.raises(ValueError, match="probability"):
        Masking(tokenizer, repeated=1.5)


@pytest.mark.parametrize(
    "options", [{"whole_word": "False"}, {"repeated": 0.5, "rare": "much"}, {"rare": float("nan")}, {"rate": "half"}]
)
def test_options_that_make_no_sense_are_refused(tokenizer, options):
    with pytest.raises(ValueError, match=f"{list(options)[-1]} is "):
        Masking(tokenizer, **options)


def test_only_berts_own_rates_have_the_corpus_floor(tokenizer):
    assert Masking(tokenizer).floor == "masking"
    for options in ({"whole_word": True}, {"rate": 0.2}, {"repeated": 0.5}):
        assert Masking(tokenizer, **options).floor is None
