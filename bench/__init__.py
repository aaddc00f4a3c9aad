"""How fast haversack is beside the tools people use today: ``python -m bench``."""
