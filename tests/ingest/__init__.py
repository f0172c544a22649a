"""Tests of bsjax.ingest."""
