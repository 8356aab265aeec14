"""Ours and `transformers`' generation write the same; what is drawn follows its distribution; beam search is exact
where it keeps every beginning."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import LogitsProcessorList
from transformers.generation import logits_process

from selfsup.generation import (
    beam_search,
    distribution,
    forbid,
    generate,
    min_p,
    repetition_penalty,
    top_k,
    top_p,
)
from selfsup.models import EncoderDecoder, LanguageModel, TransformerConfig, to_transformers

VOCAB, TIME, NEW = 14, 5, 7


def random_model(kind, seed, max_positions=TIME + NEW):
    """A small model whose distributions are peaked, in float64, so that rounding decides nothing."""
    config = TransformerConfig(VOCAB, layers=2, width=16, heads=2, feed_forward=24, max_positions=max_positions,
                               segments=0, norm_eps=1e-5, init_std=0.7)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).eval().double()


def random_prompts(rows, seed, padded=True):
    """ids and attention_mask, (rows, TIME): texts of 1 to TIME tokens, padded on the left with 0."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1 if padded else TIME, TIME + 1, (rows, 1), generator=generator)
    mask = (torch.arange(TIME) >= TIME - lengths).long()
    return torch.randint(VOCAB, (rows, TIME), generator=generator) * mask, mask


def chain(logits):
    """A model that knows the last token alone: row i of logits, (vocab, vocab), is for the token after i."""
    return lambda ids, attention_mask=None, cache=None: logits[ids]


cases = st.tuples(st.sampled_from([LanguageModel, EncoderDecoder]), st.integers(0, 10_000), st.integers(1, 4),
                  st.sets(st.integers(0, VOCAB - 1), max_size=3))
choices = st.fixed_dictionaries({
    "temperature": st.floats(0.3, 3.0),
    "top_k": st.none() | st.integers(1, VOCAB + 3),
    "top_p": st.none() | st.floats(0.05, 1.0),
    "min_p": st.none() | st.floats(0.0, 1.0),
})
penalties = st.sampled_from([1.0, 0.7, 1.3, 2.0])


def both(case, padded=True):
    """Ours as a language model, the prompts that it writes on from, and the same for theirs.

    To a GPT-2 the prompts are given; a BART reads them, and writes on from one token.
    """
    kind, seed, rows, stops = case
    ours, (ids, mask) = random_model(kind, seed), random_prompts(rows, seed, padded)
    theirs = to_transformers(ours).double()
    theirs.generation_config.eos_token_id = sorted(stops) or None
    asked = {"attention_mask": mask, "pad_token_id": 1, "max_new_tokens": NEW}
    if kind is LanguageModel:
        return ours, ids, mask, lambda **how: theirs.generate(ids, **asked, **how), TIME
    start = torch.full((rows, 1), 2)
    mask = mask.flip(1)  # an encoder's texts are padded on the right
    asked |= {"attention_mask": mask, "decoder_start_token_id": 2}
    return ours.reading(ids.flip(1), mask), start, None, lambda **how: theirs.generate(ids.flip(1), **asked, **how), 1


@given(cases, penalties, st.booleans())
@settings(max_examples=30, deadline=None)
def test_greedy_as_transformers(case, penalty, cached):
    """A penalty of theirs counts padding, too; where the padding is a token that cannot come, that is no difference."""
    model, ids, mask, theirs, start = both(case)
    told = generate(model, ids, mask, max_new_tokens=NEW, temperature=0, repetition_penalty=penalty,
                    forbidden_ids=[0], stop_ids=case[3], pad_id=1, use_cache=cached)
    expected = theirs(do_sample=False, repetition_penalty=penalty, suppress_tokens=[0])[:, start:]
    assert torch.equal(told, expected)


@given(cases, choices, penalties)
@settings(max_examples=50, deadline=None)
def test_the_same_samples_as_transformers(case, how, penalty):
    model, ids, mask, theirs, start = both(case, padded=penalty == 1)
    told = generate(model, ids, mask, max_new_tokens=NEW, **how, repetition_penalty=penalty, stop_ids=case[3],
                    pad_id=1, generator=torch.Generator().manual_seed(case[1]))
    with torch.random.fork_rng():
        torch.manual_seed(case[1])
        expected = theirs(do_sample=True, **how | {"top_k": how["top_k"] or 0}, repetition_penalty=penalty)[:, start:]
    assert torch.equal(told, expected)


@given(cases, st.integers(2, 6), st.sampled_from([-0.5, 0.0, 0.6, 1.0, 2.0]), st.booleans())
@settings(max_examples=50, deadline=None)
def test_beam_search_as_transformers(case, beams, length_penalty, never):
    """Their default, early_stopping=False, is the same where no length can make a beam better: a penalty up to 0."""
    model, ids, mask, theirs, start = both(case)
    told, scores = beam_search(model, ids, mask, beams=beams, max_new_tokens=NEW, stop_ids=case[3],
                               length_penalty=length_penalty, pad_id=1)
    expected = theirs(num_beams=beams, do_sample=False, length_penalty=length_penalty, output_scores=True,
                      early_stopping="never" if never or length_penalty > 0 else False, return_dict_in_generate=True)
    assert torch.equal(told, expected.sequences[:, start:])
    torch.testing.assert_close(scores, expected.sequences_scores)


@given(st.integers(0, 10_000), choices, penalties)
@settings(max_examples=50, deadline=None)
def test_the_distribution_of_transformers(seed, how, penalty):
    """Their processors, one after another, and ours leave the same tokens with the same probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits, ids = 3 * torch.randn(4, VOCAB, generator=generator), torch.randint(VOCAB, (4, 6), generator=generator)
    theirs = LogitsProcessorList([logits_process.RepetitionPenaltyLogitsProcessor(penalty),
                                  logits_process.TemperatureLogitsWarper(how["temperature"])])
    for name, kind in (("top_k", logits_process.TopKLogitsWarper), ("top_p", logits_process.TopPLogitsWarper),
                       ("min_p", logits_process.MinPLogitsWarper)):
        if how[name] is not None:
            theirs.append(kind(how[name]))
    told = distribution(repetition_penalty(logits, ids, penalty), **how)
    torch.testing.assert_close(told, theirs(ids, logits.clone()).softmax(-1))


@st.composite
def weights(draw):
    """Weights of tokens, (rows, vocab), some of them equal."""
    vocab = draw(st.integers(2, 9))
    row = st.lists(st.integers(1, 40), min_size=vocab, max_size=vocab)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=3))).double()


def kept(logits, before):
    """The places of the tokens that are left in each row, whose logits must be the same as before."""
    left = logits > -torch.inf
    assert torch.equal(logits[left], before[left]), "a token that was kept has another logit"
    return [set(row.nonzero().flatten().tolist()) for row in left]


@given(weights(), st.integers(1, 12))
def test_top_k_keeps_k_tokens_and_what_ties_with_the_last(w, k):
    for row, left in zip(w.tolist(), kept(top_k(w.log(), k), w.log())):
        last = sorted(row, reverse=True)[min(k, len(row)) - 1]
        assert left == {i for i, one in enumerate(row) if one >= last}


@given(weights(), st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_reaches_p(w, p):
    for row, left in zip(w.tolist(), kept(top_p(w.log(), p), w.log())):
        mass, removed = [row[i] for i in left], [one for i, one in enumerate(row) if i not in left]
        assert sum(mass) >= p * sum(row) - 1e-9, "the nucleus is too small"
        assert sum(mass) - min(mass) < p * sum(row) + 1e-9, "the nucleus could do without its last token"
        assert not removed or max(removed) <= min(mass), "a token was removed that is more probable than one kept"


@given(weights(), st.floats(0.0, 1.0))
def test_min_p_keeps_what_has_a_share_of_the_best(w, share):
    for row, left in zip(w.tolist(), kept(min_p(w.log(), share), w.log())):
        sure = {i for i, one in enumerate(row) if one > (share + 1e-9) * max(row)}
        assert sure <= left <= {i for i, one in enumerate(row) if one >= (share - 1e-9) * max(row)}


def test_truncation_by_hand():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    assert kept(top_k(logits, 2), logits) == [{1, 3}]
    assert kept(top_p(logits, 0.65), logits) == [{1, 3}]
    assert kept(top_p(logits, 0.75), logits) == [{1, 2, 3}]
    assert kept(top_p(logits, 0.01), logits) == [{1}], "one token always stays"
    assert kept(top_p(logits, 1e-12), logits) == [{1}], "one token always stays, even where rounding makes 1 - p one"
    for p, tokens in ((0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4)):
        left = kept(top_p(torch.zeros(1, 4), p), torch.zeros(1, 4))
        assert len(left[0]) == tokens, f"of four equal tokens {tokens} reach {p}"
    assert kept(min_p(logits, 0.6), logits) == [{1, 3}]
    assert kept(min_p(logits, 1.0), logits) == [{1}]
    all_of_it = torch.tensor([[0.0, -30.0, -60.0]])  # beside the first, the others round away
    assert kept(top_p(all_of_it, 1.0), all_of_it) == kept(min_p(all_of_it, 0.0), all_of_it) == [{0, 1, 2}]


def test_each_truncation_reads_what_the_one_before_left():
    """0.4 of what top_k leaves, 0.7, is more than 0.5 of it, so one token is enough; of all, it would be too little."""
    told = distribution(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log(), top_k=2, top_p=0.5)
    assert told.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_temperature():
    logits = torch.tensor([[2.0, 1.0, -torch.inf], [0.0, 3.0, 1.0]])
    best = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    torch.testing.assert_close(distribution(logits), logits.softmax(-1))
    torch.testing.assert_close(distribution(logits, 2.0), (logits / 2).softmax(-1))
    torch.testing.assert_close(distribution(logits, 1e9)[1], torch.full((3,), 1 / 3))
    for cold in (0, 0.0, 1e-300, 2e-38, 1e-9):
        assert torch.equal(distribution(100 * logits, cold, top_k=2, top_p=0.9, min_p=0.1), best), cold


@given(st.integers(0, 10_000), st.floats(0.1, 5.0))
@settings(max_examples=30, deadline=None)
def test_repetition_penalty_against_a_loop(seed, penalty):
    generator = torch.Generator().manual_seed(seed)
    logits, (ids, mask) = 3 * torch.randn(3, VOCAB, generator=generator), random_prompts(3, seed)
    expected = logits.clone()
    for row in range(3):
        for token in {token for token, real in zip(ids[row].tolist(), mask[row].tolist()) if real}:
            old = logits[row, token]
            expected[row, token] = old * penalty if old < 0 else old / penalty
    torch.testing.assert_close(repetition_penalty(logits, ids, penalty, mask), expected)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.7}, {"temperature": 0.6, "top_k": 4}, {"top_p": 0.8},
                                 {"min_p": 0.25}, {"top_k": 5, "top_p": 0.9, "min_p": 0.1}])
def test_what_is_drawn_follows_its_distribution(how):
    """Chi-square: how often each pair of tokens came, against the product of their probabilities."""
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    drawn = generate(chain(logits), torch.full((20_000, 1), 3), max_new_tokens=2, **how,
                     generator=torch.Generator().manual_seed(2))
    chances = distribution(logits, **how).double()
    pairs = (chances[3][:, None] * chances).flatten()
    seen = torch.bincount(drawn[:, 0] * 6 + drawn[:, 1], minlength=36).double()
    possible = pairs > 0
    assert not seen[~possible].any(), "a token came that was removed"
    expected = pairs[possible] / pairs.sum() * len(drawn)
    assert chisquare(seen[possible].numpy(), expected.numpy()).pvalue > 1e-3


@given(cases, choices, penalties, st.integers(1, NEW), st.sets(st.integers(0, VOCAB - 1), max_size=VOCAB - 1),
       st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_is_written_keeps_to_its_limits(case, how, penalty, longest, forbidden, greedy):
    kind, seed, rows, stops = case
    model, (ids, mask) = random_model(LanguageModel, seed), random_prompts(rows, seed)
    how = how | {"temperature": 0} if greedy else how
    told = generate(model, ids, mask, max_new_tokens=longest, **how, repetition_penalty=penalty, stop_ids=stops,
                    pad_id=-5, forbidden_ids=forbidden, generator=torch.Generator().manual_seed(seed)).tolist()
    assert len(told) == rows and 1 <= len(told[0]) <= longest
    for text in told:
        end = next((i + 1 for i, token in enumerate(text) if token in stops), len(text))
        assert all(token == -5 for token in text[end:]), "after a stop something other than padding came"
        assert all(0 <= token < VOCAB and token not in forbidden for token in text[:end])
    over = [bool(stops & set(text)) for text in told]
    assert all(over) or len(told[0]) == longest, "it ended although a row could go on"
    assert not all(over) or any(text[-1] != -5 for text in told), "it went on although all rows had stopped"


@given(cases, choices, penalties, st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_cache_changes_nothing(case, how, penalty, greedy):
    model, ids, mask, _, _ = both(case)
    how = how | {"temperature": 0} if greedy else how
    told = [generate(model, ids, mask, max_new_tokens=NEW, **how, repetition_penalty=penalty, stop_ids=case[3],
                     use_cache=cached, generator=torch.Generator().manual_seed(3)) for cached in (True, False)]
    assert torch.equal(*told)


@given(cases, penalties)
@settings(max_examples=20, deadline=None)
def test_a_row_gets_in_a_batch_what_it_gets_alone(case, penalty):
    _, seed, rows, stops = case
    model, (ids, mask) = random_model(LanguageModel, seed), random_prompts(rows, seed)
    told = generate(model, ids, mask, max_new_tokens=NEW, temperature=0, repetition_penalty=penalty, stop_ids=stops)
    found, scores = beam_search(model, ids, mask, beams=3, max_new_tokens=NEW, stop_ids=stops)
    for row in range(rows):
        alone = ids[row : row + 1, mask[row].bool()]
        text = generate(model, alone, max_new_tokens=NEW, temperature=0, repetition_penalty=penalty, stop_ids=stops)
        assert told[row, : text.size(1)].tolist() == text[0].tolist()
        assert not told[row, text.size(1) :].any(), "after a stop something other than padding came"
        text, score = beam_search(model, alone, beams=3, max_new_tokens=NEW, stop_ids=stops)
        assert found[row, : text.size(1)].tolist() == text[0].tolist()
        torch.testing.assert_close(scores[row], score[0])


def test_equal_generators_equal_texts():
    model, (ids, mask) = random_model(LanguageModel, 5), random_prompts(3, 5)
    before, state = (ids.clone(), mask.clone()), torch.get_rng_state()

    def write(seed):
        return generate(model, ids, mask, max_new_tokens=NEW, temperature=2.0,
                        generator=torch.Generator().manual_seed(seed))

    assert torch.equal(write(1), write(1)) and not torch.equal(write(1), write(2))
    generate(model, ids, mask, max_new_tokens=NEW, temperature=0)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was asked"
    assert torch.equal(ids, before[0]) and torch.equal(mask, before[1]), "an argument was changed"


def exhaustive(logits, start, longest, stops, length_penalty):
    """The best score and its text, by asking every text of up to `longest` tokens."""
    chances, best = logits.log_softmax(-1).tolist(), (-math.inf, ())
    for length in range(1, longest + 1):
        for text in itertools.product(range(len(chances)), repeat=length):
            if any(token in stops for token in text[:-1]) or text[-1] not in stops and length < longest:
                continue
            total = sum(chances[a][b] for a, b in zip((start, *text), text))
            best = max(best, (total / length**length_penalty, text))
    return best


@given(st.integers(0, 10_000), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]), st.data())
@settings(max_examples=30, deadline=None)
def test_beam_search_that_keeps_every_beginning_finds_the_best_text(seed, length_penalty, data):
    """With `going` tokens that do not stop there are going ** n beginnings of n tokens, and as many beams or more."""
    vocab, going, longest = data.draw(st.sampled_from([(5, 5, 2), (6, 4, 2), (7, 2, 3), (9, 2, 4), (6, 1, 5)]))
    logits = 2 * torch.randn(vocab, vocab, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    stops = set(range(going, vocab))
    told, scores = beam_search(chain(logits), torch.tensor([[0], [1]]), beams=vocab, max_new_tokens=longest,
                               stop_ids=stops, length_penalty=length_penalty, pad_id=-1)
    for row in range(2):
        score, text = exhaustive(logits, row, longest, stops, length_penalty)
        assert tuple(token for token in told[row].tolist() if token != -1) == text
        assert abs(scores[row].item() - score) < 1e-4


def test_beam_search_finds_what_greedy_walks_past():
    """0 is the likelier first token, but what follows 1 is sure: 0.6 · 0.5 < 0.4 · 1."""
    logits = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.6, 0.4, 0.0]]).log()
    prompt = torch.tensor([[2]])
    assert generate(chain(logits), prompt, max_new_tokens=2, temperature=0)[0, 0] == 0
    told, score = beam_search(chain(logits), prompt, beams=2, max_new_tokens=2, length_penalty=0.0)
    assert told.tolist() == [[1, 2]]
    torch.testing.assert_close(score, torch.tensor([0.4]).log())


@pytest.mark.parametrize("length_penalty, best", [(-1.0, [1, 2]), (0.0, [1, 2]), (9.0, [1, 1, 1, 1, 1, 2])])
def test_a_search_goes_on_while_a_beam_can_become_better(length_penalty, best):
    """2 stops: at once with 0.3, after 1 with 0.9; the best text is longer than the first that has stopped."""
    logits = torch.tensor([[0.0, 0.7, 0.3], [0.0, 0.1, 0.9], [0.0, 0.0, 1.0]]).log()
    told, _ = beam_search(chain(logits), torch.tensor([[0]]), beams=2, max_new_tokens=6, stop_ids=[2],
                          length_penalty=length_penalty)
    assert told.tolist() == [best]


def test_a_search_ends_when_no_beam_can_become_better():
    """Stopping at once has a mean of log 1/2. With four tokens of 1/4 and then five sure ones the mean would be better,
    4/9 log 1/4; with five and then four it would not. Where length counts for nothing, one of 1/4 is too unlikely."""
    asked = []

    def model(ids, attention_mask=None, cache=None):
        asked.append(ids.shape)
        return torch.tensor([0.25, 0.25, 0.5]).log().expand(*ids.shape, 3)

    beam_search(model, torch.tensor([[0]]), beams=2, max_new_tokens=9, stop_ids=[2])
    assert len(asked) == 5
    beam_search(model, torch.tensor([[0]]), beams=2, max_new_tokens=9, stop_ids=[2], length_penalty=0.0)
    assert len(asked) == 5 + 1


@given(cases)
@settings(max_examples=20, deadline=None)
def test_one_beam_is_greedy(case):
    """With lengths left aside; else a beam goes on after a stop, for a text whose mean is better."""
    model, ids, mask, _, _ = both(case)
    told, _ = beam_search(model, ids, mask, beams=1, max_new_tokens=NEW, stop_ids=case[3], length_penalty=0.0)
    assert torch.equal(told, generate(model, ids, mask, max_new_tokens=NEW, temperature=0, stop_ids=case[3]))


@given(cases, st.integers(1, 5), st.sampled_from([0.0, 1.0]))
@settings(max_examples=20, deadline=None)
def test_a_score_is_the_log_probability_over_a_power_of_the_length(case, beams, length_penalty):
    _, seed, rows, stops = case
    model, (ids, mask) = random_model(LanguageModel, seed), random_prompts(rows, seed)
    told, scores = beam_search(model, ids, mask, beams=beams, max_new_tokens=NEW, stop_ids=stops, pad_id=-1,
                               length_penalty=length_penalty)
    for row in range(rows):
        text = told[row][told[row] >= 0]
        whole = torch.cat([ids[row, mask[row].bool()], text])
        chances = model(whole[None])[0].log_softmax(-1)[-len(text) - 1 : -1]
        total = chances.gather(1, text[:, None]).sum()
        torch.testing.assert_close(scores[row], (total / len(text) ** length_penalty).float())


def test_a_text_that_has_stopped_takes_no_place():
    """The long prompt fills the model and stops at once; that must not keep the short one from going on."""
    model = random_model(LanguageModel, 1, max_positions=TIME)
    ids, mask = torch.tensor([[3, 4, 5, 6, 7], [0, 0, 0, 0, 8]]), torch.tensor([[1] * 5, [0] * 4 + [1]])
    stop = generate(model, ids[:1], max_new_tokens=1, temperature=0).item()
    alone = generate(model, ids[1:, 4:], max_new_tokens=TIME, temperature=0)
    assert stop not in alone, "another seed is needed"
    how = {"max_new_tokens": TIME, "stop_ids": [stop], "pad_id": -1}
    told = generate(model, ids, mask, temperature=0, **how)
    found, _ = beam_search(model, ids, mask, beams=1, length_penalty=0.0, **how)
    assert told.tolist() == found.tolist() == [[stop, -1, -1, -1, -1], alone[0].tolist()]


def test_a_text_longer_than_the_model_takes_is_refused_by_the_model():
    model, ids = random_model(LanguageModel, 1), random_prompts(1, 1, padded=False)[0]
    assert generate(model, ids, max_new_tokens=NEW + 1).shape == (1, NEW + 1), "the last token need not be read"
    with pytest.raises(ValueError, match=f"{TIME + NEW + 1} tokens, but the model takes {TIME + NEW}"):
        generate(model, ids, max_new_tokens=NEW + 2)
    with pytest.raises(ValueError, match=f"{TIME + NEW + 1} tokens, but the model takes {TIME + NEW}"):
        beam_search(model, ids, beams=2, max_new_tokens=NEW + 2)


@pytest.mark.parametrize("how, message", [
    ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ({"temperature": -0.1}, "temperature is -0.1"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"temperature": math.inf}, "temperature is inf"),
    ({"top_k": 0}, "top_k is 0"),
    ({"top_k": 0, "temperature": 0}, "top_k is 0"),
    ({"top_p": 0.0}, "top_p is 0.0"),
    ({"top_p": 1.1}, "top_p is 1.1"),
    ({"min_p": -0.1}, "min_p is -0.1"),
    ({"min_p": 1.1}, "min_p is 1.1"),
    ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
    ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0"),
    ({"forbidden_ids": [4, 0, 1, 2, 3]}, "must be from 0 to 4, and not all"),
    ({"forbidden_ids": [5]}, "must be from 0 to 4"),
    ({"forbidden_ids": [-1]}, "must be from 0 to 4"),
    ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, r"shape \(1, 0\)"),
    ({"input_ids": torch.zeros(3, dtype=torch.long)}, r"shape \(3,\)"),
    ({"attention_mask": torch.tensor([[1, 1], [0, 0]])}, "prompt 1 ends in padding, or has no token"),
    ({"attention_mask": torch.tensor([[1, 0], [1, 1]])}, "prompt 0 ends in padding"),
    ({"attention_mask": torch.ones(2, 3)}, r"mask has shape \(2, 3\)"),
])
def test_what_cannot_be_is_refused(how, message):
    arguments = {"input_ids": torch.zeros(2, 2, dtype=torch.long), "max_new_tokens": 2} | how
    with pytest.raises(ValueError, match=message):
        generate(chain(torch.zeros(5, 5)), **arguments)
    if set(how) <= {"input_ids", "attention_mask", "max_new_tokens"}:
        with pytest.raises(ValueError, match=message):
            beam_search(chain(torch.zeros(5, 5)), beams=2, **arguments)


@pytest.mark.parametrize("beams", [0, 6])
def test_a_number_of_beams_that_cannot_be_is_refused(beams):
    with pytest.raises(ValueError, match=f"beams is {beams}, but must be from 1 to 5"):
        beam_search(chain(torch.zeros(5, 5)), torch.zeros(1, 1, dtype=torch.long), beams=beams, max_new_tokens=2)


def test_forbidden_tokens():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert forbid(logits, {2}).tolist() == [[1.0, 2.0, -math.inf]] and torch.equal(forbid(logits, ()), logits)
