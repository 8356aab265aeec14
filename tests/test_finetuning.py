"""Fine-tuning: a head on an encoder, few labels, nothing but what was asked for changes."""

from __future__ import annotations

import torch

from selfsup.corpora import tinyworld
from selfsup.finetuning import Classifier, accuracy, fine_tune, pad, word_counting_accuracy
from selfsup.models.encoder import Encoder, EncoderConfig


def classifier(seed: int = 0, dropout: float = 0.0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(Encoder(EncoderConfig(50, layers=1, width=16, heads=2, feed_forward=32, dropout=dropout)), 2)


def batch(n: int = 12, time: int = 6) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    ids = torch.randint(5, 50, (n, time), generator=torch.Generator().manual_seed(1))
    labels = torch.arange(n) % 2
    ids[:, 2] = 5 + labels  # one word tells the label
    return (ids, torch.ones_like(ids)), labels


def test_pad_puts_texts_between_cls_and_sep():
    tokenizer = tinyworld.load("village").tokenizer
    ids, mask = pad([[7, 8, 9], [10]], tokenizer)
    assert ids.tolist() == [[2, 7, 8, 9, 3], [2, 10, 3, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_padding_counts_for_nothing():
    model = classifier().eval()
    ids = torch.tensor([[2, 7, 8, 3]])
    padded, mask = torch.tensor([[2, 7, 8, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    assert torch.allclose(model(ids, torch.ones_like(ids)), model(padded, mask), atol=1e-5)


def test_learns_what_one_word_tells():
    model, (texts, labels) = classifier(), batch()
    fine_tune(model, texts, labels, steps=60, learning_rate=3e-3)
    assert accuracy(model, texts, labels) == 1.0


def test_equal_seeds_give_equal_weights():
    (texts, labels), states = batch(), []
    for elsewhere in range(2):
        model = classifier(dropout=0.3)
        torch.manual_seed(elsewhere)  # what else is random in the process does not matter, and is left as it was
        fine_tune(model, texts, labels, steps=5, batch_size=5, seed=3)
        states.append(model.state_dict())
        after, _ = torch.rand(1), torch.manual_seed(elsewhere)
        assert after == torch.rand(1)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_each_epoch_sees_every_text_once():
    seen = []

    class Spy(Classifier):
        def forward(self, input_ids, attention_mask):
            seen.extend(input_ids[:, 0].tolist())
            return super().forward(input_ids, attention_mask)

    torch.manual_seed(0)
    model = Spy(Encoder(EncoderConfig(50, layers=1, width=16, heads=2, feed_forward=32)), 2)
    ids = torch.arange(10, 22)[:, None].repeat(1, 4)
    fine_tune(model, (ids, torch.ones_like(ids)), torch.zeros(12, dtype=torch.long), steps=3, batch_size=4)
    assert sorted(seen) == list(range(10, 22))


def test_accuracy_is_the_share_of_right_answers():
    class Says(torch.nn.Module):
        def forward(self, ids, mask):
            return torch.nn.functional.one_hot(ids[:, 0], 2).float()

    ids = torch.tensor([[0], [1], [1], [0]])
    assert accuracy(Says(), (ids, torch.ones_like(ids)), torch.tensor([0, 1, 0, 0])) == 0.75


def test_fine_tuning_and_scoring_leave_the_mode_alone():
    (texts, labels), model = batch(), classifier()
    for training in (True, False):
        model.train(training)
        fine_tune(model, texts, labels, steps=1)
        accuracy(model, texts, labels)
        assert model.training is training


def test_counting_words_finds_the_word_that_tells_and_knows_no_order():
    (ids, mask), labels = batch()
    shuffled = ids.flip(1)
    assert word_counting_accuracy((ids, mask), labels, (shuffled, mask), labels) == 1.0
    unknown = torch.full_like(ids, 60)  # words that it never saw leave it with the commoner label
    assert word_counting_accuracy((ids[:5], mask[:5]), labels[:5], (unknown, mask), labels) == 0.5
