"""Files that are damaged or another tool's: every script says so in one sentence, whatever is in them."""

import json
import os
import shutil

import pytest
from conftest import tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import align
import data
import evaluate
import fit_scaling
import train

EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
OTHER_VALUES = [
    None, True, -1, 0, 3, 0.5, 1e300, "", "x", "../x", [], [1], ["x"], {}, {"x": 1}, [[1.0]], [[]],
]  # fmt: skip
NOT_JSON = [
    b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe\x00", b"{}", b'{"a": NaN}', b"PK\x03\x04", b"1\n2\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, prepared):
    """A folder with prepared data and a finished run, its bytes, and the flags that trained it."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, folder / "data")
    shape = "--size pico --length 16 --batch 2 --warmup 2 --tokens 256 --no-compile --no-score --device cpu"
    flags = ["--data", str(folder / "data"), *shape.split(), "--out", str(folder / "out" / "run")]
    train.main(flags)
    return folder, tree(folder), flags


@st.composite
def damaged_json(draw, content: bytes) -> bytes:
    """A JSON object of which one value is another or gone: of a language of meta.json, or less deep."""
    whole = json.loads(content)
    place = whole
    for depth in range(3):
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = draw(st.sampled_from(list(keys)))
        if depth == 2 or not (isinstance(place[key], dict | list) and place[key] and draw(st.booleans())):
            break
        place = place[key]
    if draw(st.integers(0, 4)):
        place[key] = draw(st.sampled_from(OTHER_VALUES))
    else:
        del place[key]
    return json.dumps(whole).encode()


@st.composite
def damaged(draw, files: dict[str, bytes]) -> tuple[str, bytes]:
    """The name of a file, and what is in it instead."""
    name = draw(st.sampled_from(sorted(files)))
    content = files[name]
    if name.endswith(".json") and draw(st.integers(0, 3)):
        return name, draw(damaged_json(content))
    kind = draw(st.sampled_from(["short", "flipped", "longer", "other"]))
    place = draw(st.integers(0, len(content) - 1))
    if kind == "short":
        return name, content[:place]
    if kind == "flipped":
        return name, content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
    return name, content + b"\0x" if kind == "longer" else draw(st.sampled_from(NOT_JSON))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.data())
def test_every_script_answers_in_one_sentence(whole, command, choices):
    folder, files, flags = whole
    name, content = choices.draw(damaged(files))
    run = str(folder / "out" / "run")
    scripts = [
        (data.main, ["--describe", str(folder / "data")]),
        (train.main, flags),
        (evaluate.main, [run, "--device", "cpu"]),
        (align.main, [run, "--device", "cpu", "--only", "embeddings"]),
        (fit_scaling.main, [str(folder / "out")]),
    ]
    main, arguments = choices.draw(st.sampled_from(scripts))
    try:
        (folder / name).write_bytes(content)
        code, _, error = command(main, *arguments)
    finally:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.unlink()
        for path, before in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(before)
    assert code in {0, 2}  # whatever else ends a script is a traceback here
    assert code == 0 or error.startswith("error: ")
