"""The nouns and their rules: no disk, no network, no clock."""
