"""UCF101: trainlist01.txt, testlist01.txt with classInd.txt beside it.

Lines are Class/v_Class_g01_c01.avi, in trainlists followed by a label that counts from 1.
"""

import re

from vidjax.data.lists.lines import bad_line, read_lines
from vidjax.data.lists.source import Listing, Row, Source
from vidjax.errors import UserError


def recognises(source: Source) -> bool:
    return source.is_text and re.fullmatch(r"(train|test)list\d+\.txt", source.name) is not None


def read(source: Source) -> Listing:
    file = source.beside("classInd.txt")
    if file is None:
        raise UserError(f"{source.path} is a split of UCF101; put its classInd.txt beside it")
    classes = []
    for number, line in read_lines(file):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(len(classes) + 1):
            raise bad_line(file, f"line {number}", line, f"`{len(classes) + 1} ClassName`")
        classes.append(fields[1])
    rows = []
    for number, line in source.lines:
        video, *label = line.split()
        name = video.partition("/")[0]
        if name not in classes or label not in ([], [str(classes.index(name) + 1)]):
            expected = "`Class/video.avi` or `Class/video.avi label`, as in classInd.txt"
            raise bad_line(source.path, f"line {number}", line, expected)
        rows.append(Row(f"line {number}", video, name))
    return Listing(rows, tuple(classes))
