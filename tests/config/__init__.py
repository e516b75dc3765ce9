"""Tests of supervisor.config."""
