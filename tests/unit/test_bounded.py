"""What a process remembers of foreign input has an end, in number and in bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragkube_api.bounded import Bounded

KEYS = st.integers(0, 5)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=12)),
        st.tuples(st.sampled_from(["pop", "touch"]), KEYS, st.just(b"")),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_the_newest_are_kept_and_never_more_than_fits(operations: list[tuple[str, int, bytes]]) -> None:
    bounded: Bounded[int, bytes] = Bounded(most=3, most_bytes=20, weigh=len)
    model: dict[int, bytes] = {}
    for name, key, value in operations:
        if name == "put":
            bounded.put(key, value)
            model.pop(key, None)
            model[key] = value
            while len(model) > 3 or sum(map(len, model.values())) > 20:
                del model[next(iter(model))]
        elif name == "pop":
            assert bounded.pop(key) == model.pop(key, None)
        elif key in model:
            bounded.touch(key)
            model[key] = model.pop(key)
        assert {key: bounded.get(key) for key in range(6) if bounded.get(key) is not None} == model
        assert len(bounded) == len(model)
        assert bounded.oldest() == next(iter(model.items()), None)


def test_what_is_too_large_for_all_the_room_costs_nothing_else_its_place() -> None:
    bounded: Bounded[str, bytes] = Bounded(most=3, most_bytes=20, weigh=len)
    bounded.put("small", b"1")
    bounded.put("large", bytes(21))
    assert bounded.get("small") == b"1"
    assert bounded.get("large") is None
