"""The client's address: nobody can claim another than theirs, and trusted proxies are understood however they write."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config.load import load
from app.config.problems import ConfigError
from app.http.addresses import Addresses, bucket
from app.runtime import logs
from app.runtime.metrics import Metrics
from app.runtime.observe import Observer
from tests.support.effort import EFFORT

PROXIES = Addresses(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


def request(peer: str | None, *headers: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "client": None if peer is None else (peer, 4711),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }


def xff(*values: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", value) for value in values]


def forwarded(*values: str) -> list[tuple[str, str]]:
    return [("Forwarded", value) for value in values]


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([], "10.0.0.1"),
        (xff("203.0.113.5"), "203.0.113.5"),
        (xff("203.0.113.5:51234"), "203.0.113.5"),
        (xff("2001:db8::5"), "2001:db8::5"),
        (xff("2001:DB8:0::5"), "2001:db8::5"),
        (xff("[2001:db8::5]:443"), "2001:db8::5"),
        (xff("::ffff:203.0.113.5"), "203.0.113.5"),
        (xff('"203.0.113.5"'), "203.0.113.5"),
        # What is left of the first stranger is the stranger's invention.
        (xff("1.2.3.4, 203.0.113.5"), "203.0.113.5"),
        (xff("1.2.3.4, 203.0.113.5, 10.9.9.9 ,192.0.2.7"), "203.0.113.5"),
        (xff("203.0.113.5, [::ffff:10.9.9.9]:1, fd00::1"), "203.0.113.5"),
        (xff("1.2.3.4", "203.0.113.5", "10.9.9.9"), "203.0.113.5"),
        (xff("203.0.113.5, ,"), "203.0.113.5"),
        (xff("10.0.0.3, 10.0.0.2"), "10.0.0.3"),
        # As far as it can be understood, and no further.
        (xff("203.0.113.5, unknown"), "10.0.0.1"),
        (xff("203.0.113.5, unknown, 10.0.0.2"), "10.0.0.2"),
        (xff("203.0.113.5, _hidden, 10.0.0.2"), "10.0.0.2"),
        (xff("203.0.113.256"), "10.0.0.1"),
        (xff("203.0.113.05"), "10.0.0.1"),
        (xff("203.0.113.5:123456"), "10.0.0.1"),
        (xff("[2001:db8::5"), "10.0.0.1"),
        (xff("fe80::1%eth0"), "10.0.0.1"),
        (xff("203.0.113.5 10.0.0.2"), "10.0.0.1"),
        (xff("\xb2.3.4.5"), "10.0.0.1"),
        (xff(""), "10.0.0.1"),
        (forwarded("for=203.0.113.5"), "203.0.113.5"),
        (forwarded('For="[2001:db8::5]:4711";Proto=https;by=203.0.113.43'), "2001:db8::5"),
        (forwarded("for=[2001:db8::5]"), "2001:db8::5"),
        (forwarded('for="203.0.113.5:_port"; host="registry.example.com:443";'), "203.0.113.5"),
        (forwarded("for=1.2.3.4, for=203.0.113.5;proto=http,for=10.0.0.2"), "203.0.113.5"),
        (forwarded("for=1.2.3.4", "for=203.0.113.5", "for=10.0.0.2"), "203.0.113.5"),
        (forwarded("for=203.0.113.5, for=unknown, for=10.0.0.2"), "10.0.0.2"),
        (forwarded("for=203.0.113.5, for=_SEVKISEK"), "10.0.0.1"),
        (forwarded("for=203.0.113.5, proto=https"), "10.0.0.1"),
        (forwarded("for=203.0.113.5;for=1.2.3.4"), "10.0.0.1"),
        # A quote that the client leaves open swallows nothing of what the proxy adds, and the reverse.
        (forwarded('for="1.2.3.4', "for=203.0.113.5"), "203.0.113.5"),
        (forwarded('for=203.0.113.5;host="a,for=1.2.3.4"'), "10.0.0.1"),
        (forwarded('for=203.0.113.5;host="a,for=1.2.3.4;b"'), "10.0.0.1"),
        (forwarded(r'for=203.0.113.5;host="a,for=1.2.3.4;b=\"c"'), "10.0.0.1"),
        # A Forwarded that names nobody leaves it to the other header.
        ([*forwarded("proto=https"), *xff("203.0.113.5")], "203.0.113.5"),
        ([*forwarded("for=203.0.113.5"), *xff("203.0.113.5")], "203.0.113.5"),
        ([*forwarded("for=203.0.113.5"), *xff("203.0.113.5, 10.0.0.2")], "203.0.113.5"),
        # One of the two came from the client, through a proxy that does not know it.
        ([*forwarded("for=1.2.3.4"), *xff("203.0.113.5")], "10.0.0.1"),
        ([*forwarded("for=203.0.113.5"), *xff("1.2.3.4")], "10.0.0.1"),
        ([*forwarded("for=203.0.113.5"), *xff("unknown")], "10.0.0.1"),
    ],
)
def test_address_when_the_peer_is_trusted_then_is_the_last_one_that_is_not(
    headers: list[tuple[str, str]], address: str
) -> None:
    assert PROXIES.of(request("10.0.0.1", *headers)) == address


@pytest.mark.parametrize("proxies", [PROXIES, Addresses([])])
def test_address_when_the_peer_is_a_unix_socket_then_is_what_the_proxy_says(proxies: Addresses) -> None:
    assert proxies.of(request(None, *xff("1.2.3.4, 203.0.113.5"))) == "203.0.113.5"
    assert proxies.of(request(None, *forwarded("for=203.0.113.5"))) == "203.0.113.5"
    assert proxies.of(request(None)) == ""
    assert proxies.of(request(None, *xff("unknown"))) == ""


def test_address_when_the_peer_comes_in_another_spelling_then_is_trusted_all_the_same() -> None:
    headers = xff("203.0.113.5")

    assert PROXIES.of(request("::ffff:10.0.0.1", *headers)) == "203.0.113.5"
    assert PROXIES.of(request("::ffff:11.0.0.1", *headers)) == "11.0.0.1"
    assert Addresses(["::ffff:10.0.0.0/104"]).of(request("10.0.0.1", *headers)) == "203.0.113.5"
    assert Addresses(["fe80::/10"]).of(request("fe80::1%eth0", *headers)) == "203.0.113.5"


def test_address_when_a_header_is_endless_then_only_its_end_is_looked_at() -> None:
    proxies = ", 10.0.0.2"

    assert PROXIES.of(request("10.0.0.1", *xff("203.0.113.5" + proxies * 31))) == "203.0.113.5"
    assert PROXIES.of(request("10.0.0.1", *xff("203.0.113.5" + proxies * 32))) == "10.0.0.2"
    assert PROXIES.of(request("10.0.0.1", *xff(*["203.0.113.5"] * 5000))) == "203.0.113.5"


STRANGERS = st.ip_addresses().map(str).filter(lambda text: not _is_trusted(text))
NODES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["10.0.0.1", "192.0.2.7", "fd00::1", "unknown", "_x", "", "127.0.0.1", "::1"]),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
VALUES = st.lists(NODES, max_size=5).map(", ".join) | st.lists(
    NODES.map(lambda node: f'for="{node}"'), max_size=5
).map(", ".join)
HEADERS = st.lists(
    st.tuples(st.sampled_from(["forwarded", "x-forwarded-for", "x-real-ip", "host"]), VALUES), max_size=6
)


def _is_trusted(text: str) -> bool:
    return PROXIES.of(request(text, *xff("198.51.100.1"))) == "198.51.100.1"


@settings(max_examples=100 * EFFORT, deadline=None)
@given(peer=STRANGERS, headers=HEADERS, proxies=st.sampled_from([PROXIES, Addresses([])]))
def test_address_when_an_untrusted_peer_sends_any_headers_then_is_its_own(
    peer: str, headers: list[tuple[str, str]], proxies: Addresses
) -> None:
    assert proxies.of(request(peer, *headers)) == proxies.of(request(peer))
    ip = ip_address(peer)
    assert ip_address(proxies.of(request(peer))) in (ip, getattr(ip, "ipv4_mapped", None))


@settings(max_examples=100 * EFFORT, deadline=None)
@given(client=STRANGERS, lies=VALUES, header=st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_address_when_a_client_behind_a_proxy_lies_then_is_what_the_proxy_saw(
    client: str, lies: str, header: str
) -> None:
    """The proxy appends to the header; the client wrote what came before."""
    seen = f'for="{client}"' if header == "forwarded" else client

    found = PROXIES.of(request("10.0.0.1", (header, lies), (header, seen)))

    assert found == PROXIES.of(request(client))


@settings(max_examples=100 * EFFORT, deadline=None)
@given(client=STRANGERS, lies=VALUES)
def test_address_when_a_client_sends_the_header_that_its_proxy_does_not_know_then_nothing_is_gained(
    client: str, lies: str
) -> None:
    for known, other, seen in (
        ("x-forwarded-for", "forwarded", client),
        ("forwarded", "x-forwarded-for", f'for="{client}"'),
    ):
        found = PROXIES.of(request("10.0.0.1", (other, lies), (known, seen)))

        assert found in ("10.0.0.1", PROXIES.of(request(client)))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("somebody", "somebody"),
    ],
)
def test_bucket_then_is_what_one_subscriber_cannot_leave(address: str, expected: str) -> None:
    assert bucket(address) == expected


def configured(*proxies: str) -> tuple[str, ...]:
    http = {"addr": ":5000", "trustedproxies": list(proxies)}
    return load(None, {}, base={"http": http, "storage": "inmemory"}).settings.http.trustedproxies


def test_trusted_proxies_when_they_are_networks_then_are_taken_as_they_are() -> None:
    proxies = ("10.0.0.1", "10.0.0.0/8", "192.0.2.0/255.255.255.0", "2001:db8::/32", "::ffff:10.0.0.0/104")

    assert configured(*proxies) == proxies
    assert Addresses(configured(*proxies)).of(request("192.0.2.99", *xff("203.0.113.5"))) == "203.0.113.5"
    assert configured() == ()


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        (
            "proxy.example.com",
            "names 'proxy.example.com', which is no address or network such as 10.0.0.1 or",
        ),
        ("10.0.0.0/33", "names '10.0.0.0/33', which is no address or network"),
        ("", "names '', which is no address or network"),
        ("fe80::1%eth0", "names 'fe80::1%eth0', which is no address or network"),
        ("10.0.0.1/8", "which is both an address and a network; write 10.0.0.1 or 10.0.0.0/8"),
        ("0.0.0.0/0", "if everybody is believed, clients choose their own addresses"),
        ("::/0", "if everybody is believed, clients choose their own addresses"),
    ],
)
def test_trusted_proxies_when_one_is_no_network_then_a_sentence_says_so(proxy: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured("127.0.0.1", proxy)

    assert str(caught.value).startswith("http.trustedproxies.1: names ")
    assert reason in str(caught.value)


@pytest.mark.usefixtures("logging_as_before")
def test_access_log_when_the_proxy_is_trusted_then_has_the_client_s_address(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.configure(access="json")
    scope = {
        **request("10.0.0.1", *xff("203.0.113.5")),
        "method": "GET",
        "path": "/v2/",
        "query_string": b"",
        "http_version": "1.1",
    }
    for observer, address in [
        (Observer(Metrics(), PROXIES.of), "203.0.113.5"),
        (Observer(Metrics()), "10.0.0.1"),
    ]:
        observer.began(scope)
        observer.ended(scope, route="base", status=200, seconds=0.5, received=0, sent=2)
        assert json.loads(capfd.readouterr().out)["client"] == address
