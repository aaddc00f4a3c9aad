"""``python -m haversack``."""

from haversack.cli import entry

if __name__ == "__main__":
    entry()
