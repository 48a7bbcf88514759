"""The ip scheme (IPAuthenticationProvider.java; client protocol section 11)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zkd_auth_ip as ip
from zkd.plugins.api import Origin

(PROVIDER,) = ip.zkd_auth_providers({})


@pytest.mark.parametrize(
    "acl_id",
    [
        "10.0.0.1", "10.0.0.1/0", "10.0.0.1/32", "255.255.255.255", "010.0.0.1", "+1.0.0.1",
        "::", "::1", "1::", "1:2:3:4:5:6:7:8", "1::8", "fe80::1/64", "::1/128", "ABCD::ef01/0",
        "1:2:3:4:5:6:7::", "10.0.0.1/+8", "-0.0.0.0",
    ],
)  # fmt: skip
def test_valid_ids(acl_id: str) -> None:
    assert PROVIDER.is_valid(acl_id)


@pytest.mark.parametrize(
    "acl_id",
    [
        "", "localhost", "10.0.0", "10.0.0.1.", "10.0.0.256", "10.0.0.-1", "10.0.0.1/33",
        "10.0.0.1/-1", "10.0.0.1/", "10.0.0.1/8/8", "10.0.0.1 ", "1 0.0.0.1", "::1/129", ":::",
        "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::10.0.0.1",
        "::ffff:10.0.0.1", "fe80::1%eth0", "12345::", "g::", ":1", "1:", "[::1]",
    ],
)  # fmt: skip
def test_invalid_ids_match_nobody_either(acl_id: str) -> None:
    assert not PROVIDER.is_valid(acl_id)
    assert not PROVIDER.matches("10.0.0.1", acl_id)
    assert not PROVIDER.matches("::1", acl_id)


@pytest.mark.parametrize(
    ("address", "acl_id", "match"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.3", "10.1.2.0/24", True),
        ("10.1.3.3", "10.1.2.0/24", False),
        ("10.1.2.3", "10.1.2.77/24", True),
        ("10.1.2.3", "10.1.2.0/23", True),
        ("10.1.3.3", "10.1.2.0/23", True),
        ("1.2.3.4", "0.0.0.0/0", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db9::1", "2001:db8::/32", False),
        ("2001:db9::1", "::/0", True),
        ("1.2.3.4", "::/0", False),
        ("::1", "0.0.0.0/0", False),
        ("::ffff:a01:203", "10.1.2.3", False),
        ("10.1.2.3", "::ffff:a01:203", False),
        ("fe80::1%eth0", "fe80::1", False),
    ],
)
def test_an_entry_means_the_addresses_of_its_range(address: str, acl_id: str, match: bool) -> None:
    assert PROVIDER.matches(address, acl_id) is match


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_ranges_agree_with_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    network: ipaddress.IPv4Address | ipaddress.IPv6Address,
    bits: int,
) -> None:
    bits = min(bits, network.max_prefixlen)
    expected = address in ipaddress.ip_network(f"{network}/{bits}", strict=False)
    assert PROVIDER.matches(address.exploded, f"{network.exploded}/{bits}") is expected


@given(st.text(alphabet="0123456789abcdef:./+- ", max_size=45))
def test_any_text_gives_an_answer(text: str) -> None:
    assert PROVIDER.is_valid(text) in (True, False)
    assert PROVIDER.matches("10.0.0.1", text) in (True, False)


def test_a_connection_has_its_address_from_the_start_but_is_not_authenticated_by_it() -> None:
    assert PROVIDER.on_connect(Origin("::1", 1)) == (("ip", "::1"),)
    assert PROVIDER.authenticate(b"", Origin("10.0.0.1", 1)) == (("ip", "10.0.0.1"),)
    assert PROVIDER.is_authenticated is False
