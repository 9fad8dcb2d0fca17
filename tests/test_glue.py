"""GLUE: every task's layout is read as it is meant, a task is learned in L1 and carried over to a clone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tree

import evaluate
import train
from common import UserError, read_json, write
from data import Dataset, Language, cloned_languages
from evaluate import TASKS, Classifier, Examples, accuracy, epoch, fine_tune, read_examples, read_rows
from model import GPT, Size

# A file's first line where the layout has one, an example, and what is to be read from it.
LAYOUTS = {
    "CoLA": (None, 'gj04\t1\t\tThe "cat sat.', ['The "cat sat.'], 1),
    "SST-2": ("sentence\tlabel", "a dull film \t0", ["a dull film "], 0),
    "MRPC": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "1\t10\t20\tOne.\tTwo.",
        ["One.", "Two."],
        1,
    ),
    "QQP": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "5\t1\t2\tWhy?\tHow?\t0",
        ["Why?", "How?"],
        0,
    ),
    "MNLI": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t2\tg\tb\tb\tp\tp\tIt rains.\tIt is wet.\tneutral\tcontradiction",
        ["It rains.", "It is wet."],
        2,
    ),
    "QNLI": ("index\tquestion\tsentence\tlabel", "0\tWho?\tHe.\tnot_entailment", ["Who?", "He."], 1),
    "RTE": (
        "index\tsentence1\tsentence2\tlabel",
        "0\tA man.\tA person.\tentailment",
        ["A man.", "A person."],
        0,
    ),
    "BoolQ": (None, '{"question": "is it", "passage": "It is.", "label": true}', ["is it", "It is."], 1),
    "MultiRC": (
        None,
        '{"passage": {"text": "P", "questions": [{"question":"Q", "answers": [{"text": "A", "label": 1}]}]}}',
        ["Q", "A", "P"],
        1,
    ),
    "WSC": (
        None,
        '{"text": "Tom sat as he ate.", "target": {"span1_text": "Tom", "span2_text": "he"}, "label": false}',
        ["Tom sat as he ate.", "he", "Tom"],
        0,
    ),
}


def write_task(folder, name, many=2):
    """A task's folder as the official download lays it out, with one example over and over."""
    header, example, _, _ = LAYOUTS[name]
    for file in TASKS[name].files:
        write(folder / name / file, "\n".join([*([header] if header else []), *[example] * many]) + "\n")


@pytest.fixture(scope="module")
def tokenizer(prepared):
    return Dataset(prepared).tokenizer("en")


# --- the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_layout_is_read(tmp_path, tokenizer, name):
    write_task(tmp_path, name)
    _, _, texts, label = LAYOUTS[name]
    for file in TASKS[name].files:
        examples = read_examples(tmp_path / name / file, TASKS[name], tokenizer, 1000)
        assert examples.labels.tolist() == [label] * 2
        for row in examples.rows:
            parts = np.split(row, np.flatnonzero(row == 2) + 1)[:-1]
            assert [tokenizer.decode(part.tolist()) for part in parts] == [text.rstrip() for text in texts]


def test_the_paper_has_eleven_results():
    assert sum(len(task.files) - 1 for task in TASKS.values()) == 11
    assert not {"STS-B", "WNLI"} & set(TASKS)


def test_texts_are_closed_joined_and_cut(tmp_path, tokenizer):
    lines = [
        "index\tsentence1\tsentence2\tlabel",
        "0\tThe function\treturns a list.\tentailment",
        "1\t\t\tentailment",
    ]
    write(tmp_path / "train.tsv", "\n".join([*lines, f"2\t{'word ' * 50}\tcut off\tnot_entailment"]))
    pair, empty, long = read_examples(tmp_path / "train.tsv", TASKS["RTE"], tokenizer, 16).rows
    assert (
        pair.tolist() == [*tokenizer.encode("The function"), 2, *tokenizer.encode("returns a list."), 2][:16]
    )
    assert empty.tolist() == [2, 2]
    assert long.tolist() == tokenizer.encode("word " * 50)[:16]


def test_multirc_has_an_example_for_each_answer(tmp_path):
    answers = [{"text": "A", "label": 0}, {"text": "B", "label": 1}]
    record = {
        "passage": {"text": "P", "questions": [{"question": q, "answers": answers} for q in ("Q1", "Q2")]}
    }
    (tmp_path / "val.jsonl").write_text(json.dumps(record))
    rows = read_rows(tmp_path / "val.jsonl", TASKS["MultiRC"])
    found = [(row["question"], row["answer"], row["passage"], row["label"]) for row in rows]
    assert found == [("Q1", "A", "P", 0), ("Q1", "B", "P", 1), ("Q2", "A", "P", 0), ("Q2", "B", "P", 1)]


def test_broken_rows_are_left_out_and_counted(tmp_path, capsys):
    write_task(tmp_path, "QQP")
    with open(tmp_path / "QQP" / "train.tsv", "a") as file:
        file.write("6\t1\tcut short\n" + LAYOUTS["QQP"][1])
    assert len(list(read_rows(tmp_path / "QQP" / "train.tsv", TASKS["QQP"]))) == 3
    assert "train.tsv: 1 rows without all cells are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("RTE", "", "holds no examples"),
        ("RTE", "index\tsentence1\tlabel\n0\ta\tentailment", "it has no column 'sentence2'"),
        ("RTE", "sentence1\tsentence2\tlabel\na\tb\tmaybe", "a label is 'maybe', expected entailment"),
        ("RTE", b"sentence1\tsentence2\tlabel\n\xff\tb\tentailment", "can't decode byte"),
        ("BoolQ", "{", "Expecting property name"),
        ("BoolQ", "[1]", "list indices"),
        ("BoolQ", '{"question": "q", "passage": 5, "label": true}', "expected string"),
        ("WSC", '{"text": "t", "target": [], "label": true}', "list indices"),
    ],
)
def test_unusable_files_are_named(tmp_path, tokenizer, name, content, sentence):
    path = tmp_path / TASKS[name].files[0]
    write(path, content)
    with pytest.raises(UserError) as error:
        read_examples(path, TASKS[name], tokenizer, 128)
    assert str(path) in str(error.value)
    assert sentence in str(error.value)


# --- learning -------------------------------------------------------------------------------------


def copied_clones(pieces: int = 40) -> tuple[GPT, list[Language]]:
    """A fresh model of two clones whose second has the first one's rows."""
    torch.manual_seed(0)
    languages = cloned_languages("en", pieces, 2)
    model = GPT(Size(layers=1, width=32, heads=2, head_dim=16, mlp=64), 2 * pieces, 16)
    with torch.no_grad():
        model.token_embedding.weight[pieces:] = model.token_embedding.weight[:pieces]
    return model.eval(), languages


def coloured(many: int, seed: int) -> Examples:
    """A task that can be learned: the last token of a row, 3 or 4, is its label."""
    random = np.random.default_rng(seed)
    rows = [random.integers(5, 40, random.integers(1, 12)) for _ in range(many)]
    labels = random.integers(0, 2, many)
    rows = [np.append(row, 3 + label).astype(np.uint16) for row, label in zip(rows, labels, strict=True)]
    return Examples(rows, labels)


@pytest.fixture
def learn(monkeypatch):
    """Fine-tune copied clones on the coloured task in less than a second: (model, languages, classifier)."""
    recipe = {"LEARNING_RATE": 3e-3, "BATCH": 20, "EPOCHS": 10, "EVALUATE_EVERY": 10, "PATIENCE": 30}
    for name, value in recipe.items():
        monkeypatch.setattr(evaluate, name, value)

    def call(seed=0):
        model, languages = copied_clones()
        options = {"labels": 2, "seed": seed, "label": ""}
        tuned = fine_tune(model, coloured(200, 1), coloured(80, 2), languages[0].table, **options)
        return model, languages, tuned

    return call


def test_an_epoch_has_every_example_once_and_little_padding():
    random = np.random.default_rng(0)
    rows = [np.zeros(length, np.uint16) for length in random.integers(5, 128, 3000)]
    first, second = epoch(rows, random), epoch(rows, random)
    for batches in (first, second):
        assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
        assert max(map(len, batches)) == evaluate.BATCH
    padded = sum(len(batch) * max(len(rows[i]) for i in batch) for batch in first)
    assert padded < 1.1 * sum(map(len, rows))
    longest = [max(len(rows[i]) for i in batch) for batch in first]
    assert longest != sorted(longest)
    assert first[0].tolist() != second[0].tolist()


def test_answers_do_not_depend_on_padding():
    model, (_, clone) = copied_clones()
    classifier, rows = Classifier(model, 1).eval(), coloured(80, 2).rows
    with torch.no_grad():
        classifier.head.weight.mul_(50)  # answers that differ
        together = classifier(rows, clone.table)[:, 0].numpy()
        alone = [classifier([row], clone.table).item() for row in rows]
    assert together == pytest.approx(alone, abs=0.03 * np.std(together))  # bf16, where the processor has it
    assert np.std(together) > 0


def test_a_task_is_learned_in_l1_and_a_copied_clone_has_it_too(learn):
    model, languages, classifier = learn()
    first, second = (accuracy(classifier, coloured(80, 2), language.table) for language in languages)
    assert first > 0.95
    assert second > 0.8
    # The run's own model stays as it was; EN2's rows of the table are no one's gradient, and stay, too.
    untouched, _ = copied_clones()
    assert all(
        torch.equal(weight, model.state_dict()[name]) for name, weight in untouched.state_dict().items()
    )
    before, after = untouched.token_embedding.weight, classifier.gpt.token_embedding.weight
    assert torch.equal(after[40:], before[40:])
    assert not torch.equal(after[3:5], before[3:5])


def test_fine_tuning_follows_from_its_seed(learn, monkeypatch):
    monkeypatch.setattr(evaluate, "EPOCHS", 1)
    one, same, other = (learn(seed)[-1].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_patience_ends_it_and_the_best_step_is_kept(learn, monkeypatch):
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.65, 0.9])
    monkeypatch.setattr(evaluate, "accuracy", lambda *_: next(scores))
    *_, stopped = learn()
    assert next(scores) == 0.9  # not looked at: three scores in a row were no better than the second
    monkeypatch.setattr(evaluate, "accuracy", lambda *_: 0.5)
    monkeypatch.setattr(evaluate, "EVALUATE_EVERY", 20)
    *_, after_20_steps = learn()
    weights = after_20_steps.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in stopped.state_dict().items())


# --- the command ----------------------------------------------------------------------------------


def train_one_step(out: Path, data: Path, *flags: str) -> Path:
    """A run's folder."""
    shape = [
        "--size",
        "nano",
        "--length",
        "32",
        "--batch",
        "8",
        "--tokens",
        "256",
        "--no-compile",
        "--no-score",
    ]
    train.main(["--data", str(data), "--out", str(out), *shape, *flags, "--device", "cpu"])
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory, babel):
    """A run of one step, in which EN1 and EN2 are clones."""
    return train_one_step(tmp_path_factory.mktemp("glue") / "run", babel)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of two small tasks."""
    folder = tmp_path_factory.mktemp("glue")
    for i in range(2):
        write(folder / "CoLA" / TASKS["CoLA"].files[i], "x\t0\t\tA bad one.\nx\t1\t\tA good one.\n" * 3)
        write(
            folder / "SST-2" / TASKS["SST-2"].files[i],
            "sentence\tlabel\n" + "a bad film\t0\na good film\t1\n" * 3,
        )
    return folder


def test_glue_is_merged_task_by_task_and_the_run_is_kept(run, tasks, command):
    before, weights = read_json(run / "result.json"), (run / "model.pt").read_bytes()
    flags = ["--glue", tasks, "--seeds", 2, "--device", "cpu"]
    code, _, _ = command(evaluate.main, run, *flags, "--tasks", "SST-2")
    first = read_json(run / "result.json")
    assert (code, list(first["glue"])) == (0, ["SST-2"])
    code, out, _ = command(evaluate.main, run, *flags)
    assert "SST-2 in EN1" not in out  # it is known
    command(evaluate.main, run, "--glue", tasks, "--device", "cpu")  # one seed takes nothing from two
    after = read_json(run / "result.json")
    glue = after.pop("glue")
    assert after == before
    assert (run / "model.pt").read_bytes() == weights
    assert glue["SST-2"] == first["glue"]["SST-2"]
    assert glue["CoLA"]["majority"] == 0.5
    assert [len(entry[name]) for entry in glue.values() for name in ("EN1", "EN2")] == [2] * 4
    # The table has each language's mean and deviation over seeds, and says over how many tasks the mean is.
    *_, last_task, mean = out.strip().splitlines()
    one, two = glue["CoLA"]["EN1"]
    assert f"| {np.mean([one, two]):.3f} ± {abs(one - two) / 2**0.5:.3f} |" in last_task
    assert mean.startswith("| mean of 2 | ")
    assert f" {np.mean([glue[task]['EN1'] for task in glue]):.3f} |" in mean


def test_a_language_that_is_no_clone_of_l1_is_left_out(tmp_path, babel, tasks, command):
    run = train_one_step(tmp_path / "run", babel, "--languages", "en", "xx")
    assert command(evaluate.main, run, "--glue", tasks, "--tasks", "SST-2", "--device", "cpu")[0] == 0
    assert list(read_json(run / "result.json")["glue"]["SST-2"]) == ["seeds", "majority", "EN", "examples"]


def test_both_dev_sets_of_mnli_are_results(run, tmp_path, command):
    write_task(tmp_path, "MNLI")
    assert command(evaluate.main, run, "--glue", tmp_path, "--device", "cpu")[0] == 0
    glue = read_json(run / "result.json")["glue"]
    assert glue["MNLI"]["majority"] == glue["MNLI-mm"]["majority"] == 1
    assert len(glue["MNLI-mm"]["EN2"]) == 1


def test_a_missing_file_changes_nothing(run, tmp_path, command):
    write_task(tmp_path, "RTE")
    (tmp_path / "RTE" / "dev.tsv").unlink()
    before = tree(run)
    code, _, error = command(evaluate.main, run, "--glue", tmp_path, "--device", "cpu")
    assert (code, tree(run)) == (2, before)
    assert "RTE/dev.tsv: No such file or directory" in error


def test_other_examples_are_learned_anew(run, tasks, command):
    flags = ["--glue", tasks, "--tasks", "SST-2", "--device", "cpu"]
    command(evaluate.main, run, *flags)
    assert "SST-2 in EN1" not in command(evaluate.main, run, *flags)[1]
    with open(tasks / "SST-2" / "train.tsv", "a") as file:
        file.write("a film, another one\t1\n\n")  # and an empty line
    assert "SST-2 in EN1" in command(evaluate.main, run, *flags)[1]


def test_examples_that_are_cut_are_counted(tmp_path, prepared, capsys):
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\n" + "word " * 99 + "\t1\nshort\t0\n")
    evaluate.read_examples(path, TASKS["SST-2"], Dataset(prepared).tokenizer("en"), 16)
    assert "1 of 2 examples are longer than 16 tokens; their end is cut off" in capsys.readouterr().out
