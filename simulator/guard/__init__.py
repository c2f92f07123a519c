"""Limits and stored predictions that a project keeps for its own scenarios, and the pytest plugin that checks them."""
