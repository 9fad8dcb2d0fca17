"""GLUE: every task's layout is read as it is meant, a task is learned in L1 and carried over to a clone."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from common import UserError, read_json, write
from data import Language, cloned_languages
from model import GPT, Size
from paper import glue
from paper.glue import TASKS, Classifier, Examples, accuracy, epoch, fine_tune, last_states, read_examples

# A file's first line where the layout has one, an example, and what is to be read from it.
PASSAGE = (
    '{"passage": {"text": "P", "questions": [{"question": "Q", "answers": [{"text": "A", "label": 1}]}]}}'
)
WSC = '{"text": "Tom sat as he ate.", "target": {"span1_text": "Tom", "span2_text": "he"}, "label": false}'
LAYOUTS = {
    "CoLA": (None, 'gj04\t1\t\tThe "cat sat.', ['The "cat sat.'], 1),
    "SST-2": ("sentence\tlabel", "a dull film \t0", ["a dull film"], 0),
    "MRPC": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t3\t4\tSo.\tHe.", ["So.", "He."], 1),
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "5\t1\t2\tWhy\tHow\t0", ["Why", "How"], 0),
    "MNLI": ("index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label",
             "0\tg\tIt rains.\tIt is wet.\tneutral\tcontradiction", ["It rains.", "It is wet."], 2),
    "QNLI": ("index\tquestion\tsentence\tlabel", "0\tWho?\tHe.\tnot_entailment", ["Who?", "He."], 1),
    "RTE": ("index\tsentence1\tsentence2\tlabel", "0\tA man.\tHe is.\tentailment", ["A man.", "He is."], 0),
    "BoolQ": (None, '{"question": "is it", "passage": "It is.", "label": true}', ["is it", "It is."], 1),
    "MultiRC": (None, PASSAGE, ["Q", "A", "P"], 1),
    "WSC": (None, WSC, ["Tom sat as he ate.", "he", "Tom"], 0),
    "libraries": (None, '{"text": "Return a tensor.", "library": "numpy"}', ["Return a tensor."], 1),
}  # fmt: skip


def write_task(folder, name, many=2):
    """A task's folder as the official download lays it out, with one example over and over."""
    header, example, _, _ = LAYOUTS[name]
    lines = [example] * many
    if header:
        lines.insert(0, header)
    for file in TASKS[name].files:
        write(folder / name / file, "\n".join(lines) + "\n")


def rows_of(examples: Examples) -> list[list[int]]:
    """The ids of each example."""
    assert examples.lengths.tolist() == list(map(len, examples.ids))
    return [ids.tolist() for ids in examples.ids]


def words(tokenizer, row: list[int]) -> list[str]:
    """The texts of an example, each closed by <eod>."""
    ends = np.flatnonzero(np.array(row) == 2) + 1
    parts = np.split(row, ends)
    assert not len(parts[-1])
    return [tokenizer.decode(part.tolist()) for part in parts[:-1]]


@pytest.mark.parametrize("name", TASKS)
def test_every_layout_is_read(tmp_path, tokenizer, name):
    write_task(tmp_path, name)
    _, _, texts, label = LAYOUTS[name]
    for file in TASKS[name].files:
        examples = read_examples(tmp_path / name / file, TASKS[name], tokenizer, 1000)
        assert examples.labels.tolist() == [label] * 2
        assert [words(tokenizer, row) for row in rows_of(examples)] == [texts] * 2


def test_what_does_not_fit_is_cut_from_the_longest_text_and_counted(tmp_path, tokenizer, capsys):
    long, short = "word " * 50, "a list."
    table = ["sentence1\tsentence2\tlabel"]
    for one, other in (("", ""), (long, short), (short, long), (long, long)):
        table.append(f"{one}\t{other}\tentailment")
    path = tmp_path / "train.tsv"
    write(path, "\n".join(table))
    examples = read_examples(path, TASKS["RTE"], tokenizer, 16)
    empty, first, second, both = rows_of(examples)
    assert "3 of 4 examples fill or exceed 16 tokens" in capsys.readouterr().out
    many, few = tokenizer.encode(long), [*tokenizer.encode(short), 2]
    left = 16 - len(few)
    assert empty == [2, 2]
    assert first == [*many[: left - 1], 2, *few]  # where the second begins is still seen
    assert second == [*few, *many[:left]]
    assert both == [*many[:7], 2, *many[:8]]


def test_multirc_has_an_example_for_each_answer(tmp_path, tokenizer):
    answers = [{"text": "A", "label": 0}, {"text": "B", "label": 1}]
    questions = [{"question": question, "answers": answers} for question in ("Q1", "Q2")]
    write(tmp_path / "val.jsonl", json.dumps({"passage": {"text": "P", "questions": questions}}) + "\n\n")
    found = read_examples(tmp_path / "val.jsonl", TASKS["MultiRC"], tokenizer, 99)
    texts = [words(tokenizer, row) for row in rows_of(found)]
    assert texts == [["Q1", "A", "P"], ["Q1", "B", "P"], ["Q2", "A", "P"], ["Q2", "B", "P"]]
    assert found.labels.tolist() == [0, 1, 0, 1]


def test_broken_rows_are_left_out_and_counted(tmp_path, tokenizer, capsys):
    write_task(tmp_path, "QQP")
    path = tmp_path / "QQP" / "train.tsv"
    with open(path, "a") as file:
        file.write("6\t1\tcut short\n" + LAYOUTS["QQP"][1])
    assert len(read_examples(path, TASKS["QQP"], tokenizer, 99).labels) == 3
    assert "train.tsv: 1 rows without all cells are left out" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("RTE", "", "holds no examples"),
    ("RTE", "index\tsentence1\tlabel\n0\ta\tentailment", "it has no column 'sentence2'"),
    ("RTE", "sentence1\tsentence2\tlabel\na\tb\tmaybe", "a label is 'maybe', expected entailment"),
    ("RTE", b"sentence1\tsentence2\tlabel\n\xff\tb\tentailment", "can't decode byte"),
    ("BoolQ", "{", "Expecting property name"),
    ("BoolQ", '{"question": "q", "passage": 5, "label": true}', "expected string"),
])  # fmt: skip
def test_unusable_files_are_named(tmp_path, tokenizer, name, content, sentence):
    path = tmp_path / TASKS[name].files[0]
    write(path, content)
    with pytest.raises(UserError) as error:
        read_examples(path, TASKS[name], tokenizer, 128)
    assert str(path) in str(error.value)
    assert sentence in str(error.value)


def copied_clones(pieces: int = 40) -> tuple[GPT, list[Language]]:
    """A fresh model of two clones whose second has the first one's rows."""
    torch.manual_seed(0)
    languages = cloned_languages("en", pieces, 2)
    model = GPT(Size(layers=1, width=32, heads=2, head_dim=16), 2 * pieces, 16)
    with torch.no_grad():
        model.token_embedding.weight[pieces:] = model.token_embedding.weight[:pieces]
    return model.eval(), languages


def coloured(many: int, seed: int) -> Examples:
    """A task that can be learned: the last token of an example, 3 or 4, is its label."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 13, many)
    labels = random.integers(0, 2, many)
    ids = [random.integers(5, 40, length) for length in lengths]
    for example, label in zip(ids, labels, strict=True):
        example[-1] = 3 + label
    return Examples(ids, lengths, labels)


@pytest.fixture
def learn(monkeypatch):
    """Fine-tune copied clones on the coloured task in less than a second: (model, languages, classifier)."""
    recipe = {"LEARNING_RATE": 3e-3, "BATCH": 20, "EPOCHS": 10, "EVALUATE_EVERY": 10, "PATIENCE": 30}
    for name, value in recipe.items():
        monkeypatch.setattr(glue, name, value)

    def call(seed=0):
        model, languages = copied_clones()
        torch.manual_seed(seed)
        classifier = Classifier(copy.deepcopy(model), 2)
        fine_tune(classifier, coloured(200, 1), coloured(80, 2), languages[0].table, seed)
        return model, languages, classifier

    return call


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two modules have the same weights, bit for bit."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_an_epoch_has_every_example_once_and_little_padding():
    random = np.random.default_rng(0)
    lengths = random.integers(5, 128, 3000)
    first, second = epoch(lengths, random), epoch(lengths, random)
    for batches in (first, second):
        assert sorted(np.concatenate(batches)) == list(range(3000))
        assert max(map(len, batches)) == glue.BATCH
    longest = [lengths[batch].max() for batch in first]
    padded = np.dot(longest, list(map(len, first)))
    assert padded < 1.1 * sum(lengths)
    assert longest != sorted(longest)
    assert first[0].tolist() != second[0].tolist()


def test_answers_do_not_depend_on_padding():
    model, (_, clone) = copied_clones()
    classifier, examples = Classifier(model, 1).eval(), coloured(80, 2)
    with torch.no_grad():
        classifier.head.weight.mul_(50)  # answers that differ
        together = classifier(examples, np.arange(80), clone.table)[:, 0].numpy()
        alone = []
        for i in range(80):
            alone.append(classifier(examples, np.array([i]), clone.table).item())
    assert together == pytest.approx(alone, abs=0.03 * np.std(together))  # bf16, where the processor has it
    assert np.std(together) > 0


def test_a_task_is_learned_in_l1_and_a_copied_clone_has_it_too(learn):
    model, languages, classifier = learn()
    dev = coloured(80, 2)
    states, of_the_clone = [last_states(classifier, dev, language.table) for language in languages]
    assert accuracy(classifier, dev, states) > 0.95
    assert accuracy(classifier, dev, of_the_clone) > 0.8
    # The run's own model stays as it was; EN2's rows of the table are no one's gradient, and stay, too.
    untouched, _ = copied_clones()
    assert same(untouched, model)
    before, after = untouched.token_embedding.weight, classifier.gpt.token_embedding.weight
    assert torch.equal(after[40:], before[40:])
    assert not torch.equal(after[3:5], before[3:5])


def test_patience_ends_it_and_the_best_step_is_kept(learn, monkeypatch):
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.65, 0.9])
    monkeypatch.setattr(glue, "accuracy", lambda *_: next(scores))
    *_, stopped = learn()
    assert next(scores) == 0.9  # not looked at: three scores in a row were no better than the second
    monkeypatch.setattr(glue, "accuracy", lambda *_: 0.5)
    monkeypatch.setattr(glue, "EVALUATE_EVERY", 20)
    *_, after_20_steps = learn()
    assert same(stopped, after_20_steps)


def train_one_step(out: Path, data: Path, *flags: str) -> Path:
    """A run's folder."""
    shape = "--size nano --length 32 --batch 8 --tokens 256 --no-compile --no-score --device cpu"
    train.main(["--data", str(data), "--out", str(out), *shape.split(), *flags])
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory, babel):
    """A run of one step, in which EN1 and EN2 are clones."""
    return train_one_step(tmp_path_factory.mktemp("glue") / "run", babel)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of two small tasks."""
    folder = tmp_path_factory.mktemp("glue")
    for file in ("train.tsv", "dev.tsv"):
        write(folder / "CoLA" / file, "x\t0\t\tA bad one.\nx\t1\t\tA good one.\n" * 3)
        write(folder / "SST-2" / file, "sentence\tlabel\n" + "a bad film\t0\na good film\t1\n" * 3)
    return folder


def test_glue_is_merged_task_by_task_and_the_run_is_kept(run, tasks, command):
    before, weights = read_json(run / "result.json"), (run / "model.pt").read_bytes()
    flags = ["--glue", tasks, "--device", "cpu"]
    assert command(glue.main, run, *flags, "--seeds", 2, "--tasks", "SST-2")[0] == 0
    first = read_json(run / "result.json")["glue"]
    assert list(first) == ["SST-2"]
    assert "run has its SST-2" in command(glue.main, run, *flags, "--seeds", 2)[1]
    assert "run has its CoLA" in command(glue.main, run, *flags)[1]  # one seed takes nothing from two
    after = read_json(run / "result.json")
    found = after.pop("glue")
    assert after == before
    assert (run / "model.pt").read_bytes() == weights
    assert found["SST-2"] == first["SST-2"]
    assert found["CoLA"]["majority"] == 0.5
    for entry in found.values():
        assert [len(entry[name]) for name in ("EN1", "EN2", "EN2, centred")] == [2, 2, 2]
    with open(tasks / "SST-2" / "train.tsv", "a") as file:
        file.write("a film, another one\t1\n\n")  # other examples are learned anew
    assert "has its SST-2" not in command(glue.main, run, *flags, "--tasks", "SST-2")[1]


def test_a_language_that_is_no_clone_of_l1_is_left_out(tmp_path, babel, tasks, command):
    run = train_one_step(tmp_path / "run", babel, "--languages", "en", "xx")
    assert command(glue.main, run, "--glue", tasks, "--tasks", "SST-2", "--device", "cpu")[0] == 0
    assert list(read_json(run / "result.json")["glue"]["SST-2"]) == ["seeds", "majority", "EN", "examples"]


def test_both_dev_sets_of_mnli_are_results(run, tmp_path, command):
    write_task(tmp_path, "MNLI")
    assert command(glue.main, run, "--glue", tmp_path, "--device", "cpu")[0] == 0
    found = read_json(run / "result.json")["glue"]
    assert found["MNLI"]["majority"] == found["MNLI-mm"]["majority"] == 1
    assert len(found["MNLI-mm"]["EN2"]) == 1


@pytest.mark.parametrize(("flags", "sentence"), [
    ("--glue nowhere", "--glue nowhere holds no task, expected folders named CoLA, SST-2"),
    ("--glue nowhere --tasks RTE", "RTE/train.tsv: No such file or directory"),
])  # fmt: skip
def test_unusable_flags_are_named(run, refused, flags, sentence):
    assert sentence in refused(glue.main, run, *flags.split(), folder=run)
