"""The commonest negative prompt and settings of the prompts around a picture."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from imprompt.core.values import Parameters
from imprompt.ensemble.suggestions import suggest
from imprompt.retriever.answers import CommonNegative, CommonSetting, Suggestion
from tests.ensemble.builders import prompts_of

PROMPTS = prompts_of(["a", "b", "c", "d", "e"])


def negatives(*texts: str) -> dict[int, Parameters]:
    return {row_id: Parameters(text) for row_id, text in enumerate(texts) if text}


def common(*texts: str) -> CommonNegative | None:
    found = suggest(PROMPTS, negatives(*texts))
    return None if found is None else found.negative


def test_the_same_parts_are_the_same_negative_prompt() -> None:
    """In any order and case, however spaced; the text is the nearest prompt's."""
    assert common("hands", "blurry,  Low Quality", "low quality, BLURRY,", "", "") == (
        CommonNegative("blurry,  Low Quality", 2)
    )
    assert common("blurry, low quality", "blurry low quality", "low, blurry quality") is None


def test_the_commonest_is_taken_and_of_equally_common_ones_the_nearest() -> None:
    """One that only one prompt comes with is none, even if it is the nearest's."""
    assert common("x", "far", "near", "near", "far") == CommonNegative("far", 2)
    assert common("far", "near", "near", "near", "far") == CommonNegative("near", 3)
    assert common("one", "two", "three", "four", "") is None
    assert common(" , ", ",", " ,, ", "", "") is None, "none has a part"


def test_each_setting_is_counted_by_itself() -> None:
    """A setting that no two prompts share is left out; numbers are those of the nearest."""
    found = suggest(
        PROMPTS,
        {
            0: Parameters("", {"sampler": "Euler a", "steps": "20", "model": "one"}),
            2: Parameters("", {"sampler": "euler A", "steps": "30", "model": "two"}),
            3: Parameters("", {"steps": "30"}),
            4: Parameters("", {"steps": "20"}),
        },
    )
    settings = (CommonSetting("sampler", "Euler a", 2), CommonSetting("steps", "20", 2))
    assert found == Suggestion(5, None, settings)


def test_nothing_in_common_is_no_suggestion() -> None:
    """Without prompts, without parameters, with those of other rows, with different ones."""
    assert suggest([], negatives("a", "a")) is None
    assert suggest(PROMPTS, {}) is None
    assert suggest(PROMPTS, {8: Parameters("a"), 9: Parameters("a")}) is None
    assert suggest(PROMPTS, {0: Parameters("a", {"b": "c"}), 1: Parameters("b")}) is None


def test_a_negative_prompt_that_a_filter_refuses_is_not_suggested() -> None:
    """The next one is."""
    given = negatives("by wlop", "by wlop", "by wlop", "blurry", "blurry")
    found = suggest(PROMPTS, given, says=lambda text: "wlop" not in text)
    assert found == Suggestion(5, CommonNegative("blurry", 2), ())


@given(st.lists(st.sampled_from(["", "a", "b", "a, b", "b,a", "c"]), max_size=12))
def test_support_is_the_number_of_prompts_that_come_with_it(texts: list[str]) -> None:
    """Counted the plain way."""
    prompts = prompts_of([str(i) for i in range(len(texts))])
    counts = Counter("".join(sorted(text.replace(", ", ","))) for text in texts if text)
    found = suggest(prompts, negatives(*texts))
    most = max(counts.values(), default=0)
    if most < 2:
        assert found is None
        return
    assert found is not None and found.negative is not None
    assert found.negative.support == most
    assert counts["".join(sorted(found.negative.text.replace(", ", ",")))] == most
