"""What the words of the language take, and what they say of the rest."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter

import penstock.lang as sgl
from penstock.lang import constraints


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, penstock.lang as sgl\n"
        "sgl.RuntimeEndpoint\n"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'aiohttp', 'httpx', 'openai', 'tqdm') "
        "if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr


def test_every_name_is_there() -> None:
    assert all(getattr(sgl, name) is not None for name in sgl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'video'"):
        sgl.video  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"regex": "a", "dtype": int}, ValueError, "one of regex, json_schema, .*Given: regex, dt"),
        ({"regex": "a", "choices": ["b"]}, ValueError, "Given: regex, choices"),
        ({"dtype": bytes}, ValueError, "`dtype` must be one of int, float, bool, str"),
        ({"json_schema": "{"}, ValueError, "`json_schema` is not JSON"),
        ({"json_schema": 5}, TypeError, "`json_schema` must be a dict"),
        ({"tools": ["x"]}, ValueError, r"`tools\[0\]` must be {name"),
        ({"tools": [{"name": "a"}, {}]}, ValueError, r"`tools\[1\]`"),
        ({"tool_choice": "auto"}, ValueError, "needs `tools`"),
        ({"choices_method": "greedy"}, ValueError, "needs `choices`"),
    ],
)
def test_what_gen_refuses(arguments: dict[str, Any], error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        sgl.gen("x", **arguments)


def test_forms_of_schemas_and_tools() -> None:
    assert constraints.json_schema(TypeAdapter(list[int]))["type"] == "array"
    bare = {"name": "a", "description": "b", "parameters": {}}
    shaped = {"type": "function", "function": bare}
    assert constraints.openai_tools([bare, {"function": bare}]) == (shaped, shaped)


def test_expressions_add_up() -> None:
    series = "a" + sgl.gen("x") + ["b", sgl.select("y", ["c"])] + "d"
    assert [type(part).__name__ for part in series.parts] == [
        "Text",
        "Gen",
        "Text",
        "Select",
        "Text",
    ]
    with pytest.raises(TypeError, match="Given: int"):
        sgl.gen("x") + 5


def test_reasoning_needs_no_name_of_a_model() -> None:
    with pytest.raises(ValueError, match="`model_type` must be left out"):
        sgl.separate_reasoning(sgl.gen("x"), "deepseek-r1")
