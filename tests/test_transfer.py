"""Fine-tuning: what a batch holds, that a task is learned and carried over to a clone, and what is merged and kept."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import tree

import evaluate
import train
from common import Progress
from glue import TASKS, Example, TaskData
from languages import Language, cloned_languages
from model import GPT, SIZES
from shards import Dataset
from transfer import (
    Classifier,
    Encoded,
    Recipe,
    average_accuracy,
    batches,
    encode,
    fine_tune,
    pad,
    predict,
    steps_of,
    summary,
    table,
)

CPU = torch.device("cpu")
SMALL = dataclasses.replace(SIZES["nano"], layers=1, width=32, heads=2, head_dim=16, mlp=64)


def copied_clones(pieces: int = 40) -> tuple[GPT, list[Language]]:
    """A fresh model of two clones whose second has the first one's rows."""
    torch.manual_seed(0)
    languages = cloned_languages("en", pieces, 2)
    model = GPT(SMALL, 2 * pieces, 16)
    with torch.no_grad():
        model.token_embedding.weight[pieces:] = model.token_embedding.weight[:pieces]
    return model.eval(), languages


def coloured(examples: int, seed: int) -> tuple[list[Example], list[np.ndarray]]:
    """A task that can be learned: the last token of a row, 3 or 4, is its label."""
    random = np.random.default_rng(seed)
    rows = [random.integers(5, 40, random.integers(1, 12)) for _ in range(examples)]
    labels = random.integers(0, 2, examples)
    rows = [np.append(row, 3 + label).astype(np.uint16) for row, label in zip(rows, labels, strict=True)]
    return [Example(("",), int(label)) for label in labels], rows


@pytest.fixture(scope="module")
def task():
    """The coloured task, as TaskData and as rows."""
    (train_examples, train_rows), (dev_examples, dev_rows) = coloured(200, 1), coloured(80, 2)
    data = TaskData("SST-2", TASKS["SST-2"], train_examples, {"SST-2": dev_examples})
    return data, Encoded(train_rows, {"SST-2": dev_rows})


def test_texts_are_closed_joined_and_cut(prepared):
    tokenizer = Dataset(prepared).tokenizer("en")
    examples = [Example(("The function", "returns a list."), 0), Example(("",), 1), Example(("word " * 50,), 1)]
    pair, empty, long = encode(examples, tokenizer, 16, Progress("", 3, "examples", quiet=True))
    one, other = (tokenizer.encode(text) for text in examples[0].texts)
    assert pair.tolist() == [*one, 2, *other, 2][:16]
    assert empty.tolist() == [2]
    assert long.tolist() == tokenizer.encode("word " * 50)[:16]


def test_a_batch_is_padded_on_the_right_and_read_through_the_table():
    _, languages = copied_clones()
    tokens, last = pad([np.array([5, 6, 7], np.uint16), np.array([8], np.uint16)], languages[1].table, CPU)
    assert tokens.tolist() == [[45, 46, 47], [48, 0, 0]]
    assert last.tolist() == [2, 0]


def test_answers_do_not_depend_on_padding_batch_or_order(task):
    model, languages = copied_clones()
    classifier = Classifier(model, 1, 0.1)
    with torch.no_grad():
        classifier.head.weight.mul_(50)  # ratings that differ
    rows = task[1].dev["SST-2"]
    whole = predict(classifier, rows, languages[0].table)
    single = [predict(classifier, [row], languages[0].table)[0] for row in rows]
    assert whole == pytest.approx(single, abs=0.03 * np.std(whole))  # bf16, where the processor has it
    assert np.std(whole) > 0


def test_every_epoch_reads_each_example_once():
    recipe = Recipe(batch=8, epochs=3)
    steps = list(batches(21, recipe, 5))
    assert len(steps) == steps_of(21, recipe) == 9
    epochs = [np.concatenate(steps[first : first + 3]) for first in (0, 3, 6)]
    assert all(sorted(epoch.tolist()) == list(range(21)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert all(np.array_equal(*pair) for pair in zip(steps, batches(21, recipe, 5), strict=True))
    assert not np.array_equal(np.concatenate(steps), np.concatenate(list(batches(21, recipe, 6))))
    assert steps_of(21, recipe._replace(max_steps=4)) == 4


FAST = Recipe(learning_rate=3e-3, batch=20, epochs=10, evaluate_every=10, patience=3)


def test_a_task_is_learned_in_l1_and_a_copied_clone_has_it_too(task):
    model, languages = copied_clones()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    data, encoded = task
    classifier, best = fine_tune(model, data, encoded, languages[0], recipe=FAST, seed=0)
    labels = [example.label for example in data.dev["SST-2"]]
    first, second = (predict(classifier, encoded.dev["SST-2"], language.table) for language in languages)
    assert np.mean(first == labels) > 0.95
    assert best % 10 == 0
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    # EN2's rows of the table are no one's gradient: they stand where they stood, and what was learned above them holds.
    assert torch.equal(classifier.gpt.token_embedding.weight[40:], before["token_embedding.weight"][40:])
    assert not torch.equal(classifier.gpt.token_embedding.weight[3:5], before["token_embedding.weight"][3:5])
    assert np.mean(second == labels) > 0.8


def test_fine_tuning_follows_from_its_seed(task):
    model, languages = copied_clones()
    data, encoded = task
    recipe = FAST._replace(max_steps=12)
    runs = [fine_tune(model, data, encoded, languages[0], recipe=recipe, seed=seed)[0].state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert any(not torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_patience_ends_it_and_the_best_step_is_scored(task, monkeypatch, capsys):
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.65, 0.9])
    monkeypatch.setattr("transfer.measure_answers", lambda *_: {"accuracy": next(scores)})
    model, languages = copied_clones()
    data, encoded = task
    stopped, best = fine_tune(model, data, encoded, languages[0], recipe=FAST, seed=0)
    assert best == 20
    assert next(scores) == 0.9  # not looked at: three evaluations in a row were no better than the second
    monkeypatch.undo()
    until, _ = fine_tune(model, data, encoded, languages[0], recipe=FAST._replace(max_steps=20, evaluate_every=20), seed=0)
    assert all(torch.equal(weight, until.state_dict()[name]) for name, weight in stopped.state_dict().items())


def test_ratings_are_learned_by_regression(task):
    model, languages = copied_clones()
    (_, rows), (examples, dev) = coloured(200, 1), coloured(80, 2)
    ratings = [Example(("",), float(row[-1])) for row in rows]
    data = TaskData("STS-B", TASKS["STS-B"], ratings, {"STS-B": [Example(("",), 3.0 + example.label) for example in examples]})
    classifier, _ = fine_tune(model, data, Encoded(rows, {"STS-B": dev}), languages[0], recipe=FAST, seed=0)
    found = predict(classifier, dev, languages[0].table)
    assert classifier.head.out_features == 1
    assert np.corrcoef(found, [row[-1] for row in dev])[0, 1] > 0.9


def test_average_and_table():
    def entry(measures):
        return {
            "measures": {name: {"majority": low, "EN1": summary(one), "EN2": summary(two)} for name, low, one, two in measures}
        }

    entries = {
        "CoLA": entry([("accuracy", 0.7, [0.8, 0.9], [0.7, 0.7]), ("Matthews", 0.0, [0.2, 0.4], [0.0, 0.0])]),
        "RTE": entry([("accuracy", 0.5, [0.6, 0.6], [0.5, 0.4])]),
        "STS-B": entry([("Pearson", 0.0, [0.9, 0.9], [0.1, 0.1])]),
    }
    averages = average_accuracy(entries, ["EN1", "EN2"])
    assert averages == pytest.approx({"EN1": 0.725, "EN2": 0.575, "majority": 0.6})
    lines = table(entries, ["EN1", "EN2"]).splitlines()
    assert lines[2] == "| CoLA | accuracy | 0.850 ± 0.071 | 0.700 ± 0.000 | 0.700 |"
    assert lines[-2] == "| STS-B | Pearson | 0.900 ± 0.000 | 0.100 ± 0.000 | 0.000 |"
    assert lines[-1] == "| average | accuracy | 0.725 | 0.575 | 0.600 |"
    assert average_accuracy({"STS-B": entries["STS-B"]}, ["EN1", "EN2"]) == {}
    assert summary([0.5])["deviation"] is None
    assert math.isclose(summary([0.2, 0.4])["deviation"], 0.2 / 2**0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared):
    """A balanced run of four steps, evaluated."""
    out = tmp_path_factory.mktemp("out") / "run"
    flags = ["--size", "nano", "--length", "32", "--batch", "8", "--tokens", "1024", "--no-compile", "--device", "cpu"]
    train.main(["--ratio", "0.5", "--data", str(prepared), "--out", str(out), *flags])
    result = json.loads((out / "result.json").read_text())
    for language in result["languages"]:  # as if its perplexity were known, which takes longer to find
        language.update(dict.fromkeys(evaluate.MEASURED, 9.0))
    (out / "result.json").write_text(json.dumps(result))
    return out


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with two small tasks."""
    folder = tmp_path_factory.mktemp("glue")
    cola = "\n".join(f"x\t{label}\t\tA {word} sentence." for word, label in [("bad", 0), ("good", 1)] * 3)
    sst = "\n".join(["sentence\tlabel", *[f"a {word} film\t{label}" for word, label in [("bad", 0), ("good", 1)] * 3]])
    for name, content in (("CoLA", cola), ("SST-2", sst)):
        (folder / name).mkdir()
        for file in ("train.tsv", "dev.tsv"):
            (folder / name / file).write_text(content)
    return folder


def test_glue_is_merged_task_by_task_and_the_run_is_kept(trained, tasks, command):
    before, weights = json.loads((trained / "result.json").read_text()), (trained / "model.pt").read_bytes()
    code, out, _ = command(evaluate.main, trained, "--glue", tasks, "--tasks", "SST-2", "--glue-steps", 1)
    assert code == 0
    assert "result.json stays as it is" in out
    assert json.loads((trained / "result.json").read_text()) == before
    code, out, _ = command(evaluate.main, trained, "--glue", tasks, "--tasks", "SST-2", "--seeds", 2)
    assert code == 0
    assert "cut to 32 tokens" in out
    first = json.loads((trained / "result.json").read_text())
    assert first["glue"]["tasks"]["SST-2"]["seeds"] == [0, 1]
    code, out, _ = command(evaluate.main, trained, "--glue", tasks, "--seeds", 2)
    assert "SST-2 is evaluated already" in out
    after = json.loads((trained / "result.json").read_text())
    found = after.pop("glue")
    assert after == before
    assert (trained / "model.pt").read_bytes() == weights
    assert found["tasks"]["SST-2"] == first["glue"]["tasks"]["SST-2"]
    measures = found["tasks"]["CoLA"]["measures"]
    assert list(measures) == ["accuracy", "Matthews"]
    assert measures["accuracy"]["majority"] == 0.5
    for name in ("EN1", "EN2"):
        values = [found["tasks"][task]["measures"]["accuracy"][name]["mean"] for task in ("CoLA", "SST-2")]
        assert found["average_accuracy"][name] == pytest.approx(np.mean(values))
    assert out.splitlines()[-1].startswith("| average | accuracy |")


def test_glue_is_not_reported_for_another_language(tmp_path, babel, tasks, command):
    flags = ["--size", "nano", "--length", 32, "--batch", 8, "--tokens", 1024, "--no-compile", "--device", "cpu"]
    out = tmp_path / "run"
    assert command(train.main, "--languages", "en", "xx", "--data", babel, "--out", out, *flags)[0] == 0
    result = json.loads((out / "result.json").read_text())
    for language in result["languages"]:
        language.update(dict.fromkeys(evaluate.MEASURED, 9.0))
    (out / "result.json").write_text(json.dumps(result))
    code, text, _ = command(evaluate.main, out, "--glue", tasks, "--tasks", "SST-2")
    assert code == 0
    assert "nothing is reported for XX" in text
    measures = json.loads((out / "result.json").read_text())["glue"]["tasks"]["SST-2"]["measures"]
    assert list(measures["accuracy"]) == ["majority", "EN"]


def test_a_broken_task_changes_nothing(trained, tasks, command, tmp_path):
    (tmp_path / "WNLI").mkdir()
    (tmp_path / "WNLI" / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1")
    before = tree(trained)
    code, _, error = command(evaluate.main, trained, "--glue", tmp_path, "--again")
    assert code == 2
    assert "WNLI/train.tsv does not exist" in error
    assert tree(trained) == before
