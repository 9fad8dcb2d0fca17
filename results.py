"""What the runs below some folders say: every result.json, the laws of its monolingual runs, and a row a language.

Runs that differ in nothing but their seed are one experiment: one row, whose perplexity is their geometric mean.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from common import UserError, read_json
from law import Law, Measured, fit_law, interval, resample

SHARED = ("size", "fingerprint", "length", "batch", "learning_rate", "warmup")
LawKey = tuple  # of values of SHARED, then the source language


class Setting(NamedTuple):
    """What an experiment is, wherever it was run: the row of a table that it fills.

    `shares` are the percentages of L1 in each stage, `times` the tokens in units of the standard run's, "1x".
    """

    vocab: str  # monolingual, cloned, disjoint, anchored
    languages: tuple[str, ...]  # by source: ("en", "en") for two clones
    shares: tuple[float, ...]
    times: float
    size: str
    anchors: float = 0.0

    def __str__(self) -> str:
        count = f" x{len(self.languages)}" if self.vocab == "cloned" and len(self.languages) > 2 else ""
        anchors = f", {100 * self.anchors:g}% anchors" if self.anchors else ""
        stages = "→".join(f"{share:g}" for share in self.shares)
        return f"{self.size} {self.vocab}{count} {stages}% at {self.times:g}x{anchors}"


class Quantity(NamedTuple):
    """A number and its 95% interval, which is nan where it is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan


class Row(NamedTuple):
    """One language of one experiment."""

    run: str
    seeds: int
    setting: Setting
    position: int  # among the languages of the run
    share: str
    language: str
    source: str
    fingerprint: str
    seen: float
    ppl: Quantity  # the interval is for a comparison with other runs on the same test text
    law: Law | None
    mlpe: Quantity
    mlte: Quantity
    token_efficiency: Quantity  # MLTE / tokens seen; nan without a law, or where the language was never seen

    @property
    def monolingual(self) -> bool:
        """Whether the law was fitted on it."""
        return self.setting.vocab == "monolingual"

    @property
    def beyond(self) -> bool:
        """Whether its perplexity is better than the law's asymptote: no number of tokens would do."""
        return math.isinf(self.mlte.value)

    @property
    def extrapolated(self) -> bool:
        """Whether MLTE lies outside the range of tokens that the law was fitted on."""
        return self.law is not None and not self.law.covers(self.mlte.value)


class Fitted(NamedTuple):
    """All that is known of some folders of runs."""

    results: list[dict]
    laws: dict[LawKey, Law]
    intervals: dict[LawKey, dict[str, tuple[float, float]]]  # of a, b, c
    points: dict[LawKey, list[Measured]]
    rows: list[Row]


def collect(folders: list[Path]) -> list[dict]:
    """Every evaluated result.json at or below the folders, monolingual runs first, the longest first.

    Raises:
        UserError: a folder is missing, or there is no evaluated run.
    """
    results, seen = [], set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder, expected one that holds runs of train.py")
        for path in sorted(folder.rglob("result.json")):
            if path.resolve() in seen:  # a folder that was named together with one that holds it
                continue
            seen.add(path.resolve())
            result = read_json(path, "the result of a run", (*SHARED, "stages", "languages", "tokens"))
            name = path.parent.relative_to(folder).as_posix() if path.parent != folder else folder.name
            perplexities = [language.get("ppl") for language in result["languages"]]
            if None in perplexities:
                print(f"left out: {path.parent} is not evaluated; python evaluate.py {path.parent}")
            elif not all(map(math.isfinite, perplexities)):
                raise UserError(f"{path} has a perplexity that is not finite; remove the run, it diverged")
            else:
                full = name if len(folders) == 1 else f"{folder.name}/{name}"
                results.append(result | {"run": full, "name": name, "folder": str(path.parent)})
    if not results:
        raise UserError(f"{', '.join(map(str, folders))} holds no evaluated run; train.py, then evaluate.py make one")
    return sorted(results, key=lambda result: (len(result["languages"]) > 1, -result["tokens"]))


def standard_tokens(results: list[dict]) -> dict[str, float]:
    """By text, what "1x" is: the tokens of the shortest run of several languages, of the longest run if there is none."""
    by_text = defaultdict(list)
    for result in results:
        by_text[result["fingerprint"]].append((len(result["languages"]) < 2, result["tokens"]))
    return {
        text: min(tokens for alone, tokens in runs if not alone) if not all(alone for alone, _ in runs) else max(runs)[1]
        for text, runs in by_text.items()
    }


def setting_of(result: dict, standard: dict[str, float]) -> Setting:
    """The row of a table that a result fills."""
    sources = tuple(language["source"] for language in result["languages"])
    clones = "cloned" if len(set(sources)) == 1 else "disjoint"
    vocab = result.get("vocab", "monolingual" if len(sources) == 1 else clones)
    shares = tuple(round(100 * stage[0], 3) for stage in result["stages"])
    times = round(result["tokens"] / standard[result["fingerprint"]], 2)
    nearest = round(times * 20) / 20  # runs are a whole number of steps long
    times = nearest if nearest and abs(times / nearest - 1) < 0.02 else times
    return Setting(vocab, sources, shares, times, result["size"], result.get("anchors", 0.0))


def experiments(results: list[dict]) -> list[list[dict]]:
    """The results in groups that differ in their seed alone. A seed that was run twice says nothing new, and counts once."""
    groups: dict[tuple, dict] = {}
    for result in results:
        sources = tuple(language["source"] for language in result["languages"])
        same = (*(result[key] for key in SHARED), sources, result.get("vocab"), result.get("anchors"), str(result["stages"]))
        by_seed = groups.setdefault((*same, result["tokens"]), {})
        first = by_seed.setdefault(result.get("seed"), result)
        if first is not result:
            print(f"left out: {result['folder']} has the settings and the seed of {first['folder']}")
    return [list(by_seed.values()) for by_seed in groups.values()]


def law_key(result: dict, language: dict) -> LawKey:
    """Runs share a law if they share model size, text, source language, and how they were optimised and measured."""
    return (*(result[key] for key in SHARED), language["source"])


def measured(group: list[dict], position: int) -> Measured:
    """What an experiment found in one of its languages."""
    languages = [result["languages"][position] for result in group]
    errors = [language["ppl_standard_error"] / language["ppl"] for language in languages if language.get("ppl_standard_error")]
    seeds = {int(result.get("seed") or 0): language["ppl"] for result, language in zip(group, languages, strict=True)}
    tokens = sum(language["tokens"] for language in languages) / len(languages)
    return Measured(tokens, seeds, sum(errors) / len(errors) if errors else 0.0)


def fit_all(groups: list[list[dict]]) -> tuple[dict[LawKey, Law], dict[LawKey, list[Measured]]]:
    """The law of each kind of monolingual runs that has at least three sizes of training text, and its points.

    Raises:
        UserError: no kind has.
    """
    points = defaultdict(list)
    for group in groups:
        if len(group[0]["languages"]) == 1:
            points[law_key(group[0], group[0]["languages"][0])].append(measured(group, 0))
    if not points:
        raise UserError("there is no monolingual run (train.py --ratio 1) among the results, expected three or more for the law")
    laws, reason = {}, ""
    for key, own in points.items():
        try:
            laws[key] = fit_law([point.tokens for point in own], [point.ppl for point in own])
        except UserError as error:
            reason = f"{key[0]} on {key[-1]}: {error}"
            print(f"no law for {reason}")
    if not laws:
        raise UserError(reason)
    return laws, points


def share(result: dict, position: int) -> str:
    """p(language) over the stages of the run, as in '90→10%'."""
    return "→".join(f"{100 * stage[position]:.3g}" for stage in result["stages"]) + "%"


def fit(folders: list[Path]) -> Fitted:
    """Read the folders, fit the laws, and work out every row.

    Raises:
        UserError: nothing can be read or fitted.
    """
    results = collect(folders)
    groups, standard = experiments(results), standard_tokens(results)
    laws, points = fit_all(groups)
    cells = [(group, position) for group in groups for position in range(len(group[0]["languages"]))]
    by_law = defaultdict(list)
    for number, (group, position) in enumerate(cells):
        by_law[law_key(group[0], group[0]["languages"][position])].append(number)
    rows: list[Row | None] = [None] * len(cells)
    intervals = {}
    for key, numbers in by_law.items():
        law, own = laws.get(key), [measured(*cells[number]) for number in numbers]
        drawn = resample(law, points[key], own) if law else None
        intervals[key] = {name: interval(getattr(drawn.law, name)) for name in "abc"} if drawn else {}
        for place, number in enumerate(numbers):
            sample = (drawn.law, drawn.perplexities[place], drawn.same_documents[place]) if drawn else None
            setting = setting_of(cells[number][0][0], standard)
            rows[number] = row_of(cells[number], setting, own[place], law, sample)
    return Fitted(results, laws, {key: found for key, found in intervals.items() if found}, points, rows)


def row_of(cell: tuple[list[dict], int], setting: Setting, own: Measured, law: Law | None, sample: tuple | None) -> Row:
    """One language of one experiment, (group, position), from its law and what `resample` made of both.

    `sample` holds laws, perplexities, and perplexities of the same documents; None where the law has too few points.
    """
    group, position = cell
    result, language = group[0], group[0]["languages"][position]
    run = result["run"] if len(group) == 1 else result["name"]
    ppl, seen = own.ppl, own.tokens

    def quantity(value: float, values) -> Quantity:
        return Quantity(float(value), *(interval(values()) if sample else ()))

    unknown = Quantity(math.nan)
    needed = efficiency = expected = unknown
    if law and seen:
        needed = quantity(law.tokens(ppl), lambda: sample[0].tokens(sample[1]))
        efficiency = Quantity(*(bound / seen for bound in needed))
        expected = quantity(law.perplexity(seen), lambda: sample[0].perplexity(seen))
    return Row(
        run, len(group), setting, position, share(result, position), language["name"], language["source"], result["fingerprint"],
        seen, quantity(ppl, lambda: sample[2]), law, expected, needed, efficiency,
    )  # fmt: skip
