"""The expression interpreter: what it computes, and what it refuses."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnngraph.expressions import (
    UNKNOWN,
    ExpressionError,
    UnknownValueError,
    divisible,
    evaluate,
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
        ("${len(widths)}", 3),
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
        ("${x}", "`x` is not known here", 2),
        ("a ${ i + x }", "`x` is not known here", 8),
        ("${i", "never closed", 0),
        ("${}", "empty", 2),
        ("${1 +}", "cannot be read", 2),
        ("${1 / 0}", "division by zero", 2),
        ("${widths[3]}", "index 3 is outside a list of 3", 2),
        ("${i[0]}", "2 is not a list", 2),
        ("${i.real}", "attribute", 2),
        ("${lambda: 1}", "lambda", 2),
        ("${[x for x in widths]}", "comprehension", 2),
        ("${(x := 1)}", "assignment", 3),
        ("${f'{i}'}", "f-string", 2),
        ("${ {} }", "cannot be read", 2),
        ("${i is 2}", "`is` is not part", 2),
        ("${1j}", "not part of", 2),
        ("${open('x')}", "`open` is not a function", 2),
        ("${min}", "is a function; call it", 2),
        ("${min(key=1)}", "without names", 2),
        ("${10 ** 65}", "at most 64", 2),
        ("${10 ** 60}", "too large", 2),
        ("${widths * 10 ** 6}", "10,000 items", 2),
        ("${range(10 ** 6)}", "10,000 items", 2),
        ("${'a' * 10 ** 6}", "10,000 items", 2),
        ("${'a' % 1}", "works on numbers", 2),
        ("${widths + 1}", "has no value", 2),
        ("${-kind}", "no meaning", 2),
        ("n${widths}", "cannot be put into text", 3),
        ("${" + "1+" * 300 + "1}", "500 characters", 2),
        ("${" + "(" * 150 + "1" + ")" * 150 + "}", "", 2),
        ("${" + "-" * 200 + "1}", "too large", None),
    ],
)
def test_refusals(text: str, message: str, offset: int | None) -> None:
    if message == "":
        assert evaluate(text, SCOPE) == 1
        return
    with pytest.raises(ExpressionError, match=message.replace("(", r"\(")) as caught:
        evaluate(text, SCOPE)
    if offset is not None:
        assert caught.value.offset == offset


def test_an_unknown_value_is_no_mistake_of_the_expression() -> None:
    with pytest.raises(UnknownValueError):
        evaluate("${in_channels * 2}", {"in_channels": UNKNOWN})


_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}


@given(st.integers(-1000, 1000), st.sampled_from(sorted(_OPERATORS)), st.integers(1, 1000))
def test_arithmetic_is_pythons(left: int, symbol: str, right: int) -> None:
    assert evaluate(f"${{a {symbol} b}}", {"a": left, "b": right}) == _OPERATORS[symbol](left, right)


@given(st.text(max_size=80))
def test_any_text_gives_a_value_or_an_expression_error(text: str) -> None:
    try:
        evaluate("${" + text + "}", SCOPE)
    except ExpressionError as error:
        assert str(error)


@given(st.floats(8, 4096), st.sampled_from([4, 8, 16]))
def test_divisible_never_takes_a_tenth_away(value: float, divisor: int) -> None:
    rounded = divisible(value, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * value
    assert abs(rounded - value) <= divisor
