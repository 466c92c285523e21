"""Reads lists of videos in every format of the datasets."""
