"""HyperPPO: one graph hypernetwork trained on-policy for every small MLP policy."""

__version__ = "0.1.0"
