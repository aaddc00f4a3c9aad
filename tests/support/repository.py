"""Real git repositories, made by the git program without anybody's settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class Repository:
    """A repository with a work tree at ``path``, on the branch main."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._moment = 1_700_000_000
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str) -> str:
        """Run git in it, and give what it printed."""
        return run_git("-C", str(self.path), *words, moment=self._moment).strip()

    def commit(self, files: Mapping[str, str], message: str = "change") -> str:
        """Write files, commit them all, and give the commit."""
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        self._moment += 60
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")


def run_git(*words: str, moment: int = 1_700_000_000) -> str:
    """Run git as Ada, with no settings of this machine; the output of a run that must succeed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": f"{moment} +0000"}
    own = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(["git", *words], env={**kept, **own, **alone}, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout
