"""Repairs after filters have been removed: state in, state out."""
