"""Engines that tag tokens. Each takes segmented documents and returns `schemas.RECOGNISED`."""
