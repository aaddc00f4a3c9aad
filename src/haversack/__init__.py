"""haversack: machine learning where there is no internet."""

__version__ = "0.1.0"
