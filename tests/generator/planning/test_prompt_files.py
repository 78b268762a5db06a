"""Prompts files: what is read of each format, and what is said of a broken row."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest

from diffugen_api import prompt_rows as api
from diffugen_api.errors import SpecError
from diffugen_api.prompt_rows import PromptRow
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.planning import prompt_rows
from diffugen_generator.planning.prompt_rows import LocalRows, read_rows
from tests.generator.made import spec_data

TEMPLATES = ["a {color} {object} on {place}"]
RED = {"color": "red", "object": "ball", "place": "snow"}


def spec_of(file: Path, **prompts: Any) -> LabeledDatasetSpec:
    return LabeledDatasetSpec.model_validate(spec_data("builtin://shapes", prompts={"file": str(file), **prompts}))


def read(folder: Path, name: str, content: str | bytes, **prompts: Any) -> LocalRows:
    file = folder / name
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_rows(spec_of(file, **prompts))


def prompts_in(rows: LocalRows) -> list[str]:
    return [row.prompt for row in rows.read()]


def test_a_line_of_text_is_a_prompt_and_blank_lines_and_comments_are_skipped(tmp_path: Path) -> None:
    text = "\ufeffa ball, in snow\r\n\n  \n# a comment\n#\n#sunset with a star\n  a {star}  "

    rows = read(tmp_path, "captions.txt", text)

    assert prompts_in(rows) == ["a ball, in snow", "#sunset with a star", "a {star}"]
    assert list(rows.read()) == list(rows.read()), "it can be read again"
    assert (rows.count, rows.complete, rows.sha256) == (3, True, hashlib.sha256(text.encode()).hexdigest())


def test_a_line_of_json_is_a_prompt_or_values(tmp_path: Path) -> None:
    lines = '{"prompt": "a ball"}\n\n{"color": "red", "object": "ball", "place": "snow", "prompt": null}\n'

    rows = read(tmp_path, "captions.jsonl", lines, templates=TEMPLATES)

    assert list(rows.read()) == [PromptRow("a ball", {}), PromptRow("", RED)]
    assert (rows.prompts, rows.fills) == (1, {0: 1})


def test_a_row_of_csv_is_a_prompt_or_values(tmp_path: Path) -> None:
    table = 'prompt,object,color,place\r\n"a ball, ""red""\non snow",ball,,\r\n\r\n,ball,red,snow\r\n'

    rows = read(tmp_path, "captions.csv", table, templates=TEMPLATES)

    assert list(rows.read()) == [PromptRow('a ball, "red"\non snow', {"object": "ball"}), PromptRow("", RED)]


def test_the_rows_do_not_depend_on_format_and_compression(tmp_path: Path) -> None:
    found = [
        read(tmp_path, name, content)
        for name, content in (
            ("a.txt", "a ball\na star\n"),
            ("a.txt.gz", "a ball\na star"),
            ("a.jsonl", '{"prompt": "a ball"}\n{"prompt": "a star"}'),
            ("a.csv.gz", "prompt\na ball\na star\n"),
        )
    ]

    assert len({rows.digest for rows in found}) == 1
    assert len({rows.sha256 for rows in found}) == 4


FAULTS = [
    ("a.txt", b"a ball\na st\xe4r\n", "line 2: byte 5 is not UTF-8; save the file as UTF-8."),
    ("a.txt", "a ball".encode("utf-16"), "line 1: the file is UTF-16; save it as UTF-8."),
    ("a.txt", b"\n# nothing\n", " has no row; write one prompt a line."),
    (
        "a.txt",
        b"a ball\n" + b"a star " * 20,
        "line 2: a prompt has 139 bytes with its values in it, and",
    ),
    ("a.txt", b"a <lora:car:0.8> ball\n", "line 1: '<lora:car:0.8>' has no meaning in a prompt; give the stage loras"),
    ("a.jsonl", b'{"prompt": "a ball"}\n{"prompt": \n', "line 2: it is not JSON (Expecting value"),
    ("a.jsonl", b'["a ball"]\n', 'line 1: [\'a ball\'] is not a JSON object; write {"prompt": "…"}.'),
    ("a.jsonl", b'{"prompt": 3}\n', 'line 1: prompt is 3 and must be text; write "3".'),
    ("a.jsonl", b'{"promt": "a ball"}\n', "line 1: there is no variable 'promt': did you mean 'prompt'?"),
    ("a.jsonl", b'{"prompt": "a ball", "x": "1"}\n', "line 1: there is no variable 'x': a row may have: prompt, color"),
    ("a.jsonl", b'{"prompt": " "}\n', "line 1: the row is empty; give it a prompt or values of variables"),
    (
        "a.jsonl",
        b'{"color": "red", "object": "ball"}\n',
        "line 1: it has values of color, object, and every",
    ),
    (
        "a.jsonl",
        b'{"prompt": "a ball", "object": "bal"}\n',
        "line 1: the object 'bal' is not a class: did you",
    ),
    ("a.jsonl", b'{"prompt": "a \\ud800 ball"}\n', "line 1: the text has half of a surrogate pair"),
    ("a.jsonl", b'{"prompt": "a ball", "color": "\\ud800"}\n', "line 1: the text has half of a surrogate pair"),
    ("a.jsonl", b"[" * 100_000, "line 1: it is nested too deeply"),
    ("a.csv", b"prompt,colour\na ball,red\n", "line 1: there is no variable 'colour': did you mean 'color'?"),
    ("a.csv", b"prompt,prompt\na,b\n", "line 1: two columns are named 'prompt'; rename or remove one."),
    (
        "a.csv",
        b"prompt\na ball\n\na ball, red\n",
        "line 4: the row has 2 cells, and the header 1; quote",
    ),
    ("a.csv", b'prompt\na ball\n"a star\n', "line 3: it is not CSV (unexpected end of data)"),
    ("a.csv", b"prompt,object,color,place\n,ball,red,\n", "line 2: it has values of object, color, and every template"),
]


@pytest.mark.parametrize(("name", "content", "says"), FAULTS)
def test_a_broken_row_is_named_with_its_line_and_the_fix(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(SpecError) as error:
        read(tmp_path, name, content, templates=TEMPLATES, maxBytes=100)

    assert str(error.value).startswith(f"spec.prompts.file: {tmp_path / name}")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a ball\n" * 5000)[:-20])

    with pytest.raises(SpecError, match=r"a.txt.gz is no whole gzip file \(.*\); copy it again"):
        read_rows(spec_of(tmp_path / "a.txt.gz"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"spec.prompts.file: there is no file '.*b.txt'; give an absolute path"):
        read_rows(spec_of(tmp_path / "b.txt"))


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="spec.prompts.fileSHA256: .* and not aaaa"):
        read(tmp_path, "a.txt", "a ball", fileSHA256="a" * 64)


def test_more_rows_than_the_most_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_rows, "MOST_ROWS", 2)

    with pytest.raises(SpecError, match="it has more than 2 rows; split it"):
        read(tmp_path, "a.txt", "a ball\na star\na square\n")


def test_more_prompts_than_the_most_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_rows, "_MOST_PROMPTS", 3)
    templates = ["a {object}", "the {object}"]
    lines = '{"object": "ball"}\n{"object": "star"}\n'

    with pytest.raises(SpecError, match="its rows make more than 3 prompts with the templates; give fewer templates"):
        read(tmp_path, "a.jsonl", lines, templates=templates)


def test_a_template_that_nothing_fills_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"spec.prompts.templates\[0\]: no variable is named 'color', and no row"):
        read(tmp_path, "a.txt", "a ball", templates=TEMPLATES)


def test_a_variable_cannot_be_named_prompt(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="{prompt} cannot be a variable"):
        read(tmp_path, "a.txt", "a ball", templates=["{prompt}!"])


def test_rows_that_repeat_a_prompt_are_dropped_with_a_warning(tmp_path: Path) -> None:
    lines = "".join(f"a ball {number % 3}\n" for number in range(12))

    rows = read(tmp_path, "a.txt", lines)

    assert prompts_in(rows) == ["a ball 0", "a ball 1", "a ball 2"]
    [warning] = rows.warnings
    assert "9 rows" in warning
    assert "(lines 4, 5, 6, 7, 8 and 4 more)" in warning


def test_a_sample_of_rows_is_stable(tmp_path: Path) -> None:
    lines = [f"a ball {number}" for number in range(200)]

    def sample(texts: list[str], count: int) -> set[str]:
        return set(prompts_in(read(tmp_path, "a.txt", "\n".join(texts), sample=count)))

    small, large = sample(lines, 20), sample(lines, 50)

    assert (len(small), len(large)) == (20, 50)
    assert small < large
    assert len(sample([*lines, "a star"], 20) - small) <= 1
    assert sample(lines[::-1], 20) == small
    assert sample(lines, 300) == set(lines)


def test_the_rows_kept_for_checks_have_one_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_rows, "MOST_EXAMPLES", 2)
    values = '{"color": "red", "object": "ball", "place": "snow"}'

    rows = read(
        tmp_path, "a.jsonl", '{"prompt": "1"}\n{"prompt": "2"}\n{"prompt": "3"}\n' + values, templates=TEMPLATES
    )

    assert list(rows.examples) == [PromptRow("1", {}), PromptRow("2", {}), PromptRow("", RED)]
    assert not rows.complete
    assert api.MOST_EXAMPLES > 2


def test_few_long_rows_are_kept_for_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_rows, "_MOST_KEPT", 1000)
    lines = [f"a ball {number}" + " on snow" * 50 for number in range(10)]

    rows = read(tmp_path, "a.txt", "\n".join(lines))

    assert [row.prompt for row in rows.examples] == lines[:2]
    assert not rows.complete
    assert rows.count == 10


def test_a_file_that_changes_after_it_was_read_changes_nothing(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.txt", "a ball\n")
    (tmp_path / "a.txt").write_text("a star\n")

    assert prompts_in(rows) == ["a ball"]
