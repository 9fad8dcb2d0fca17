"""GLUE and three tasks of SuperGLUE as tables: where each keeps its sentences and labels, and how answers are measured.

`--glue DIR` holds a folder for each task as the official downloads lay them out: `CoLA/train.tsv`, `CoLA/dev.tsv`, ...,
tab-separated with nothing quoted, and `BoolQ/train.jsonl`, `BoolQ/val.jsonl` for the tasks of SuperGLUE. The labels of
the official test sets are secret: models are scored on the dev sets, as in the paper (its section 3.3).
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import UserError
from corpus import clean
from formats import decode, lines

Row = tuple[str, dict[str, str]]  # where it stands, and its cells by the name of their column


# --- the two file formats -------------------------------------------------------------------------------------------


def tsv_rows(path: Path, task: "Task") -> Iterator[Row]:
    """The rows of a tab-separated file, whose first line names the columns unless the task does.

    Raises:
        UserError: the file cannot be read, lacks a column, or a row has more or fewer cells than there are columns.
    """
    columns, broken = task.columns, []
    for number, _, line in lines(path):
        where = f"{path}:{number}"
        cells = decode(line, where).rstrip("\r\n").split("\t")
        if columns is None:
            columns = cells
            if missing := {*task.texts, task.label} - {*columns}:
                raise UserError(f"{where} names the columns {', '.join(columns)}, expected also {', '.join(sorted(missing))}")
        elif len(cells) == len(columns):
            yield where, dict(zip(columns, cells, strict=True))
        elif task.leaves_out_broken:
            broken.append(number)
        else:
            raise UserError(f"{where} has {len(cells)} cell(s) between tabs, expected {len(columns)}: {', '.join(columns)}")
    if broken:
        print(f"{path}: {len(broken)} row(s) without all cells left out, the first is line {broken[0]}")


def json_rows(rows_of: Callable[[dict], list[dict]]) -> Callable[[Path, "Task"], Iterator[Row]]:
    """A reader of files with a JSON object in each line, which holds the rows that `rows_of` takes out of it.

    The reader raises:
        UserError: the file cannot be read, or a line does not hold what the task needs.
    """

    def rows(path: Path, task: "Task") -> Iterator[Row]:
        for number, _, line in lines(path):
            where = f"{path}:{number}"
            try:
                for row in rows_of(json.loads(decode(line, where))):
                    cells = {column: row[column] for column in (*task.texts, task.label)}
                    if wrong := [column for column in task.texts if not isinstance(cells[column], str)]:
                        raise TypeError(f"{wrong[0]} is no text")
                    yield where, cells | {task.label: json.dumps(cells[task.label])}
            except KeyError as error:
                raise UserError(f"{where} lacks the field {error}, expected {', '.join(task.texts)} and {task.label}") from None
            except (ValueError, TypeError, RecursionError) as error:
                raise UserError(f"{where} is not a JSON object with the fields of this task: {error}") from None

    return rows


def boolq_rows(record: dict) -> list[dict]:
    """The object itself."""
    return [record]


def multirc_rows(record: dict) -> list[dict]:
    """Each proposed answer to each question of a passage, to be called right or wrong by itself."""
    passage = record["passage"]
    return [
        {"question": question["question"], "answer": answer["text"], "passage": passage["text"], "label": answer["label"]}
        for question in passage["questions"]
        for answer in question["answers"]
    ]


def wsc_rows(record: dict) -> list[dict]:
    """Whether the pronoun of a text means the noun: both stand after it, as sentences of their own."""
    target = record["target"]
    return [{"text": record["text"], "pronoun": target["span2_text"], "noun": target["span1_text"], "label": record["label"]}]


# --- the tasks ------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """A row of TASKS."""

    texts: tuple[str, ...]  # columns, in the order in which they are read
    label: str  # column
    labels: tuple[str, ...] = ("0", "1")  # its values; with none, a number that is to be predicted
    dev: tuple[str, ...] = ("dev.tsv",)  # the first one decides when to stop
    train: str = "train.tsv"
    measures: tuple[str, ...] = ("accuracy",)
    columns: tuple[str, ...] | None = None  # of a file without a line that names them
    leaves_out_broken: bool = False  # the official file itself has a few broken rows
    rows: Callable[[Path, "Task"], Iterator[Row]] = tsv_rows


class Example(NamedTuple):
    """One to three texts, and the index of their label or the number they are rated with."""

    texts: tuple[str, ...]
    label: float


class TaskData(NamedTuple):
    """A task as it was read: examples to learn from, and those of each dev set by the name of its results."""

    name: str
    task: Task
    train: list[Example]
    dev: dict[str, list[Example]]


ENTAILED = ("entailment", "not_entailment")
TRUTH = ("false", "true")
SUPERGLUE = {"train": "train.jsonl", "dev": ("val.jsonl",)}

# Long passages come last, so that cutting to 128 tokens never takes the question away.
TASKS = {
    "CoLA": Task(("sentence",), "label", columns=("source", "label", "star", "sentence"), measures=("accuracy", "Matthews")),
    "SST-2": Task(("sentence",), "label"),
    "MRPC": Task(("#1 String", "#2 String"), "Quality"),
    "QQP": Task(("question1", "question2"), "is_duplicate", leaves_out_broken=True),
    "MNLI": Task(
        ("sentence1", "sentence2"),
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        dev=("dev_matched.tsv", "dev_mismatched.tsv"),
    ),
    "QNLI": Task(("question", "sentence"), "label", ENTAILED),
    "RTE": Task(("sentence1", "sentence2"), "label", ENTAILED),
    "WNLI": Task(("sentence1", "sentence2"), "label"),
    "STS-B": Task(("sentence1", "sentence2"), "score", (), measures=("Pearson",)),
    "BoolQ": Task(("question", "passage"), "label", TRUTH, **SUPERGLUE, rows=json_rows(boolq_rows)),
    "MultiRC": Task(("question", "answer", "passage"), "label", **SUPERGLUE, rows=json_rows(multirc_rows)),
    "WSC": Task(("text", "pronoun", "noun"), "label", TRUTH, **SUPERGLUE, rows=json_rows(wsc_rows)),
}
RESULT_NAMES = {"dev_mismatched.tsv": "MNLI-mm"}  # of dev sets; any other one has its task's name


def read_examples(path: Path, task: Task) -> list[Example]:
    """All examples of a file, their texts cleaned as those of a corpus are.

    Raises:
        UserError: the file is missing, malformed or empty, or has a label that the task does not know.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist, expected the examples of this task in the layout of the GLUE download")
    examples = []
    for where, row in task.rows(path, task):
        texts = tuple(clean(row[column]) for column in task.texts)
        examples.append(Example(texts, read_label(row[task.label], task, where)))
    if not examples:
        raise UserError(f"{path} holds no examples, expected one in each line")
    return examples


def read_label(text: str, task: Task, where: str) -> float:
    """The index of a label, or the number it is.

    Raises:
        UserError: the task has no such label.
    """
    if task.labels:
        if text not in task.labels:
            raise UserError(f"{where} has the {task.label} {text!r}, expected {' or '.join(task.labels)}")
        return task.labels.index(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where} has the {task.label} {text!r}, expected a number")
    return number


def read_tasks(folder: Path, names: list[str] | None = None) -> list[TaskData]:
    """The tasks of these names, or all that have a folder.

    Raises:
        UserError: a name is unknown, nothing is there, or a file is not what it should be.
    """
    if not folder.is_dir():
        raise UserError(f"--glue {folder} is not a folder, expected one that holds SST-2/train.tsv and the like")
    for name in names or []:
        if name not in TASKS:
            raise UserError(f"--tasks {name}: expected some of {', '.join(TASKS)}")
    present = [name for name in TASKS if (name in names if names else (folder / name).is_dir())]
    if not present:
        raise UserError(f"--glue {folder} holds no task, expected a folder named {', '.join(TASKS)}")
    found = []
    for name in present:
        task = TASKS[name]
        dev = {RESULT_NAMES.get(file, name): read_examples(folder / name / file, task) for file in task.dev}
        found.append(TaskData(name, task, read_examples(folder / name / task.train, task), dev))
    return found


# --- measures -------------------------------------------------------------------------------------------------------


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers; both (n,)."""
    return float(np.mean(predicted == labels))


def correlation(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation of two (n,), 0 where one of them is constant. Of zeros and ones it is that of Matthews."""
    x, y = (values - np.mean(values, dtype=np.float64) for values in (predicted, labels))
    spread = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / spread if spread else 0.0


MEASURES = {"accuracy": accuracy, "Matthews": correlation, "Pearson": correlation}


def labels_of(examples: list[Example]) -> np.ndarray:
    """(n,) float64 label indices or ratings."""
    return np.array([example.label for example in examples], np.float64)


def constant_answer(task: Task, train: list[Example]) -> float:
    """What one answers without looking: the commonest label of the training set, or the mean rating."""
    labels = labels_of(train)
    return Counter(labels.tolist()).most_common(1)[0][0] if task.labels else float(labels.mean())


def measure_answers(task: Task, predicted: np.ndarray, dev: list[Example]) -> dict[str, float]:
    """Each of the task's measures for (n,) answers to a dev set."""
    return {name: MEASURES[name](predicted, labels_of(dev)) for name in task.measures}
