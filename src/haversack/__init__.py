"""haversack: machine learning where there is no internet."""
