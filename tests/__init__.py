"""Tests of vidjax: folders mirror those of the project, besides these.

scenarios  whole runs and commands, and faults in the middle of them
support    made inputs, damage, processes and checks that several files share
goldens    tiny checkpoints with outputs of the original code
parity     comparisons with torch and transformers (marker `parity`)
"""
