"""The expression interpreter: what it computes, and what it refuses."""

from __future__ import annotations

import operator
import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnngraph.errors import show
from cnngraph.spec.expressions import (
    MAX_ITEMS,
    UNKNOWN,
    Budget,
    ExpressionError,
    OverBudgetError,
    UnknownValueError,
    divisible,
    evaluate,
    extent,
    is_expression,
)

SCOPE = {"i": 2, "width": 64, "widths": (8, 16, 32), "kind": "relu", "pair": (1, 2)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${i + 1}", 3),
        ("${7 // 2}", 3),
        ("${7 / 2}", 3.5),
        ("${-i % 5}", 3),
        ("${2 ** i}", 4),
        ("${widths[i]}", 32),
        ("${widths[-1]}", 32),
        ("${widths[1:]}", (16, 32)),
        ("${[width, width * 2]}", (64, 128)),
        ("${[1] * 3 + [2]}", (1, 1, 1, 2)),
        ("${'a' if i > 1 else 'b'}", "a"),
        ("${0 < i < 2}", False),
        ("${i in [1, 2] and not false}", True),
        ("${none}", None),
        ("${min(widths)}", 8),
        ("${max(1, i)}", 2),
        ("${round(2.6)}", 3),
        ("${round(2.66, 1)}", 2.7),
        ("${round(1234, -2)}", 1200),
        ("${len(widths)}", 3),
        ("${sum(widths[:i])}", 24),
        ("${sum([]) + sum([1, 0.5])}", 1.5),
        ("${None == none and True}", True),
        ("${range(i)}", (0, 1)),
        ("${divisible(33, 8)}", 32),
        ("layer${i + 1}_${kind}", "layer3_relu"),
        ("${kind}6", "relu6"),
        ("${'}'}", "}"),
    ],
)
def test_values(text: str, value: object) -> None:
    assert is_expression(text)
    result = evaluate(text, SCOPE)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("${x}", "`x` is not defined here", 2),
        ("a ${ i + x }", "`x` is not defined here", 8),
        ("${i", "never closed", 0),
        ("${}", "empty", 2),
        ("${1 +}", "not a valid expression", 2),
        ("${1 / 0}", "division by zero", 2),
        ("${widths[3]}", "index 3 is out of range for a list of 3", 2),
        ("${i[0]}", "2 is not a list", 2),
        ("${i.real}", "attribute", 2),
        ("${lambda: 1}", "lambda", 2),
        ("${[x for x in widths]}", "comprehension", 2),
        ("${(x := 1)}", "assignment", 3),
        ("${f'{i}'}", "f-string", 2),
        ("${ {} }", "not a valid expression", 2),
        ("${i is 2}", "do not support `is`", 2),
        ("${1j}", "do not support this constant", 2),
        ("${open('x')}", "do not support the function `open`", 2),
        ("${min}", "is a function; call it", 2),
        ("${min(key=1)}", "positional arguments only", 2),
        ("${10 ** 65}", "at most 64", 2),
        ("${10 ** 60}", "too large", 2),
        ("${widths * 10 ** 6}", "10,000 items", 2),
        ("${range(10 ** 6)}", "10,000 items", 2),
        ("${'a' * 10 ** 6}", "10,000 items", 2),
        ("${'a' % 1}", "cannot apply `%` to text and a number", 2),
        ("${widths + 1}", "cannot apply `+` to a list and a number", 2),
        ("${round(5, -16)}", "at most 15 digits", 2),
        ("${round(5, 1.5)}", "`round` takes a number and", 2),
        ("${len(3)}", "`len` takes a list or text", 2),
        ("${min([])}", "`min` takes numbers", 2),
        ("${range(1, 2, 0)}", "the third not 0", 2),
        ("${widths[::0]}", "the third not 0", 2),
        ("${widths[1.5]}", "must be a whole number, not 1.5", 2),
        ("${[widths * 2000, widths * 2000]}", "10,000 items", 2),
        ("${'a' * 6000}${'b' * 6000}", "more than 10,000 characters", 15),
        ("${-kind}", "cannot apply `-` to text", 2),
        ("n${widths}", "cannot insert", 3),
        ("${" + "1+" * 300 + "1}", "500 characters", 2),
        ("${" + "(" * 150 + "1" + ")" * 150 + "}", "", 2),
        ("${" + "-" * 200 + "1}", "nested too deeply", None),
    ],
)
def test_refusals(text: str, message: str, offset: int | None) -> None:
    if message == "":
        assert evaluate(text, SCOPE) == 1
        return
    with pytest.raises(ExpressionError, match=re.escape(message)) as caught:
        evaluate(text, SCOPE)
    if offset is not None:
        assert caught.value.offset == offset


def test_unknown_value_is_not_an_error_of_the_expression() -> None:
    with pytest.raises(UnknownValueError):
        evaluate("${in_channels * 2}", {"in_channels": UNKNOWN})


def test_all_expressions_of_a_budget_share_its_steps() -> None:
    budget = Budget(100)
    for _ in range(20):
        evaluate("${i + 1}", SCOPE, budget)  # its 8 characters cost 2 each, once
    assert budget.left == 100 - 2 * 8 - 20 * 3
    with pytest.raises(OverBudgetError):
        evaluate("${i + 2 * i + 3 * i + 4 * i + 5 * i}", SCOPE, budget)


@pytest.mark.parametrize(
    "text", ["${range(4000) + range(4000)}", "${p == q}", "${max(p)}", "${'a' * 8000}", "${1 in p}"]
)
def test_long_lists_and_texts_take_many_steps(text: str) -> None:
    scope = {"p": tuple(range(8000)), "q": tuple(range(8000))}
    budget = Budget()
    evaluate(text, scope, budget)
    assert Budget().left - budget.left > 1000


def test_extent_counts_nested_items_and_stops_at_the_limit() -> None:
    assert extent((1, 2, (3, "four"))) == 3 + 2 + 4
    assert extent("x" * 5) == 5
    assert extent(3) == 0
    doubled: tuple = (0, 0)
    for _ in range(60):
        doubled = (doubled, doubled)
    assert extent(doubled) == MAX_ITEMS + 1
    deep: tuple = ()
    for _ in range(5000):
        deep = (deep,)
    assert extent(deep) == MAX_ITEMS + 1


def test_values_are_shown_in_60_characters() -> None:
    assert show((1, (True, None), "a")) == '[1, [true, none], "a"]'
    doubled: tuple = (0, 0)
    for _ in range(60):
        doubled = (doubled, doubled)
    for value in (doubled, "x" * 10**6, tuple(range(10**6))):
        assert len(show(value)) == 60
        assert show(value).endswith("...")


_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}


@given(st.integers(-1000, 1000), st.sampled_from(sorted(_OPERATORS)), st.integers(1, 1000))
def test_arithmetic_is_pythons(left: int, symbol: str, right: int) -> None:
    assert evaluate(f"${{a {symbol} b}}", {"a": left, "b": right}) == _OPERATORS[symbol](
        left, right
    )


@given(st.text(max_size=80))
def test_any_text_gives_a_value_or_an_expression_error(text: str) -> None:
    try:
        evaluate("${" + text + "}", SCOPE)
    except ExpressionError as error:
        assert str(error)


@given(st.floats(8, 4096), st.sampled_from([4, 8, 16]))
def test_divisible_never_removes_more_than_a_tenth(value: float, divisor: int) -> None:
    rounded = divisible(value, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * value
    assert abs(rounded - value) <= divisor


@pytest.mark.parametrize(
    "text", ["1if i else 2", "'\\d'", "0x1for i", "[1 for i in 2in kind]", ".5or i"]
)
def test_text_of_which_python_would_warn_is_refused_silently(text: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ExpressionError, match="this is not a valid expression"):
            evaluate(f"${{{text}}}", SCOPE)
    assert not caught


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1e3),
        ("0xff", 255),
        ("1_000", 1000),
        (".5 + 1.", 1.5),
        ("1e-5", 1e-5),
        ("'1if'", "1if"),
    ],
)
def test_numbers_are_pythons(text: str, value: object) -> None:
    assert evaluate(f"${{{text}}}", SCOPE) == value


def test_evaluating_leaves_the_filters_of_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the filters of warnings belong to all threads")

    monkeypatch.setattr(warnings, "catch_warnings", refuse)
    monkeypatch.setattr(warnings, "simplefilter", refuse)
    assert evaluate("${i + 40 + 1}", SCOPE) == 43
