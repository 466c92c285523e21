"""Reads videos: where they are, and which frames are in them."""
