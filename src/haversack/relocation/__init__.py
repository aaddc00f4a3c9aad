"""Environments that exist only as a folder: packed as they are, and made to work where they are put."""
