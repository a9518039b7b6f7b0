"""Lowerings: one folder per language or runtime that a network can become."""
