"""The benchmarks: figures that add up, ways that are right, refusals. How fast anything is, no test asks."""

import json

import pytest
import torch

from kernels import bench
from model import Size


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One tiny shape for each section, measured once; returns flags."""
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "SECONDS", 1e-3)
    monkeypatch.setattr(bench, "TOKENS", 16)
    monkeypatch.setattr(bench, "SIZES", {"nano": bench.SIZES["nano"], "tiny": bench.SIZES["tiny"]})
    monkeypatch.setitem(bench.LOSSES, "cpu", [(8, 16, 32)])
    monkeypatch.setitem(bench.STEPS, "cpu", [(Size(1, 32, 1, 32, 64, length=16, batch=2), 64)])
    monkeypatch.setattr(bench, "TEXTS", [(64, 16, 40)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # whether it compiles, users see
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)
    return ["--device", "cpu", "--precision", "fp32"]


def test_every_section_prints_a_table_and_writes_its_rows(small, command, tmp_path):
    code, out, error = command(bench.main, *small)
    assert code == 0, error
    rows = {}
    for name in bench.SECTIONS.keys() - {"tiles"}:
        facts = json.loads((tmp_path / "results" / "bench" / f"{name}.json").read_text())
        assert {"device", "torch", "precision", "rows"} == facts.keys()
        assert f"\n{name}: " in out
        rows[name] = facts["rows"]
        for row in rows[name]:
            assert row["ms"] > 0
            assert row.get("error", 0) < 1e-5
            assert (row["times ours"] == 1) == (row["way"] == "ours")
    for row in rows["attention"]:
        heads, head_dim = map(int, row["heads"].split(" x "))
        products = 2 if row["direction"] == "forward" else 7
        operations = products * heads * 2 * 16 * 16 / 2 * head_dim  # the masked half is not counted
        assert row["TFLOP/s"] * row["ms"] == pytest.approx(operations / 1e9)
    assert {row["way"] for row in rows["attention"]} == {"ours", "plain", "sdpa flash"}
    assert {row["way"] for row in rows["step"]} == {"ours", "plain"}


def test_tables_are_readable():
    rows = [{"way": "ours", "ids": 32768, "ms": 1234.5, "error": 1.23456e-6}]
    assert bench.table(rows).splitlines()[2] == "| ours | 32768 | 1234 | 1.235e-06 |"


def test_a_wrong_way_shows_its_error():
    ways = {"plain": bench.plain_attention, "wrong": lambda qkv: qkv[:, :, 2] * 1.5}
    found = bench.errors(ways, [torch.randn(1, 8, 3, 1, 32)], torch.randn(1, 8, 1, 32))
    assert found["plain"] < 1e-5
    assert found["wrong"] > 0.1


def test_turns_alternate_and_the_median_counts(monkeypatch):
    turns = iter([50.0, 5.0, 90.0, 9.0, 10.0, 40.0, 90.0, 20.0, 20.0, 20.0])
    monkeypatch.setattr(bench, "one_turn", lambda call, calls, device: next(turns))
    monkeypatch.setattr(bench, "ROUNDS", 3)
    monkeypatch.setattr(bench, "SECONDS", 0.01)
    ours, other = bench.timed({"ours": None, "other": None}, torch.device("cpu"), 1e9)
    # Two calls of "ours" and one of "other" fill ten milliseconds.
    assert ours == {"way": "ours", "ms": 10.0, "times ours": 1.0, "TFLOP/s": 0.1}
    assert other == {"way": "other", "ms": 20.0, "times ours": 2.0, "TFLOP/s": 0.05}


def test_what_fails_is_a_line_unless_it_is_ours(small, capsys):
    def fails():
        raise RuntimeError("out of memory\nmore")

    ours, other = bench.timed({"ours": lambda: None, "other": fails}, torch.device("cpu"), 1e9, ids=7)
    assert ours["ms"] > 0
    assert other == {"ids": 7, "way": "other", "ms": None, "times ours": None, "TFLOP/s": None}
    assert bench.table([other]).splitlines()[2] == "| 7   | other |  - |          - |       - |"
    assert capsys.readouterr().err == "other does not run: out of memory\n"
    with pytest.raises(RuntimeError):
        bench.timed({"ours": fails}, torch.device("cpu"))


def test_the_plain_gpt_computes_what_ours_does():
    size = Size(2, 32, 2, 16, 64)
    ours, plain = bench.GPT(size, 50, 8), bench.PlainGPT(size, 50, 8)
    assert ours.non_embedding_params() + 2 * 50 * 32 == sum(p.numel() for p in plain.parameters())
    tokens, targets = torch.randint(50, (2, 3, 8))
    with torch.no_grad():
        plain.tokens.weight.copy_(ours.token_embedding.weight * 32**0.5)
        matching = {"positions.weight": "position_embedding.weight", "output.weight": "output.weight"}
        parts = {
            "norms.0": "attention_norm",
            "norms.1": "mlp_norm",
            "query_key_value": "attention.query_key_value",
        }
        parts |= {
            "project": "attention.output",
            "mlp.0": "mlp_input",
            "mlp.2": "mlp_output",
            "": "final_norm",
        }
        state = ours.state_dict()
        for name, parameter in plain.named_parameters():
            if name.startswith("blocks"):
                _, block, *rest, kind = name.split(".")
                place = f"blocks.{block}." if rest else ""
                parameter.copy_(state[f"{place}{parts['.'.join(rest)]}.{kind}"])
            elif name in matching:
                parameter.copy_(state[matching[name]])
        torch.testing.assert_close(plain(tokens, targets)[0], ours(tokens, targets)[0])


def test_an_unknown_section_is_refused_in_one_sentence(command):
    code, _, error = command(bench.main, "loss", "speed")
    assert code == 2
    assert error.count("\n") == 1
    assert "speed: expected some of attention loss step evaluation matching tiles" in error
