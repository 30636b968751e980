"""Metrics: samples to features to numbers; the protocol is part of a number's name."""
