"""Passwords in commands, as far as they can be told by how programs are given them."""

from __future__ import annotations

import re

# What the shell puts there when the command runs is none.
_LATER = r"[\"']?[$`]"
# Nor is the path of a file that a variable names.
_FILE = r"[\"']?[/~]"
# What stands before a word of the same command: it ends at |, ; and &, unless they are quoted.
_BEFORE = r"""(?:(?:"[^"]*"|'[^']*'|\\[\s\S]|[^|;&"'\\\n])*\s)?"""
_GIVEN = (
    # A URL of any program.
    r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:]*:(?!$)(?!{later})[^\s/@]+@",
    # ncat, curl, proxytunnel, socat
    r"--?(?:proxy-auth|proxyauth|remproxyauth|proxy-user|user)(?:\s+|=)[\"']?[^\s:$`]+:(?!{later})\S",
    r"(?<!\S)(?-i:-[PU])\s*[\"']?[^\s:$`/]+:(?!{later})[^\s%]",
    r"proxyauth=[^\s:,$`]+:(?!{later})[^\s,]",
    # connect-proxy, curl, tsocks
    r"(?<!\S)(?-i:-[HS])\s*[\"']?[^\s:@$`/]+:(?!{later})[^\s@:]+@",
    r"curl\s{before}-[A-Za-z]*(?-i:u)\s*[\"']?[^\s:$`]+:(?!{later})\S",
    r"tsocks\s+(?:(?-i:-[^p\s])\s*\S+\s+)*(?-i:-p)\s*(?!{later})\S",
    # openssl
    r"(?<![\w-])-?-pass(?:in|out)?(?:\s+|=)pass:(?!{later})\S",
    # Registries, az (@ names a file)
    r"(?:docker|podman|nerdctl|buildah|skopeo|oras|registry|auth|az)\s+login\s{before}(?-i:-p)\s*(?!@)(?!{later})\S",
    # Headers of HTTP.
    r"authorization[\"']?:\s*[\"']?(?:bearer|basic|token)\s+(?!{later})\S",
    # sshpass, plink
    r"sshpass\s+(?:(?-i:-[^p\s])\S*\s+)*(?-i:-p)\s*(?!{later})\S",
    r"(?<!\S)-pw\s+(?!{later})\S",
    r"--?(?:password|passwd)(?:\s+|=)(?!{later})\S",
    # Variables of any program.
    r"(?<![A-Za-z0-9_$])[A-Za-z0-9_]*(?:PASSWORD|PASSWD|PASSPHRASE|SSHPASS|_PWD|SECRET|TOKEN|(?:ACCESS|API|PRIVATE|SECRET)_?KEY)=(?!{later})(?!{file})[^\s;&|]",
    r"(?<![A-Za-z0-9_$])(?:[A-Za-z0-9_]*_|PG|DB)?PASS=(?!{later})(?!{file})[^\s;&|]",
)
_SECRET = re.compile(
    "|".join(_GIVEN).replace("{later}", _LATER).replace("{file}", _FILE).replace("{before}", _BEFORE),
    re.IGNORECASE,
)


def in_command(command: str) -> bool:
    """Whether a command holds a password that one of the usual programs would be given."""
    return _SECRET.search(command) is not None
