"""What the kinds of conda packages share: reading them, proving, installing, comparing."""
