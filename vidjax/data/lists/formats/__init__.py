"""Formats of lists, a file for each kind of annotation; `reader` tries them.

A format is a module with

    recognises(source) -> bool       whether a list (see `source.Source`) is of this format
    read(source) -> Listing          its rows; KeyError, TypeError or AttributeError: a .json is not
    JSON                             how its .json looks, for the message about one of no format

A format that any dataset may have is also named in `reader.GENERAL`, which says when it is tried.
"""
