"""Sentence pairs: against a slow reference, and as properties: what was done to x can be told from x′ and x″."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.corpora import Texts, tinyworld
from selfsup.models import MaskedLanguageModel, SentencePairModel, TransformerConfig
from selfsup.objectives import IGNORE, load_objective
from selfsup.objectives.sentence_pairs import AS_IT_WAS, CHANGED, SentencePairs, sentence_ends
from selfsup.tokenization import word_level
from selfsup.training import Batches, Processes, batch_loss, evaluate

WORDS = ["a", "b", "c", "d", "e", ".", "!", "?", '"']
TOKENIZER = word_level(WORDS)
FIRST = TOKENIZER.get_vocab()["a"]
CLS, SEP, PAD = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.pad_token_id


def ids_of(words):
    return [TOKENIZER.get_vocab()[word] for word in words]


def cut(words):
    """The slow reference: words cut after each mark that stands outside quotation marks."""
    sentences, quoted = [[]], False
    for word in words:
        sentences[-1].append(word)
        quoted ^= word == '"'
        if word in ".!?" and not quoted:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


sentence = st.tuples(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(".!?"),
).map(lambda parts: (['"', *parts[0], "!", '"', "a", parts[2]] if parts[1] else [*parts[0], parts[2]]))
texts = st.lists(st.lists(sentence, min_size=1, max_size=4), min_size=2, max_size=8)


def batch_of(documents):
    rows = [[CLS, *ids_of(sum(document, [])), SEP] for document in documents]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    return ids, (ids != PAD).long()


def halves(row, segments, seen):
    """The two parts in one row of x′, as lists of ids."""
    length = int(seen.sum())
    row, segments = row[:length].tolist(), segments[:length].tolist()
    assert row[0] == CLS and row[-1] == SEP
    a = [token for token, segment in zip(row[1:], segments[1:]) if not segment]
    b = [token for token, segment in zip(row, segments) if segment]
    assert a.pop() == SEP and (not b or b.pop() == SEP)
    assert SEP not in a + b and segments == sorted(segments)
    return tuple(a), tuple(b)


@settings(max_examples=150, deadline=None)
@given(texts, st.sampled_from([None, "nsp", "sop"]), st.integers(0, 2**32))
def test_what_was_done_to_each_pair_is_what_the_target_says(documents, question, seed):
    objective = SentencePairs(TOKENIZER, question)
    ids, mask = batch_of(documents)
    inputs, pair = objective.arrange(ids, mask, torch.Generator().manual_seed(seed))

    def joined(sentences):
        return tuple(ids_of(sum(sentences, [])))

    ways = [[(joined(d[:k]), joined(d[k:])) for k in range(1, len(d))] for d in documents]  # to cut each in two
    for row, cuts in enumerate(ways):
        a, b = halves(inputs["input_ids"][row], inputs["token_type_ids"][row], inputs["attention_mask"][row])
        if not cuts:
            assert (a, b) == (tuple(ids_of(sum(documents[row], []))), ()) and pair[row] == IGNORE
        elif question is None:
            assert (a, b) in cuts and pair[row] == IGNORE
        elif pair[row] == AS_IT_WAS:
            assert (a, b) in cuts
        elif question == "sop":
            assert (b, a) in cuts, "exchanged, and nothing else"
        else:
            assert any(a == first and b != second for first, second in cuts), "the first part stays, the second goes"
            others = [second for other, pairs in enumerate(ways) if other != row for _, second in pairs]
            assert b in others, "a negative comes from another text"


def test_half_of_the_pairs_are_changed_and_each_cut_is_as_likely():
    document = [["a", "."], ["b", "."], ["c", "."]]
    ids, mask = batch_of([document] * 2000 + [[["d", "."], ["e", "."]]] * 2000)
    for question in ("nsp", "sop"):
        inputs, pair = SentencePairs(TOKENIZER, question).arrange(ids, mask, torch.Generator().manual_seed(0))
        share = (pair == CHANGED).float().mean()
        assert abs(share - 0.5) < 0.03, question
        early = (inputs["token_type_ids"][:2000][pair[:2000] == AS_IT_WAS].sum(1) == 5).float().mean()
        assert abs(early - 0.5) < 0.06, "the text has two places to cut"


def test_the_true_next_sentence_is_never_a_negative():
    same = [["a", "."], ["b", "."]]
    ids, mask = batch_of([same] * 50)
    _, pair = SentencePairs(TOKENIZER, "nsp").arrange(ids, mask, torch.Generator().manual_seed(0))
    assert (pair == AS_IT_WAS).all(), "every other second sentence reads the same"


def test_negatives_come_from_the_same_group():
    documents = [[["a", "."], [word, "."]] for word in "bcde"] * 20
    ids, mask = batch_of(documents)
    groups = torch.arange(80) % 4 // 2  # b and c, d and e
    objective = SentencePairs(TOKENIZER, "nsp", group=lambda ids: groups)
    inputs, pair = objective.arrange(ids, mask, torch.Generator().manual_seed(1))
    partner = dict(zip(ids_of("bcde"), ids_of("cbed")))
    for row in torch.nonzero(pair == CHANGED).flatten().tolist():
        a, b = halves(inputs["input_ids"][row], inputs["token_type_ids"][row], inputs["attention_mask"][row])
        assert b[0] == partner[int(ids[row, 3])], "the only other text of the group"
    assert 20 < (pair == CHANGED).sum() < 60


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(5, 40))
def test_truncation_is_that_of_transformers(first, second, longest):
    rng = np.random.default_rng(first * 31 + second)
    a, b = (rng.choice(list("abcde"), n - 1).tolist() + ["."] for n in (first, second))
    expected = TOKENIZER(" ".join(a), " ".join(b), truncation="longest_first", max_length=longest)
    ids, mask = batch_of([[a, b]])
    inputs, _ = SentencePairs(TOKENIZER, None, longest=longest).arrange(ids, mask, None)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert inputs[name][0].tolist() == expected[name], name


def test_sentences_end_where_tinyworlds_do():
    language = tinyworld.load("world")
    vocabulary = language.tokenizer.get_vocab()
    marks = torch.tensor([vocabulary[mark] for mark in ".!?"])
    for document in language.documents(100, 5):
        ids = torch.tensor([[vocabulary[word] for word in document.tokens]])
        found = torch.nonzero(sentence_ends(ids, marks, vocabulary['"'])[0]).flatten().tolist()
        assert found == [end - 1 for _, end in document.sentences], str(document)


def test_masking_in_pairs_spares_special_tokens_and_keeps_its_rates():
    documents = [[["a", "b", "c", "d", "."], ["e", "d", "c", "."]]] * 3000
    ids, mask = batch_of(documents)
    split = load_objective("sop", TOKENIZER, rate=0.3).split(ids, mask, torch.Generator().manual_seed(0))
    arranged, _ = load_objective("sop", TOKENIZER, rate=0.3).arrange(ids, mask, torch.Generator().manual_seed(0))
    special = torch.isin(arranged["input_ids"], torch.tensor([CLS, SEP, PAD]))
    assert (split.targets[special] == IGNORE).all()
    assert (split.inputs["input_ids"][special] == arranged["input_ids"][special]).all()
    chosen = split.targets != IGNORE
    assert abs(chosen.sum() / (~special).sum() - 0.3) < 0.01
    assert (split.targets[chosen] == arranged["input_ids"][chosen]).all(), "x″ is what stood there"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SentencePairModel(TransformerConfig(len(TOKENIZER), layers=1, width=8, heads=2, feed_forward=8, dropout=0.0))


def test_both_questions_weigh_the_same_also_when_processes_share_the_batch(model):
    documents = [[["a", "b", "."], [word, "c", "."]] for word in "bcdea"] + [[["d", "."]]]
    batch = batch_of(documents)
    objective = load_objective("nsp", TOKENIZER, rate=0.5)
    split = objective.split(*batch, torch.Generator().manual_seed(3))
    words, pairs = model(**split.inputs, pair=True)
    expected = torch.nn.functional.cross_entropy(words.flatten(0, 1), split.targets.flatten())
    expected = expected + torch.nn.functional.cross_entropy(pairs, split.pair)
    for count in (1, 2, 3):
        here = [Processes(rank, count, torch.device("cpu")) for rank in range(count)]
        parts = [batch_loss(model, objective, batch, torch.Generator().manual_seed(3), one) for one in here]
        assert sum(parts).item() == pytest.approx(expected.item(), abs=1e-5), count


def test_equal_seeds_give_equal_splits_and_arguments_stay_as_they_are():
    documents = [[["a", "b", "."], [word, "c", "."]] for word in "bcdea"]
    ids, mask = batch_of(documents)
    before = ids.clone()
    for question in ("pairs", "nsp", "sop"):
        objective = load_objective(question, TOKENIZER)
        one, two = (objective.split(ids, mask, torch.Generator().manual_seed(9)) for _ in range(2))
        assert all(torch.equal(one.inputs[name], two.inputs[name]) for name in one.inputs)
        assert torch.equal(one.pair, two.pair) and torch.equal(ids, before)


def test_evaluation_scores_the_pairs(model):
    texts = Texts.from_list([ids_of(["a", "b", ".", word, "c", "."]) for word in "bcdea"] * 20)
    score = evaluate(model, load_objective("sop", TOKENIZER), texts, TOKENIZER)
    assert 0 <= score.pair_accuracy <= 1
    split = load_objective("sop", TOKENIZER).split(
        *Batches(texts, TOKENIZER, 128)[0], torch.Generator().manual_seed(1)
    )
    assert (split.pair != IGNORE).all()
    words_only = MaskedLanguageModel(model.config)
    assert evaluate(words_only, load_objective("pairs", TOKENIZER), texts, TOKENIZER).pair_accuracy is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"question": "sip"}, "choose nsp, sop or None"),
        ({"question": "sop", "longest": 4}, "need 5"),
        ({"question": "sop", "rate": 2}, "from 0 to 1"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        SentencePairs(TOKENIZER, **options)
    with pytest.raises(ValueError, match="cannot take the options"):
        load_objective("sop", TOKENIZER, rat=0.1)
