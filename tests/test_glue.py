"""GLUE's files: every task's layout is read as it is meant, what is wrong is named; and the measures in closed form."""

import json

import numpy as np
import pytest

import glue
from common import UserError
from glue import TASKS, accuracy, constant_answer, correlation, read_tasks

HEADERS = {
    "SST-2": "sentence\tlabel",
    "MRPC": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "MNLI": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
    "QNLI": "index\tquestion\tsentence\tlabel",
    "RTE": "index\tsentence1\tsentence2\tlabel",
    "WNLI": "index\tsentence1\tsentence2\tlabel",
    "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
}
ROWS = {
    "CoLA": ('gj04\t1\t\tThe "cat sat.', ('The "cat sat.',), 1),
    "SST-2": ("a dull film \t0", ("a dull film",), 0),
    "MRPC": ("1\t10\t20\tOne.\tTwo.", ("One.", "Two."), 1),
    "QQP": ("5\t1\t2\tWhy?\tHow?\t0", ("Why?", "How?"), 0),
    "MNLI": ("0\t1\t2\tg\tb\tb\tp\tp\tIt rains.\tIt is wet.\tneutral\tcontradiction", ("It rains.", "It is wet."), 2),
    "QNLI": ("0\tWho?\tHe did.\tnot_entailment", ("Who?", "He did."), 1),
    "RTE": ("0\tA man.\tA person.\tentailment", ("A man.", "A person."), 0),
    "WNLI": ("0\tIt fell.\tThe cup fell.\t1", ("It fell.", "The cup fell."), 1),
    "STS-B": ("0\tg\tf\t2012\t1\tn\tn\tA plane.\tAn air plane.\t4.25", ("A plane.", "An air plane."), 4.25),
    "BoolQ": (json.dumps({"question": "is it", "passage": "It is.", "idx": 0, "label": True}), ("is it", "It is."), 1),
    "MultiRC": (
        json.dumps({"idx": 0, "passage": {"text": "Long.", "questions": [
            {"question": "Q?", "idx": 0, "answers": [{"text": "Yes.", "idx": 0, "label": 1}]}]}}),
        ("Q?", "Yes.", "Long."),
        1,
    ),
    "WSC": (
        json.dumps({"text": "Tom ran as he fell.", "label": False, "idx": 1, "target": {
            "span1_index": 0, "span1_text": "Tom", "span2_index": 3, "span2_text": "he"}}),
        ("Tom ran as he fell.", "he", "Tom"),
        0,
    ),
}  # fmt: skip


def write_task(folder, name, rows=2):
    """A task's folder in the official layout, with the same row over and over."""
    task = TASKS[name]
    (folder / name).mkdir(parents=True, exist_ok=True)
    header = [HEADERS[name]] if name in HEADERS else []
    for file in (task.train, *task.dev):
        (folder / name / file).write_text("\n".join([*header, *[ROWS[name][0]] * rows]) + "\n")


@pytest.mark.parametrize("name", TASKS)
def test_every_layout_is_read(tmp_path, name):
    write_task(tmp_path, name)
    (data,) = read_tasks(tmp_path, [name])
    sets = {"MNLI": ["MNLI", "MNLI-mm"]}.get(name, [name])
    assert list(data.dev) == sets
    for examples in (data.train, *data.dev.values()):
        assert [(example.texts, example.label) for example in examples] == [ROWS[name][1:]] * 2


def test_tasks_that_are_there_are_read_in_the_order_of_the_table(tmp_path):
    for name in ("WSC", "RTE", "CoLA"):
        write_task(tmp_path, name)
    (tmp_path / "diagnostic").mkdir()
    assert [data.name for data in read_tasks(tmp_path)] == ["CoLA", "RTE", "WSC"]
    assert [data.name for data in read_tasks(tmp_path, ["WSC", "CoLA"])] == ["CoLA", "WSC"]


def test_multirc_has_an_example_for_each_answer(tmp_path):
    write_task(tmp_path, "MultiRC")
    answers = [{"text": "A", "label": 0}, {"text": "B", "label": 1}]
    record = {"passage": {"text": "P", "questions": [{"question": q, "answers": answers} for q in ("Q1", "Q2")]}}
    (tmp_path / "MultiRC" / "val.jsonl").write_text(json.dumps(record))
    (data,) = read_tasks(tmp_path)
    found = [(*example.texts, example.label) for example in data.dev["MultiRC"]]
    assert found == [("Q1", "A", "P", 0), ("Q1", "B", "P", 1), ("Q2", "A", "P", 0), ("Q2", "B", "P", 1)]


def test_broken_rows_of_the_official_qqp_are_left_out_and_counted(tmp_path, capsys):
    write_task(tmp_path, "QQP")
    with open(tmp_path / "QQP" / "train.tsv", "a") as file:
        file.write("6\t1\tcut short\n" + ROWS["QQP"][0])
    (data,) = read_tasks(tmp_path)
    assert len(data.train) == 3
    assert "1 row(s) without all cells left out, the first is line 4" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "file", "content", "sentence"), [
    ("RTE", "train.tsv", HEADERS["RTE"] + "\n0\tone\ttwo\n", "RTE/train.tsv:2 has 3 cell(s) between tabs, expected 4"),
    ("RTE", "dev.tsv", HEADERS["RTE"] + "\n0\ta\tb\tentailment\textra", "RTE/dev.tsv:2 has 5 cell(s)"),
    ("RTE", "dev.tsv", "index\tsentence1\tlabel\n0\ta\tentailment", "dev.tsv:1 names the columns index, sentence1, label, "
     "expected also sentence2"),
    ("RTE", "dev.tsv", HEADERS["RTE"] + "\n\n0\ta\tb\tmaybe", "RTE/dev.tsv:3 has the label 'maybe', expected entailment or"),
    ("CoLA", "train.tsv", "sentence\tlabel\nx\t1", "CoLA/train.tsv:1 has 2 cell(s) between tabs, expected 4"),
    ("CoLA", "train.tsv", "gj04\t2\t\tx", "CoLA/train.tsv:1 has the label '2', expected 0 or 1"),
    ("STS-B", "dev.tsv", HEADERS["STS-B"] + "\n0\tg\tf\ty\t1\tn\tn\ta\tb\thigh", "STS-B/dev.tsv:2 has the score 'high', "
     "expected a number"),
    ("STS-B", "dev.tsv", HEADERS["STS-B"] + "\n0\tg\tf\ty\t1\tn\tn\ta\tb\tnan", "expected a number"),
    ("SST-2", "dev.tsv", "", "SST-2/dev.tsv holds no examples"),
    ("SST-2", "dev.tsv", HEADERS["SST-2"], "SST-2/dev.tsv holds no examples"),
    ("SST-2", "dev.tsv", None, "SST-2/dev.tsv does not exist"),
    ("SST-2", "train.tsv", None, "SST-2/train.tsv does not exist"),
    ("SST-2", "dev.tsv", b"sentence\tlabel\ncaf\xe9\t1", "SST-2/dev.tsv:2 is not UTF-8"),
    ("SST-2", "dev.tsv", "sentence\tlabel\nx\t1".encode("utf-16"), "SST-2/dev.tsv:1 is binary or UTF-16"),
    ("MNLI", "dev_mismatched.tsv", None, "MNLI/dev_mismatched.tsv does not exist"),
    ("BoolQ", "val.jsonl", "{", "BoolQ/val.jsonl:1 is not a JSON object"),
    ("BoolQ", "val.jsonl", "[1]", "BoolQ/val.jsonl:1 is not a JSON object"),
    ("BoolQ", "val.jsonl", '{"question": "q", "label": true}', "BoolQ/val.jsonl:1 lacks the field 'passage'"),
    ("BoolQ", "val.jsonl", '{"question": "q", "passage": 5, "label": true}', "BoolQ/val.jsonl:1 is not a JSON object with"),
    ("BoolQ", "train.jsonl", '{"question": "q", "passage": "p", "label": 7}', "train.jsonl:1 has the label '7', expected false"),
    ("MultiRC", "val.jsonl", '{"passage": {"text": "p"}}', "MultiRC/val.jsonl:1 lacks the field 'questions'"),
    ("WSC", "val.jsonl", '{"text": "t", "target": [], "label": true}', "WSC/val.jsonl:1 is not a JSON object with"),
])  # fmt: skip
def test_unusable_files_are_named(tmp_path, name, file, content, sentence):
    write_task(tmp_path, name)
    path = tmp_path / name / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_tasks(tmp_path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_unusable_folders_and_names_are_named(tmp_path):
    for folder, names, sentence in [
        (tmp_path / "none", None, "none is not a folder"),
        (tmp_path, None, "holds no task"),
        (tmp_path, ["SST2"], "--tasks SST2: expected some of CoLA, SST-2"),
        (tmp_path, ["RTE"], "RTE/dev.tsv does not exist"),
    ]:
        with pytest.raises(UserError, match="expected") as error:
            read_tasks(folder, names)
        assert sentence in str(error.value)


def test_measures_in_closed_form():
    predicted, labels = np.array([1, 1, 1, 0, 0, 1, 0, 0]), np.array([1, 1, 0, 0, 0, 0, 1, 0])
    right, false_alarms, missed, rejected = 2, 2, 1, 3
    margins = (right + false_alarms) * (right + missed) * (rejected + false_alarms) * (rejected + missed)
    assert accuracy(predicted, labels) == 5 / 8
    assert correlation(predicted, labels) == pytest.approx((right * rejected - false_alarms * missed) / margins**0.5)
    assert correlation(np.full(8, 0.3), labels) == 0
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 50))
    assert correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert correlation(3 * x - 7, x) == pytest.approx(1)


def test_the_baseline_learns_from_the_training_set():
    examples = [glue.Example(("x",), label) for label in (2, 0, 2)]
    assert constant_answer(TASKS["MNLI"], examples) == 2
    assert constant_answer(TASKS["STS-B"], examples) == pytest.approx(4 / 3)
