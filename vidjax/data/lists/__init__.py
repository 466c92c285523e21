"""Lists of videos.

`read_list` tells the format by itself. The modules:

    formats                           a file for each kind of annotation
    reader                            read_list; the order in which formats are tried
    source                            a list as formats see it, and the rows that they return
    lines, headers, table, columns    tables of text
    files, names, missing             which files the names of a list mean
    labels, class_names               labels as numbers
    shots, held_out                   few-shot lists, validation videos
"""

from vidjax.data.lists.held_out import hold_out
from vidjax.data.lists.reader import read_list
from vidjax.data.lists.shots import few_shot
