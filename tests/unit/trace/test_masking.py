from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.trace.masking import LARGEST, MASK, kept

NAMES = st.sampled_from(["auth_password", "adminPass", "password", "token", "secret", "user", "x"])
BODIES = st.recursive(
    st.text(max_size=20) | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


def test_secrets_are_masked_wherever_they_are() -> None:
    info = {"auth_username": "u", "auth_password": "p", "target_lun": 1, "discard": False}
    masked = kept({"attachment": {"connection_info": info, "id": "a"}})
    assert masked == {
        "attachment": {
            "connection_info": {**info, "auth_username": MASK, "auth_password": MASK},
            "id": "a",
        }
    }


def test_a_large_body_is_left_out_but_for_its_size() -> None:
    body = {"volumes": ["x" * LARGEST]}
    assert kept(body) == {"omitted": f"{len(json.dumps(body))} characters"}


def test_a_secret_in_a_text_is_masked() -> None:
    """Cinder's errors have been seen to quote command lines."""
    message = "cinder-rtstool create --password hunter2 failed, auth_password='hunter2'"
    masked = kept({"badRequest": {"message": [message]}})
    assert "hunter2" not in json.dumps(masked)
    assert masked["badRequest"]["message"][0].startswith("cinder-rtstool create --password ***")


def test_no_body() -> None:
    assert kept(None) is None


@given(BODIES, st.sampled_from(["auth_password", "secret_uuid", "X-Auth-Token", "PASSWD"]))
def test_no_secret_survives(body: object, name: str) -> None:
    secret = "sesame-open-sesame"
    assert secret not in json.dumps(kept({"around": [body, {name: secret}, {name: {"x": secret}}]}))


@pytest.mark.parametrize("empty", [None, "", False])
def test_what_is_empty_is_no_secret(empty: object) -> None:
    assert kept({"password": empty}) == {"password": empty}
