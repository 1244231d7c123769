"""Components with options in one text, as commands take them."""

from __future__ import annotations

import pytest

from segplug.errors import UsageError
from segplug.kernel import Kernel
from segplug.runtime.component_text import component_of_user, parse_component


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("name", {}),
        ("name,", {}),
        ("name,a=2", {"a": 2}),
        ("name, a = 2 , b=.5", {"a": 2, "b": 0.5}),
        ("name,a=true,b=None,c=text", {"a": True, "b": None, "c": "text"}),
        ('name,a=[1, 2],b={"x": [3, 4]},c="1,d=2"', {"a": [1, 2], "b": {"x": [3, 4]}, "c": "1,d=2"}),
        ("name,a=1 2,b=", {"a": "1 2", "b": ""}),
    ],
)
def test_values_are_json(text: str, options: dict[str, object]) -> None:
    found = parse_component(text, "--metric")
    assert (found.name, found.options) == ("name", options)


@pytest.mark.parametrize("text", ["name,2", "name,a=1,2", "name,=3", "name,a b=3", "name,a=nan", "name,a=[1e999]"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--metric "):
        parse_component(text, "--metric")


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("splitters", "kfld", "Did you mean 'kfold'"),
        ("splitters", "kfold,fold=3", r"'fold'\. It takes: folds, seed$"),
        ("splitters", "kfold,folds=three", "folds is 'three', which is no whole number"),
        ("postprocessors", "peel", "no component 'peel'"),
        ("architectures", "plain_unet,x=1", r"(?!.*(input_channels|output_channels|deep_supervision))It takes: "),
    ],
)
def test_what_the_component_does_not_take_is_wrong_usage(kind: str, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        component_of_user(Kernel(discover=False).registry, kind, text, "--component")
