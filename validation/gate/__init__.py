"""The parts of `ridgeline regress`: a fixed set of scenarios, their predictions, laws, accuracy by group, and baselines."""
