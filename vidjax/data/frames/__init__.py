"""Decoded frames to clips: sampling, resizing, crops and augmentation."""
