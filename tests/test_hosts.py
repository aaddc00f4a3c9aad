"""Hosts as they stand in URLs, and which of them are the machine itself, held to the resolver of this machine."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from haversack.formats.hosts import is_authority, is_here, number


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.1", "10.0.0.1", "0", "1.2.3.4", "0x7f000001", "1.65536",
     "1.2.256", "4294967296", "256.1", "1.2.3.256", "1.2.3.4.5", "09.1", "a.b", "", "1..2", "1.2.3.", "-1"],
)  # fmt: skip
def test_numbers_are_those_of_inet_aton(host: str) -> None:
    """The C library reads the same address, or none."""
    try:
        wanted = ipaddress.IPv4Address(socket.inet_aton(host.removesuffix(".")))
    except OSError:
        assert number(host) is None
    else:
        assert number(host) == wanted


def test_what_is_here_is_known_in_every_spelling() -> None:
    """Loopback, no address at all, and the names that always are loopback; other machines are not."""
    here = [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.1",
        "[::1]",
        "::ffff:127.0.0.1",
        "0",
        "0.0.0.0",
        "::",
        "",
    ]
    assert [host for host in here if not is_here(host)] == []
    assert [h for h in ("mirror", "localhost.example.org", "10.0.0.1", "::2", "128.1") if is_here(h)] == []


def test_authorities_have_hosts_and_ports_that_there_can_be() -> None:
    """A port is from 1 to 65535, an address in brackets is one, and a host has no blanks nor signs."""
    good = ["a", "a.example.org:443", "a_b:1", "a.", "10.0.0.1:65535", "[::1]", "[fd00::1]:8080"]
    assert [at for at in good if not is_authority(at)] == []
    bad = [
        "",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:x",
        "a b",
        "a\n",
        "me@a",
        "[::g]",
        "[::1",
        "::1",
        "a..b",
        "-a",
        "a$b",
    ]
    assert [at for at in bad if is_authority(at)] == []
