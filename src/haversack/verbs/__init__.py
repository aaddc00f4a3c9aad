"""One function a command: what haversack does, through protocols only."""
