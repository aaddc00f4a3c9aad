"""SkyPilot: what its configuration may say version by version, and what it needs of a site without internet; pure.

Rules were read from the wheels of SkyPilot 0.9.3 to 0.14.1, and tried with 0.14.1 (docs/platforms/skypilot.md).
"""
