"""What :class:`haversack.ports.Run` promises."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import ToolError
from haversack.ports import Run
from haversack.testing.contracts.refused import refused

SPEAK = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
"""What the program ``[sys.executable, "-c", SPEAK]`` does; a scripted run is to answer as it does."""


@dataclass(frozen=True, slots=True)
class RunBench:
    """A run under test."""

    run: Run


class RunContract:
    """Tests of a run; they take a fixture ``bench`` (a :class:`RunBench`)."""

    def test_a_program_is_run_to_its_end(self, bench: RunBench) -> None:
        """Its exit code and all that it wrote come back; a code other than 0 is no error here."""
        done = bench.run([sys.executable, "-c", SPEAK])
        assert (done.code, done.out.strip(), done.err.strip()) == (3, "out", "err")
        assert done.argv == (sys.executable, "-c", SPEAK)

    def test_a_path_is_a_word(self, bench: RunBench) -> None:
        """Paths may stand where words may."""
        assert bench.run([Path(sys.executable), "-c", SPEAK]).code == 3

    def test_a_program_that_is_missing_is_told(self, bench: RunBench) -> None:
        """It raises ``ToolError``, which names the program and says what to do."""
        problem = refused(ToolError, lambda: bench.run(["/no/such/program", "x"]))
        assert problem.where == "/no/such/program"
        assert problem.remedy

    def test_the_cage_holds_or_is_refused(self, bench: RunBench) -> None:
        """Where the network can be taken away a caged program runs; elsewhere it raises and never runs."""
        if bench.run.cage():
            refused(ToolError, lambda: bench.run([sys.executable, "-c", SPEAK], caged=True))
        else:
            assert bench.run([sys.executable, "-c", SPEAK], caged=True).code == 3
