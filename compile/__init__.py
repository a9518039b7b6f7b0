"""From a run to a verified package: budget, choice, lowering, verification."""
