"""Tenuto: a real-time usage-billing engine on PostgreSQL. See ARCHITECTURE.md for the map of the house."""

__version__ = "0.1.0"
