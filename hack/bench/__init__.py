"""Figures: how good retrieval is, how fast things are. ``python -m bench`` prints them."""
