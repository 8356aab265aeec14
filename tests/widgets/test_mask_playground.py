"""The playground in a kernel: what it answers, what it refuses, and that the page's answers are the same."""

from __future__ import annotations

import json
import math

import ipywidgets
import pytest
import traitlets

from selfsup.widgets import STORIES, MaskPlayground, answer

ANSWERS = """
const { Bert, Tokenizer, softmax } = await import(WIDGETS + "engine.mjs");
const { answer } = await import(WIDGETS + "worker.mjs");
const { loadLanguage } = await import(WIDGETS + "tinyworld.mjs");
const model = new Bert(json(data.folder + "/config.json"), bytes(data.folder + "/model.safetensors"));
const tokenizer = new Tokenizer(json(data.folder + "/tokenizer.json"));
const language = data.language && loadLanguage(data.language);
const parts = { model, tokenizer, language, softmax };
console.log(JSON.stringify(data.questions.map((question) => answer(question, parts))));
"""
QUESTIONS = """
const fetched = [];
globalThis.fetch = async (url) => {
  fetched.push(url);
  const path = new URL(url);
  return { ok: true, json: async () => json(path), arrayBuffer: async () => bytes(path) };
};
const { handle } = await import(WIDGETS + "worker.mjs");
const assets = { engine: WIDGETS + "engine.mjs", ...data.assets };
const answers = [];
for (const question of data.questions) {
  const answered = handle({ assets, question });
  answers.push(await answered.then(({ predictions }) => predictions.length, ({ message }) => message));
}
console.log(JSON.stringify([answers, fetched]));
"""
STRANGE = [
    "",
    "   ",
    "x" * 10_000,
    "king " * 2_000,
    "🙂🙂",
    "台灣大學",
    "שלום עולם",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "the zebra.",
    "[MASK] [MASK]",
    "[CLS] the [SEP]",
    "\u0000\u0301",
    "the the the",
]


@pytest.fixture
def tiny(checkpoints, language) -> MaskPlayground:
    found = checkpoints["tinyworld-bert"]
    return MaskPlayground(model=found.model, tokenizer=found.tokenizer, language=language)


@pytest.fixture
def story(checkpoints) -> MaskPlayground:
    found = checkpoints["storybook-bert"]
    return MaskPlayground(model=found.model, tokenizer=found.tokenizer)


def all_kinds(count: int) -> list[dict]:
    kinds = [{"kind": "mask"}, {"kind": "random", "seed": 4321}, {"kind": "unchanged"}]
    return [{"position": 3 * i + 1, **kinds[i % 3]} for i in range(count)]


def near(found, expected, where="answer"):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            near(found[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            near(a, b, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-6), (
            f"{where}: {found} is not {expected}"
        )
    else:
        assert found == expected, f"{where}: {found!r} is not {expected!r}"


@pytest.mark.parametrize("name", ["tinyworld-bert", "storybook-bert"])
def test_page_and_kernel_give_the_same_answers(run_node, checkpoints, language, name):
    truth = language if name == "tinyworld-bert" else None
    texts = [language.render(d.tokens[: d.sentences[1][1]]) for d in language.documents(6, seed=5)]
    texts += [*(sentence for sentence, _ in STORIES), *STRANGE, texts[0][:-1], "market " + texts[1]]
    questions = [{"sentence": text, "touched": all_kinds(3), "top": 5} for text in texts]
    found = checkpoints[name]
    data = {"folder": str(found.folder), "questions": questions, "language": truth and truth.data}
    for question, page in zip(questions, run_node(ANSWERS, data), strict=True):
        kernel = answer(**question, model=found.model, tokenizer=found.tokenizer, language=truth)
        near(page, kernel, question["sentence"][:40])


def test_a_question_that_cannot_be_answered_costs_no_second_download(run_node, checkpoints):
    folder = checkpoints["storybook-bert"].folder
    names = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
    assets = {part: (folder / name).as_uri() for part, name in names.items()}
    touched = [[{"position": 0, "kind": "random", "word": "two words"}], [{"position": 0, "kind": "mask"}]]
    questions = [{"sentence": "the king", "touched": one, "top": 5} for one in touched]
    (refusal, answered), fetched = run_node(QUESTIONS, {"assets": assets, "questions": questions})
    assert "two words" in refusal and answered == 1
    assert sorted(fetched) == sorted(assets.values()), "the model was fetched again"


def test_the_truth_is_loaded_once_it_is_asked_for(run_node, checkpoints, language, tmp_path):
    """Also where the same model has answered without."""
    code = QUESTIONS.split("const answers")[0] + """
    const truth = { world: data.world, tinyworld: WIDGETS + "tinyworld.mjs" }, question = data.question;
    const found = [];
    for (const more of [{}, truth, {}, truth]) found.push(await handle({ assets: { ...assets, ...more }, question }));
    console.log(JSON.stringify(found.map((one) => one.truth.length)));
    """
    (tmp_path / "world.json").write_text(json.dumps(language.data), encoding="utf8")
    names = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
    assets = {part: (checkpoints["tinyworld-bert"].folder / name).as_uri() for part, name in names.items()}
    (document,) = language.documents(1, seed=5)
    sentence = language.render(document.tokens[: document.sentences[1][1]])
    question = {"sentence": sentence, "touched": [{"position": 1, "kind": "mask"}], "top": 5}
    data = {"assets": assets, "world": (tmp_path / "world.json").as_uri(), "question": question}
    assert run_node(code, data) == [0, 1, 0, 1]


def test_the_prediction_is_the_models_probability_and_its_loss(tiny, checkpoints):
    import torch

    tiny.touched = [2]
    (prediction,) = tiny.predictions
    found = checkpoints["tinyworld-bert"]
    ids = found.tokenizer(tiny.sentence)["input_ids"]
    real, ids[3] = ids[3], found.tokenizer.mask_token_id
    with torch.no_grad():
        p = found.model(torch.tensor([ids]))[0, 3].softmax(-1)
    assert prediction["real"] == found.tokenizer.convert_ids_to_tokens(real)
    assert math.isclose(prediction["loss"], -math.log(p[real]), rel_tol=1e-4)
    assert math.isclose(tiny.cross_entropy, prediction["loss"])
    assert prediction["top"][0][0] == found.tokenizer.convert_ids_to_tokens(int(p.argmax()))


def test_the_truth_is_the_exact_posterior_of_all_touched_words(tiny, language):
    tiny.touched = [{"position": 1, "kind": "random", "seed": 9}, {"position": 4, "kind": "unchanged"}]
    tokens = language.tokenize(tiny.sentence)
    exact = language.posterior(tokens, [1, 4])
    for entry, row in zip(tiny.truth, exact, strict=True):
        assert math.isclose(entry["top"][0][1], row.max(), rel_tol=1e-9)
        assert math.isclose(math.exp(-entry["loss"]), row[language.index[entry["real"]] + 5], rel_tol=1e-9)


def test_kinds_show_the_model_a_mask_a_random_token_or_the_word(story):
    story.sentence = "The king had three daughters."
    random = {"position": 2, "kind": "random", "word": "was"}
    story.touched = [1, random, {"position": 3, "kind": "unchanged"}]
    seen = [word["seen"] for word in story.words]
    assert seen[1] == ["[MASK]"] and seen[2] == ["was"] and seen[3] == story.words[3]["pieces"]
    assert {entry["position"] for entry in story.predictions} == {1, 2, 3}, "all touched words are asked for"
    assert story.truth == [] and story.floor is None


def test_a_word_of_several_pieces_is_hidden_whole(story):
    story.sentence = "the captain shouted kingdaughters"
    story.touched = [3]
    pieces = story.words[3]["pieces"]
    assert len(pieces) > 1 and story.words[3]["seen"] == ["[MASK]"] * len(pieces)
    assert [entry["real"] for entry in story.predictions] == pieces


def test_impossible_text_is_still_answered_by_the_model_and_named(tiny, language):
    tokens = language.tokenize(tiny.sentence)
    tiny.sentence = " ".join([*tokens[:2], tokens[1], *tokens[2:]])
    tiny.touched = [0]
    assert "Impossible in Tinyworld" in tiny.note and tokens[1] in tiny.note
    assert tiny.predictions and not tiny.truth
    tiny.sentence = "the zebra ."
    assert "zebra" in tiny.note and "Impossible in Tinyworld" in tiny.note


@pytest.mark.parametrize("text", STRANGE, ids=lambda text: ascii(text[:12]))
@pytest.mark.parametrize("name", ["tiny", "story"])
def test_strange_text_gets_an_answer_or_a_sentence(request, name, text):
    widget = request.getfixturevalue(name)
    widget.set_state({"sentence": text, "touched": all_kinds(3)})
    assert widget.sentence == text
    assert widget.note or widget.predictions
    assert sum(len(word["pieces"]) for word in widget.words) <= 126


@pytest.mark.parametrize(
    "state",
    [
        {"touched": [{"position": -1}]},
        {"touched": [{"position": "1"}]},
        {"touched": [{"position": True}]},
        {"touched": [{"position": 0, "kind": "burn"}]},
        {"touched": [{"position": 0, "kind": "random", "seed": -1}]},
        {"touched": [{"position": 0, "kind": "random", "word": "x" * 1000}]},
        {"touched": [{"position": 0, "kind": "random", "word": "two words"}]},
        {"touched": "all"},
        {"touched": [[1]]},
        {"sentence": 7},
        {"sentence": "x" * 10_001},
        {"model_name": "../../etc/passwd"},
        {"top": 0},
        {"top": "5"},
    ],
    ids=lambda state: ascii(state)[:50],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(tiny, state):
    before = {name: getattr(tiny, name) for name in tiny.QUESTION}
    count = tiny.answered
    tiny.set_state(state)
    assert tiny.note and tiny.answered == count + 1, "the page hears why"
    assert {name: getattr(tiny, name) for name in tiny.QUESTION} == before, "the question stays as it was"
    with pytest.raises((ValueError, traitlets.TraitError)):
        for name, value in state.items():
            setattr(tiny, name, value)


def test_the_page_cannot_write_answers(tiny):
    before = tiny.predictions
    tiny.set_state({"predictions": [], "note": "hello", "choices": [], "examples": {}, "anchor": "x"})
    assert tiny.predictions == before and tiny.note == "" and tiny.anchor == "mask" and tiny.choices


def test_it_is_an_ordinary_widget(tiny):
    slider = ipywidgets.IntSlider(3, min=1, max=8)
    ipywidgets.link((slider, "value"), (tiny, "top"))
    seen = []
    tiny.observe(lambda change: seen.append(change["new"]), "cross_entropy")
    box = ipywidgets.VBox([slider, tiny])
    assert tiny in box.children and tiny.top == 3
    slider.value = 6
    assert len(tiny.predictions[0]["top"]) >= 6
    tiny.touched = [1, 2]
    assert seen and seen[-1] == tiny.cross_entropy


def test_traits_that_change_together_are_one_question(tiny):
    count = tiny.answered
    tiny.set_state({"sentence": "the dog .", "touched": [{"position": 1}], "top": 3})
    assert tiny.answered == count + 1


def test_a_model_in_training_is_asked_without_dropout_and_left_in_training(checkpoints):
    found = checkpoints["storybook-bert"]
    found.model.train()
    try:
        touched = [{"position": 1, "kind": "mask"}]
        twice = [answer("the king", touched, 3, found.model, found.tokenizer) for _ in range(2)]
        assert found.model.training and twice[0] == twice[1]
    finally:
        found.model.eval()


def test_mask_at_random_is_seeded_and_masks_at_least_one_word(tiny):
    tiny.mask_at_random(0.5, seed=3)
    chosen = tiny.touched
    assert chosen and all(one["kind"] == "mask" for one in chosen)
    tiny.mask_at_random(0.5, seed=3)
    assert tiny.touched == chosen
    tiny.mask_at_random(1e-9)
    assert len(tiny.touched) == 1
    with pytest.raises(ValueError, match="rate"):
        tiny.mask_at_random(0)


def test_shipped_models_can_be_chosen_by_name(shipped):
    widget = MaskPlayground()
    assert [choice["name"] for choice in widget.choices] == ["tinyworld-bert", "storybook-bert"]
    assert widget.note == "" and widget.truth and widget.predictions, "no first answer before any click"
    widget.set_state({"model_name": "storybook-bert", "sentence": widget.examples["storybook-bert"][0][0]})
    assert widget.note == "" and widget.truth == []


def test_a_transformers_model_answers_as_ours_does(checkpoints):
    from selfsup.models.pretrained import to_transformers

    found = checkpoints["storybook-bert"]
    question = ("Once upon a time there was a king.", all_kinds(2), 5)
    theirs = answer(*question, to_transformers(found.model).eval(), found.tokenizer)
    near(theirs, answer(*question, found.model, found.tokenizer))


def test_a_model_without_its_tokenizer_is_refused(checkpoints):
    with pytest.raises(ValueError, match="tokenizer"):
        MaskPlayground(model=checkpoints["storybook-bert"].model)
    with pytest.raises(ValueError):
        MaskPlayground(model="no-such-bert")


def test_a_language_of_other_words_is_refused(checkpoints, language):
    found = checkpoints["storybook-bert"]
    with pytest.raises(ValueError, match="words"):
        MaskPlayground(model=found.model, tokenizer=found.tokenizer, language=language)


def test_a_touched_word_that_cannot_stand_there_is_named(tiny, language):
    tokens = language.tokenize(tiny.sentence)
    tokens[1] = next(word for word in language.words if word not in tokens and word.isalpha())
    tiny.sentence = " ".join(tokens)
    tiny.touched = [1]
    assert tiny.truth and tiny.truth[0]["loss"] is None and tiny.floor is None
    assert tokens[1] in tiny.note and "Impossible in Tinyworld" in tiny.note
